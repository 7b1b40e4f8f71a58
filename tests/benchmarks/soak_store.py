"""Soak and speed of the activation store.

    python tests/benchmarks/soak_store.py                  both, one minute of soak
    python tests/benchmarks/soak_store.py --minutes 10     the soak that RELIABILITY.md asks for
    python tests/benchmarks/soak_store.py --minutes 0      the speed table alone

Soak: a capture writes a store again and again while it is killed (kill -9), its system calls fail, and finished
shards are damaged; after each fault it is resumed. Every finished store must equal the undisturbed one, byte for byte.
Speed: [rows, 7, 384] float32 beside raw safetensors and npy memory maps, medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import safetensors
import safetensors.numpy

from probes.errors import FathometerError, StoreError
from probes.store import Store, open_store

LAYERS, WIDTH = 7, 384


def _load_writer() -> ModuleType:
    path = Path(__file__).parents[1] / "store" / "writer.py"
    spec = importlib.util.spec_from_file_location("store_writer", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["store_writer"] = module
    spec.loader.exec_module(module)
    return module


class Soak:
    """Counts faults and what became of them; `rows_lost` and `differing` must stay 0."""

    def __init__(self, parent: Path, seed: int) -> None:
        self.writer = _load_writer()
        self.job = self.writer.Job(n=4000, shard=100, layers=3, width=64)
        self.parent, self.rng = parent, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.writer.capture(parent / "reference", self.job)
        self.want = self.writer.tree(parent / "reference")

    def round(self) -> None:
        """One store, disturbed up to six times, then completed and compared."""
        path = self.parent / "store"
        for _ in range(self.rng.randint(1, 6)):
            fault = self.rng.choice([self.kill, self.kill, self.fail, self.damage, self.race])
            fault(path)
            self._check_if_complete(path)
        with contextlib.suppress(FileNotFoundError, StoreError):
            self.counts["shards redone"] += len(open_store(path).redo())
        self._heal_plan(path)
        store = self.writer.capture(path, self.job)
        lost = self.writer.lost_rows(store, self.job)
        self.counts["stores completed"] += 1
        self.counts["rows checked"] += self.job.n * self.job.layers
        self.counts["rows lost"] += lost
        self.counts["stores that differ"] += self.writer.tree(path) != self.want
        shutil.rmtree(path)

    def _heal_plan(self, path: Path) -> None:
        try:
            open_store(path)
        except StoreError:
            (path / "store.json").unlink(missing_ok=True)  # what the error tells the user to do

    def _check_if_complete(self, path: Path) -> None:
        """Whatever state a fault left: reading gives the right rows or an error, never others."""
        try:
            self.counts["rows lost"] += self.writer.lost_rows(open_store(path), self.job)
            self.counts["reads that were right"] += 1
        except StoreError:
            self.counts["reads that were refused"] += 1

    def _fork(self, path: Path, work: Callable[[], object] | None = None) -> int:
        def quiet() -> None:
            with contextlib.suppress(FathometerError):
                (work or (lambda: self.writer.capture(path, self.job)))()

        return self.writer.fork(quiet)

    def kill(self, path: Path) -> None:
        pid = self._fork(path)
        self.counts["kills"] += self._kill(pid, path)

    def _kill(self, pid: int, path: Path) -> bool:
        progress = self.rng.randrange(2 * len(self.job.plan))
        return self.writer.kill_at(pid, path, progress, self.rng.uniform(0, 0.003))

    def race(self, path: Path) -> None:
        """Three writers without the driver's lock, one of them killed."""

        def work() -> None:
            store = Store.create(path, self.job.identity, self.job.plan, self.job.n)
            todo = store.pending()
            for index in random.Random(os.getpid()).sample(todo, len(todo)):
                store.write_shard(index, self.job.tensors(index), self.job.offsets(index))

        pids = [self._fork(path, work) for _ in range(3)]
        self.counts["kills"] += self._kill(pids[0], path)
        failed = [self.writer.wait(pid) for pid in pids[1:]]
        self.counts["races"] += 1
        self.counts["races with a failed writer"] += any(failed)

    def fail(self, path: Path) -> None:
        """One system call after some number of them fails, in a forked capture."""
        left = self.rng.randint(1, 2 * len(self.job.plan))
        name = self.rng.choice(["fsync", "replace", "write"])
        fired = self.parent / "fired"

        def step() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                fired.touch()
                raise OSError(self.rng.choice([5, 28]), "injected")

        def work() -> None:
            if name == "write":
                real = os.fdopen

                def fdopen(*args: object, **kwargs: object) -> object:
                    step()
                    return real(*args, **kwargs)  # type: ignore[call-overload]

                os.fdopen = fdopen  # type: ignore[assignment]
            else:
                call = getattr(os, name)
                setattr(os, name, lambda *args: (step(), call(*args))[1])
            self.writer.capture(path, self.job)

        self.counts["writers that broke"] += self.writer.wait(self._fork(path, work)) != 0
        self.counts["failed system calls"] += fired.exists()
        fired.unlink(missing_ok=True)

    def damage(self, path: Path) -> None:
        """Flip, cut or delete one file of the store."""
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != "LOCK")
        if not files:
            return
        file = self.rng.choice(files)
        data = bytearray(file.read_bytes())
        kind = self.rng.choice(["flip", "cut", "delete"])
        if kind == "delete":
            file.unlink()
        elif kind == "cut":
            file.write_bytes(data[: self.rng.randrange(max(1, len(data)))])
        elif data:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            file.write_bytes(data)
        self.counts["damaged files"] += 1
        self._heal_plan(path)

    def report(self) -> str:
        faults = sum(
            self.counts[name] for name in ("kills", "failed system calls", "damaged files")
        )
        must_be_zero = ("rows lost", "stores that differ", "writers that broke",
                        "races with a failed writer")  # fmt: skip
        names = ["kills", "failed system calls", "damaged files", "races", "shards redone",
                 "reads that were right", "reads that were refused", "stores completed",
                 "rows checked", *must_be_zero]  # fmt: skip
        lines = [f"{name:28} {self.counts[name]:>12,}" for name in names]
        verdict = "survived" if not any(self.counts[n] for n in must_be_zero) else "NOT SURVIVED"
        return "\n".join([f"{'faults injected':28} {faults:>12,}", *lines, verdict])


def soak(minutes: float, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as parent:
        run = Soak(Path(parent), seed)
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            run.round()
        print(f"\nsoak, {minutes:g} min, seed {seed}\n{run.report()}")
        return "NOT SURVIVED" not in run.report()


def _write_store(path: Path, x: np.ndarray, per_shard: int) -> Store:
    n = x.shape[1]
    plan = [(lo, min(n, lo + per_shard)) for lo in range(0, n, per_shard)]
    store = Store.create(path, {"benchmark": 1}, plan)
    for index, (lo, hi) in enumerate(plan):
        store.write_shard(index, {("exit", k): x[k, lo:hi] for k in range(LAYERS)})
    store.finish()
    return store


def _write_raw(path: Path, x: np.ndarray) -> None:
    safetensors.numpy.save_file({f"exit.{k}": x[k] for k in range(LAYERS)}, path)


def _read_raw(path: Path) -> np.ndarray:
    with safetensors.safe_open(path, "np") as file:
        return file.get_tensor("exit.3")


def _take_raw(path: Path, rows: np.ndarray) -> np.ndarray:
    with safetensors.safe_open(path, "np") as file:
        part = file.get_slice("exit.3")
        return np.concatenate([part[int(r) : int(r) + 1] for r in rows])


def speed(rows: int, rounds: int) -> None:
    """Medians of interleaved rounds; warm page cache; the ratio is against raw safetensors."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((LAYERS, rows, WIDTH), dtype=np.float32)
    wanted = rng.integers(0, rows, 1000)
    layer, total = x[3].nbytes, x.nbytes
    per_shard = max(1, min(rows, (64 << 20) // (LAYERS * WIDTH * 4)))
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        many = _write_store(folder / "many", x, per_shard)
        one = _write_store(folder / "one", x, rows)
        _write_raw(folder / "raw.safetensors", x)
        np.save(folder / "x.npy", x)
        many.take("exit", 3, wanted)
        one.take("exit", 3, wanted)
        cases: dict[str, tuple[int, Callable[[], object]]] = {
            "write  raw safetensors (no fsync)":
                (total, lambda: _write_raw(folder / "new.safetensors", x)),
            "write  npy (no fsync)": (total, lambda: np.save(folder / "new.npy", x)),
            "write  store, durable, hashed":
                (total, lambda: _write_store(folder / "new", x, per_shard)),
            "layer  raw safetensors": (layer, lambda: _read_raw(folder / "raw.safetensors")),
            "layer  npy memmap, copied":
                (layer, lambda: np.array(np.load(folder / "x.npy", mmap_mode="r")[3])),
            "layer  store, many shards, verified": (layer, lambda: open_store(folder / "many")["exit", 3]),
            "layer  store, one shard, verified map":
                (layer, lambda: open_store(folder / "one")["exit", 3]),
            "layer  the same map, second time": (layer, lambda: one["exit", 3]),
            "1000 random rows  raw safetensors":
                (wanted.size * WIDTH * 4, lambda: _take_raw(folder / "raw.safetensors", wanted)),
            "1000 random rows  npy memmap":
                (wanted.size * WIDTH * 4, lambda: np.load(folder / "x.npy", mmap_mode="r")[3][wanted]),
            "1000 random rows  store, many shards":
                (wanted.size * WIDTH * 4, lambda: many.take("exit", 3, wanted)),
        }  # fmt: skip
        times: dict[str, list[float]] = {name: [] for name in cases}
        for round_ in range(rounds):
            order = list(cases)[round_ % len(cases) :] + list(cases)[: round_ % len(cases)]
            for name in order:
                shutil.rmtree(folder / "new", ignore_errors=True)
                began = time.perf_counter()
                cases[name][1]()
                times[name].append(time.perf_counter() - began)
        stored = sum(p.stat().st_size for p in (folder / "many").rglob("*"))
    _print_speed(times, {name: size for name, (size, _) in cases.items()}, rows)
    print(f"size on disk / size of the numbers: {stored / total:.4f}; shards: {len(many.shards)}")


def _print_speed(times: dict[str, list[float]], sizes: dict[str, int], rows: int) -> None:
    print(f"\nspeed, [{rows:,}, {LAYERS}, {WIDTH}] float32, warm, medians")
    print(f"{'':40} {'ms':>9} {'GB/s':>7} {'ratio':>6}")
    base = 1.0
    for name, values in times.items():
        median = statistics.median(values)
        base = median if "raw safetensors" in name else base
        print(
            f"{name:40} {median * 1e3:9.2f} {sizes[name] / median / 1e9:7.2f} {median / base:6.2f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=1.0, help="length of the soak; 0 skips it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--rows", type=int, default=50_000, help="rows of the speed table; 0 skips it"
    )
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.rows:
        speed(options.rows, options.rounds)
    return 0 if not options.minutes or soak(options.minutes, options.seed) else 1


if __name__ == "__main__":
    sys.exit(main())
