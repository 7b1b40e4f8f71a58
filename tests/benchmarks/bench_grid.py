"""Layer × width grid and rank statistics: time, and the ratio to doing every cell on its own.

    python tests/benchmarks/bench_grid.py [--quick]

CPU seconds (`process_time`), variants interleaved over rounds, medians; peak memory of the process at the end.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from scipy.stats import spearmanr

from probes.exits.candidates import CandidateScores
from probes.exits.grid import GridPlan, default_dims, layer_dim_grid
from probes.exits.resample import Resamples
from probes.exits.similarity import SimilarityTask, cosines


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each call, the order rotated from round to round."""
    names = list(calls)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            taken[name].append(seconds(calls[name]))
    return {name: float(np.median(values)) for name, values in taken.items()}


def naive_cosines(states: np.ndarray, a: np.ndarray, b: np.ndarray, dims: list[int]) -> np.ndarray:
    """Every cell on its own: slice, normalise, multiply."""
    rows = []
    for m in dims:
        cut = states[:, :m].astype(np.float64)
        unit = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        rows.append((unit[a] * unit[b]).sum(axis=1))
    return np.stack(rows)


def naive_draws(values: np.ndarray, gold: np.ndarray, drawn: Resamples, draws: int) -> np.ndarray:
    """scipy on every resample written out."""
    found = np.empty((len(values), draws))
    for j in range(draws):
        again = np.repeat(np.arange(len(gold)), drawn.counts[:, j])
        found[:, j] = [spearmanr(row[again], gold[again]).statistic for row in values]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the layers")
    layers, pairs, width, draws = (3 if parser.parse_args().quick else 31), 1500, 576, 1000
    rng = np.random.default_rng(0)
    dims = [*default_dims(width), 96, 192, 384, 48]
    dims = sorted(dims)[-12:]
    states = {k: rng.normal(size=(2 * pairs, width)).astype(np.float32) for k in range(layers)}
    a, b = np.arange(pairs), pairs + np.arange(pairs)
    gold = np.round(rng.uniform(0, 5, size=pairs), 1)  # tied, as human scores are
    task = SimilarityTask("bench", a, b, gold, np.arange(pairs))
    scores = {k: cosines(states[k], a, b, dims) for k in states}

    cells = interleaved(
        {
            "cumulative": lambda: [cosines(states[k], a, b, dims) for k in states],
            "naive": lambda: [naive_cosines(states[k], a, b, dims) for k in states],
        },
        rounds=5,
    )
    drawn = Resamples.make(pairs, draws, seed=0)
    few = 10  # draws for the naive way, scaled up below
    ranked = {
        "batched": seconds(lambda: [drawn.spearman(scores[k], gold) for k in states]),
        "scipy": seconds(lambda: naive_draws(scores[0], gold, drawn, few)) * layers * draws / few,
    }
    error = np.abs(
        drawn.spearman(scores[0], gold)[:, :few] - naive_draws(scores[0], gold, drawn, few)
    ).max()
    made: list[CandidateScores] = []
    whole = seconds(
        lambda: made.append(
            layer_dim_grid(task, {None: states}, {}, a[:0], GridPlan(tuple(dims), draws)).scores
        )
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    print(
        f"{layers} layers x {len(dims)} widths, {pairs} pairs, {draws} draws, d = {width}; CPU s, one thread"
    )
    print(f"{'step':<44}{'ours':>10}{'naive':>12}{'ratio':>8}")
    rows = (
        ("cosines of all cells", cells["cumulative"], cells["naive"]),
        ("Spearman under all draws (naive: extrapolated)", ranked["batched"], ranked["scipy"]),
    )
    for name, ours, naive in rows:
        print(f"{name:<44}{ours:>10.3f}{naive:>12.2f}{naive / ours:>8.1f}")
    print(f"{'whole grid with intervals (target < 20)':<44}{whole:>10.3f}")
    print(f"largest difference to scipy: {error:.1e}; peak memory {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
