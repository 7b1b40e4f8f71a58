"""kill -9 at any moment: resuming completes, and the result equals the uninterrupted one."""

from __future__ import annotations

import random
import time

import pytest

from probes.errors import StoreError
from probes.store import open_store


def _kill_and_resume(writer, parent, job, rounds, seed):
    """How many kills hit a child at work."""
    writer.capture(parent / "reference", job)
    want = writer.tree(parent / "reference")
    rng = random.Random(seed)
    hits = 0
    for round_ in range(rounds):
        path = parent / str(round_)
        for _ in range(3):  # killed up to three times on the way
            pid = writer.fork(lambda path=path: writer.capture(path, job))
            progress = rng.randrange(2 * len(job.plan))
            hits += writer.kill_at(pid, path, progress, pause=rng.uniform(0, 0.003))
            if (path / "store.json").exists():
                store = open_store(path)
                if store.complete:
                    assert writer.lost_rows(store, job) == 0
        resumed = writer.capture(path, job)
        assert writer.lost_rows(resumed, job) == 0
        assert writer.tree(path) == want, f"round {round_}, seed {seed}"  # no orphan, no temporary
    return hits


def test_a_dozen_kills(tmp_path, writer):
    job = writer.Job(n=64, shard=4, width=32)
    assert _kill_and_resume(writer, tmp_path, job, rounds=12, seed=0) >= 6


@pytest.mark.slow
def test_many_kills(tmp_path, writer):
    job = writer.Job(n=200, shard=8, width=64, ragged=True)
    assert _kill_and_resume(writer, tmp_path, job, rounds=50, seed=1) >= 50


def test_a_killed_driver_leaves_no_lock(tmp_path, writer):
    """Not even through a forked worker that outlives it."""
    job = writer.Job()
    path = tmp_path / "s"
    ready = tmp_path / "ready"

    def driver():
        store = writer.Store.create(path, job.identity, job.plan)
        with store.writing():
            worker = writer.fork(lambda: time.sleep(30))
            ready.write_text(str(worker))
            time.sleep(30)

    pid = writer.fork(driver)
    while not (ready.exists() and ready.read_text()):
        time.sleep(0.01)
    with pytest.raises(StoreError, match=f"process {pid}:"):
        writer.capture(path, job)
    assert writer.kill(pid)
    try:
        assert writer.lost_rows(writer.capture(path, job), job) == 0
    finally:
        writer.os.kill(int(ready.read_text()), writer.signal.SIGKILL)
