"""What capture costs beside the model's own forward pass: time, memory, depth, number of texts.

    python tests/benchmarks/bench_capture.py [--model minilm|smollm2] [--quick]

The floor is the backbone's forward pass over the same length-sorted batches: nothing kept, no language-model head.
One thread, CPU time of the process; variants take turns in an order that rotates from round to round; the figure is the
median over rounds of variant ÷ floor of the same round. Memory is the peak above what the process held before the run,
each in a fresh process. Texts are the Python language reference, cut into sentences (short) or into pieces that fill
256 tokens (long).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # CPU time is of the whole process

import torch

from probes import capture, load_model
from probes.capture.backends import BACKENDS
from probes.capture.batching import Batch
from probes.capture.capture import default_batch_tokens, make_source
from probes.capture.hooks import run_backbone
from probes.capture.pooling import Pooler
from probes.capture.shard import Job, capture_shard, run_batch
from probes.capture.sites import parse_sites
from probes.capture.source import BatchPlan
from probes.capture.twins import in_dtype
from probes.store import Store

LONG = 256


def reference_texts(kind: str, n: int) -> list[str]:
    """n texts, repeated from the start where there are not enough."""
    whole = " ".join(" ".join(text.split()) for _, text in sorted(topics.items()))
    if kind == "short":
        found = [s for s in re.split(r"(?<=[.!?]) ", whole) if 20 <= len(s) <= 200]
    else:
        found = [whole[i : i + 6 * LONG] for i in range(0, len(whole) - 6 * LONG, 6 * LONG)]
    return [found[i % len(found)] for i in range(n)]


class Bench:
    """The variants, each a function that goes once over the same batches."""

    def __init__(self, model: Any, kind: str, n: int) -> None:
        self.model, self.kind, self.texts = model, kind, reference_texts(kind, n)
        self.plan = BatchPlan(default_batch_tokens(model))
        length = min(LONG, model.max_length)
        self.length = length
        self.source = make_source(model, self.texts, None, length, "")
        self.batches = self.source.load(0, n, self.plan)
        self._half: Any = None
        self._runners: dict[Any, Any] = {}
        self.variants: dict[str, Callable[[], None]] = {
            "floor": self.floor,
            "mean-pool, all layers": lambda: self.pooled("resid_post"),
            "mean-pool, all exits (final norm at each)": lambda: self.pooled("exit"),
            "per-head z": lambda: self.pooled("z"),
            "all layers + all heads": lambda: self.pooled("resid_post", "z"),
            "all layers, store written": lambda: self.stored("resid_post"),
            "all layers + all heads, store written": lambda: self.stored("resid_post", "z"),
            "capture() from text to store, all exits": self.whole,
            "HF output_hidden_states + pool": self.hidden_states,
            "nnsight, all layers": lambda: self.pooled("resid_post", backend="nnsight"),
            "TransformerLens bridge, all layers": lambda: self.pooled(
                "resid_post", backend="transformer_lens"
            ),
            "bfloat16 floor": lambda: self.floor(self.half),
            "bfloat16, mean-pool, all layers": lambda: self.pooled("resid_post", model=self.half),
        }

    @property
    def half(self) -> Any:
        if self._half is None:
            self._half = in_dtype(self.model, torch.bfloat16)
        return self._half

    def inputs(self) -> Iterator[tuple[Batch, dict[str, torch.Tensor]]]:
        for batch in self.batches:
            yield batch, batch.inputs

    def floor(self, model: Any = None) -> None:
        with torch.inference_mode():
            for _, inputs in self.inputs():
                run_backbone(model or self.model, inputs)

    def job(self, model: Any, *sites: str, layers: Any = None) -> Job:
        return Job(
            model, self.source, parse_sites(sites, model.n_layers, layers), "mean", self.plan
        )

    def runner(self, job: Job, backend: str) -> Any:
        key = (backend, id(job.model), job.places)
        if key not in self._runners:
            self._runners[key] = BACKENDS[backend].open(job.model, job.places).__enter__()
        return self._runners[key]

    def pooled(
        self, *sites: str, model: Any = None, backend: str = "torch", layers: Any = None
    ) -> None:
        job = self.job(model or self.model, *sites, layers=layers)
        runner = self.runner(job, backend)
        for batch, _ in self.inputs():
            run_batch(job, runner, batch, lambda place, states, keep: None)

    def stored(self, *sites: str) -> None:
        job = self.job(self.model, *sites)
        runner = self.runner(job, "torch")
        with tempfile.TemporaryDirectory() as parent:
            store = Store.create(parent, {"bench": True}, [(0, len(self.texts))])
            capture_shard(job, store, 0, runner)
            store.finish()

    def whole(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            capture(self.model, self.texts, ["exit"], "mean", max_length=self.length)

    def hidden_states(self) -> None:
        with torch.inference_mode():
            for batch, inputs in self.inputs():
                states = self.model.structure.base(
                    **inputs, output_hidden_states=True
                ).hidden_states
                pool = Pooler("mean", batch.keep)
                for state in states:
                    pool(state)


def compare(variants: dict[str, Callable[[], None]], rounds: int) -> dict[str, tuple[float, float]]:
    """Name -> (median CPU seconds, median of per-round ratios to the first variant)."""
    names = list(variants)
    for name in names:
        variants[name]()  # warm: imports, allocator, page cache
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        order = names[turn % len(names) :] + names[: turn % len(names)]
        for name in order if turn % 2 else order[::-1]:
            gc.collect()
            start = time.process_time()
            variants[name]()
            times[name].append(time.process_time() - start)
    floor = times[names[0]]
    return {
        name: (
            statistics.median(own),
            statistics.median([t / f for t, f in zip(own, floor, strict=True)]),
        )
        for name, own in times.items()
    }


def status(field: str) -> float:
    """A field of /proc/self/status in MiB (Linux only)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def extra_memory(run: Callable[[], None]) -> float:
    """Peak MiB above what the process holds now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def measure_here(model_name: str, kind: str, variant: str, n: int) -> None:
    """In a fresh process: one variant's extra memory and CPU time, as JSON on stdout."""
    torch.set_num_threads(1)
    model = load_model(model_name)
    if variant == "capture":
        texts = reference_texts(kind, n)
        capture(model, texts[:8], ["exit"], "mean", max_length=LONG)

        def run() -> None:
            capture(model, texts, ["exit"], "mean", max_length=LONG)
    else:
        bench = Bench(model, kind, n)
        small = Bench(model, "short", 4)
        if variant.startswith("bfloat16"):
            small._half = bench.half  # the cast weights are no part of the run
        small.variants[variant]()
        run = bench.variants[variant]
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        extra = extra_memory(run)
    print(json.dumps({"extra": extra, "seconds": time.process_time() - start}))


def in_fresh_process(model: str, kind: str, variant: str, n: int) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--model",
        model,
        "--kind",
        kind,
        "--measure",
        variant,
        "--n",
        str(n),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{variant}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def middle_memory(model: str, variant: str, n: int) -> float:
    """Median of three fresh processes: where the allocator puts things differs from run to run."""
    return statistics.median(in_fresh_process(model, "long", variant, n)["extra"] for _ in range(3))


def table(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print(
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            + " |"
        )
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="minilm")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer texts and rounds, no long texts, no peers' memory",
    )
    parser.add_argument(
        "--kind", default="short", choices=("short", "long"), help=argparse.SUPPRESS
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_here(options.model, options.kind, options.measure, options.n)
        return
    torch.set_num_threads(1)
    model = load_model(options.model)
    large = model.n_layers > 12
    rounds = 3 if options.quick else 7
    short, long = (
        ((64, 8) if large else (512, 32))
        if options.quick
        else ((256, 32) if large else (2048, 128))
    )
    print(
        f"{options.model}: {model.n_layers} blocks, d = {model.d_model}; torch {torch.__version__}, one thread\n"
    )
    for kind, n in (("short", short),) if options.quick else (("short", short), ("long", long)):
        bench = Bench(model, kind, n)
        found = compare(bench.variants, rounds)
        tokens = sum(int(batch.inputs["attention_mask"].sum()) for batch in bench.batches)
        rate = f"{tokens / found['floor'][0]:,.0f} tokens/s at the floor"
        print(f"## {kind}: {n} texts, {tokens:,} tokens, {rounds} rounds, {rate}")
        table(
            [
                ["variant", "CPU s", "÷ floor"],
                *[[k, f"{s:.2f}", f"{r:.3f}"] for k, (s, r) in found.items()],
            ]
        )
    bench = Bench(model, "short", short)
    depths = sorted(
        {0, model.n_layers // 4, model.n_layers // 2, 3 * model.n_layers // 4, model.n_layers}
    )
    chosen = {
        "floor": bench.floor,
        **{f"exit {k}": (lambda k=k: bench.pooled("exit", layers=[k])) for k in depths},
    }
    found = compare(chosen, rounds)
    print("## one exit at layer k: share of the full pass")
    table(
        [["k", "k / L", "÷ floor"]]
        + [[str(k), f"{k / model.n_layers:.2f}", f"{found[f'exit {k}'][1]:.3f}"] for k in depths]
    )
    own = [
        "floor",
        "mean-pool, all layers",
        "all layers + all heads",
        "all layers + all heads, store written",
    ]
    peers = [
        "HF output_hidden_states + pool",
        "TransformerLens bridge, all layers",
        "bfloat16, mean-pool, all layers",
    ]
    print(f"## extra peak memory, {long} texts of {LONG} tokens, fresh process each")
    memory = {
        v: middle_memory(options.model, v, long) for v in own + ([] if options.quick else peers)
    }
    table(
        [
            ["variant", "MiB", "÷ floor"],
            *[[v, f"{m:.0f}", f"{m / memory['floor']:.2f}"] for v, m in memory.items()],
        ]
    )
    sizes = (short, 4 * short, 16 * short) if large else (1000, 10_000, 100_000)
    if options.quick:
        sizes = (short, 4 * short)
    print(
        "## growing number of short texts, capture() from text to store, all exits, fresh process each"
    )
    grown = {n: in_fresh_process(options.model, "short", "capture", n) for n in sizes}
    table(
        [["texts", "extra peak MiB", "CPU ms per text"]]
        + [
            [f"{n:,}", f"{g['extra']:.0f}", f"{1000 * g['seconds'] / n:.2f}"]
            for n, g in grown.items()
        ]
    )


if __name__ == "__main__":
    main()
