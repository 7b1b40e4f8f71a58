"""Label-free metrics: wall and CPU seconds and peak memory per layer, tables and single metrics.

    python tests/benchmarks/bench_layer_metrics.py [--rows 20000] [--dim 576] [--layers 2] [--quick]

Every line is a fresh process with one thread; layers come from a memory map of the spectrum that
pooled states have. Memory is the peak above what the process held before the work. The aim is all metrics of
31 layers of 20,000 × 576 in 10 minutes and 4 GB on two cores. Printed, never asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from probes.layers import cka_matrix, measure_layers, measure_views, spectra
from probes.registry import LAYER_METRICS, PAIR_METRICS

Work = Callable[[dict[int, Any]], object]


def write_layer(path: Path, rows: int, dim: int) -> None:
    """Power-law spectrum with a common mean and a few strong dimensions, float32."""
    rng = np.random.default_rng(int(path.stem))
    X = rng.normal(size=(rows, dim)) * np.arange(1, dim + 1) ** -0.5 + rng.normal(size=dim)
    X[:, :3] *= 40
    np.save(path, X.astype(np.float32))


def tasks() -> dict[str, Work]:
    found: dict[str, Work] = {
        "all layer metrics": measure_layers,
        "all layer metrics, no intervals": lambda states: measure_layers(states, confidence=None),
        "spectra": spectra,
        "CKA matrix": cka_matrix,
        "all pair metrics": lambda states: measure_views(_views(states)),
    }
    for name in LAYER_METRICS:
        found[name] = lambda states, name=name: measure_layers(states, [name])
    for name in PAIR_METRICS:
        found[name] = lambda states, name=name: measure_views(_views(states), [name])
    return found


def _views(states: dict[int, Any]) -> dict[int, tuple[Any, Any]]:
    return {layer: (X, X[:, ::-1]) for layer, X in states.items()}


def measure_one(name: str, paths: list[str]) -> None:
    """Print wall seconds, CPU seconds and peak MB of one task, in this process."""
    measure_layers({0: np.eye(8)})  # what is loaded on first use is not counted
    states = {layer: np.load(path, mmap_mode="r") for layer, path in enumerate(paths)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, used = time.perf_counter(), time.process_time()
    tasks()[name](states)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps([time.perf_counter() - wall, time.process_time() - used, peak]))


def lines(paths: list[Path], quick: bool) -> Iterator[tuple[str, list[float]]]:
    for number, name in enumerate(tasks()):
        if quick and number >= 5:
            return
        words = [sys.executable, __file__, "--one", name, *map(str, paths)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        yield name, json.loads(done.stdout)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        measure_one(sys.argv[2], sys.argv[3:])
        return
    if sys.argv[1:2] == ["--write"]:
        write_layer(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=576)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="fewer rows, tables only")
    given = parser.parse_args()
    rows = min(given.rows, 4000) if given.quick else given.rows
    print(f"{given.layers} layers of {rows} × {given.dim}; seconds per layer, MB at the peak")
    print(f"{'task':34}{'wall':>8}{'CPU':>8}{'MB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{layer}.npy" for layer in range(given.layers)]
        for path in paths:  # not in this process, whose peak the others would inherit
            words = [sys.executable, __file__, "--write", str(path), str(rows), str(given.dim)]
            subprocess.run(words, check=True)
        for name, (wall, used, peak) in lines(paths, given.quick):
            print(
                f"{name:34}{wall / given.layers:8.2f}{used / given.layers:8.2f}{peak:8.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
