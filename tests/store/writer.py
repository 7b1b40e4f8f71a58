"""A capture without a model: activations that follow from row, layer and column alone.

Loaded by the tests and the soak run, and run as a script by tests that need a fresh process:
`python writer.py FOLDER`.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from probes.store import Store


@dataclass(frozen=True)
class Job:
    """What to capture: `n` texts in shards of `shard` texts, `layers` × (rows, width)."""

    n: int = 23
    shard: int = 5
    layers: int = 2
    width: int = 3
    ragged: bool = False

    @property
    def plan(self) -> list[tuple[int, int]]:
        return [(lo, min(lo + self.shard, self.n)) for lo in range(0, self.n, self.shard)]

    @property
    def identity(self) -> dict[str, object]:
        return {"model": "none", "width": self.width, "layers": self.layers, "ragged": self.ragged}

    def lengths(self, lo: int, hi: int) -> np.ndarray:
        return np.arange(lo, hi) % 4 if self.ragged else np.ones(hi - lo, dtype=int)

    def states(self, lo: int, hi: int, layer: int) -> np.ndarray:
        """(rows, width) float32: a hash of row, token, layer and column."""
        row = np.repeat(np.arange(lo, hi), self.lengths(lo, hi))[:, None]
        token = np.arange(len(row))[:, None] - np.searchsorted(row[:, 0], row[:, 0])[:, None]
        mixed = (row * 1000003 + token * 7919 + layer * 104729 + np.arange(self.width) * 31) % 65521
        return (mixed / 256).astype(np.float32)

    def tensors(self, index: int) -> dict[tuple[str, int], np.ndarray]:
        lo, hi = self.plan[index]
        return {("exit", layer): self.states(lo, hi, layer) for layer in range(self.layers)}

    def offsets(self, index: int) -> np.ndarray | None:
        lengths = self.lengths(*self.plan[index])
        return np.concatenate([[0], np.cumsum(lengths)]) if self.ragged else None

    def rows(self) -> pd.DataFrame:
        return pd.DataFrame({"id": [f"text {i} äöü" for i in range(self.n)]})


def capture(path: Path, job: Job = Job()) -> Store:
    """What the real capture does with a store: create or resume, write what is pending, finish."""
    store = Store.create(path, job.identity, job.plan, job.n)
    if not store.complete:
        with store.writing():
            for index in store.pending():
                store.write_shard(index, job.tensors(index), job.offsets(index))
            store.finish(job.rows())
    return store


def read_all(store: Store) -> dict[tuple[str, int], np.ndarray]:
    return {(site, layer): np.array(x) for site in store for layer, x in store[site].items()}


def lost_rows(store: Store, job: Job) -> int:
    """Rows of the store that are not what the job says, over all layers."""
    lost = 0
    for layer in range(job.layers):
        want, got = job.states(0, job.n, layer), store["exit", layer]
        lost += len(want) if got.shape != want.shape else int((got != want).any(axis=1).sum())
    return lost


def tree(path: Path) -> dict[str, str]:
    """Hash of each file of a store but the lock."""
    files = (p for p in path.rglob("*") if p.is_file() and p.name != "LOCK")
    return {
        str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)
    }


def temporaries(path: Path) -> list[str]:
    return [p.name for p in path.rglob("*.tmp")]


def fork(work: Callable[[], object]) -> int:
    """Run `work` in a forked child; gives its pid. The child ends with 0, or 1 and a printed line."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc(limit=3)
        os._exit(1)


def wait(pid: int) -> int:
    """Exit code of a child, minus the signal if one ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(pid: int, path: Path, files: int, pause: float) -> bool:
    """kill -9 once `path` holds `files` shards and records (or the child has ended), `pause` seconds later.

    By progress and not by the clock, so that kills are spread over the whole capture on a busy machine too.
    """
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, pid, ended) is None and _files(path) < files:
        time.sleep(0.0005)
    time.sleep(pause)
    return kill(pid)


def _files(path: Path) -> int:
    try:
        return len(os.listdir(path / "shards"))
    except FileNotFoundError:
        return 0


def kill(pid: int) -> bool:
    """kill -9 and wait; whether the child was still at work."""
    os.kill(pid, signal.SIGKILL)
    return wait(pid) == -signal.SIGKILL


if __name__ == "__main__":
    capture(Path(sys.argv[1]))
