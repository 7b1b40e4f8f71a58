"""Two drivers, racing workers, forks: one driver at a time, and any number of workers end in the same bytes."""

from __future__ import annotations

import os
import random
import threading
import time

import pytest

from probes.errors import StoreError
from probes.store import Store, open_store


def test_a_second_driver_is_refused_with_the_pid_of_the_first(tmp_path, writer):
    job, path, go = writer.Job(), tmp_path / "s", tmp_path / "go"

    def first():
        store = Store.create(path, job.identity, job.plan)
        with store.writing():
            go.write_text("now")
            time.sleep(30)

    pid = writer.fork(first)
    while not go.exists():
        time.sleep(0.01)
    with pytest.raises(StoreError, match=f"being written by process {pid}: wait") as caught:
        writer.capture(path, job)
    assert "\n" not in str(caught.value)
    assert writer.kill(pid)
    writer.capture(path, job)  # control: free again


def test_the_lock_is_held_only_while_writing(tmp_path, writer):
    job = writer.Job()
    a = Store.create(tmp_path / "s", job.identity, job.plan)
    b = Store.create(tmp_path / "s", job.identity, job.plan)
    with a.writing() as same:
        assert same is a
        with a.writing():  # nested: the same driver
            pass
        with pytest.raises(StoreError, match=f"process {os.getpid()}"), b.writing():
            pass
    with b.writing(), pytest.raises(StoreError), a.writing():
        pass
    with pytest.raises(RuntimeError), a.writing():
        raise RuntimeError
    with a.writing():
        a.close()
        with b.writing():
            pass
    assert (tmp_path / "s" / "LOCK").read_text() == ""


def test_a_worker_needs_no_lock(tmp_path, writer, reference):
    job, path = writer.Job(), tmp_path / "s"
    store = Store.create(path, job.identity, job.plan)

    def work():
        worker = open_store(path)
        for index in worker.pending():
            worker.write_shard(index, job.tensors(index))

    with store.writing():
        assert writer.wait(writer.fork(work)) == 0
        assert store.pending() == []
        store.finish(job.rows())
    assert writer.tree(path) == reference


@pytest.mark.parametrize("seed", range(4))
def test_racing_workers_converge(tmp_path, writer, reference, seed):
    """Four processes write every shard, in different orders, and one of them is killed."""
    job, path = writer.Job(), tmp_path / "s"
    Store.create(path, job.identity, job.plan)

    def work(number):
        rng = random.Random(seed * 10 + number)
        store = open_store(path)
        for _ in range(3):
            for index in rng.sample(range(len(job.plan)), len(job.plan)):
                store.write_shard(index, job.tensors(index))
        store.finish(job.rows())

    pids = [writer.fork(lambda n=n: work(n)) for n in range(4)]
    time.sleep(random.Random(seed).uniform(0, 0.05))
    writer.kill(pids[0])
    assert [writer.wait(pid) for pid in pids[1:]] == [0, 0, 0]
    with open_store(path).writing():
        pass  # the killed one's temporary goes
    assert writer.tree(path) == reference


def test_readers_see_old_or_new_while_a_shard_is_written_again(tmp_path, writer):
    job = writer.Job(n=64, shard=16, width=64)
    path = tmp_path / "s"
    writer.capture(path, job)
    stop = threading.Event()

    def rewrite():
        store = open_store(path)
        while not stop.is_set():
            for index in range(len(job.plan)):
                store.write_shard(index, job.tensors(index))

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        for _ in range(30):
            assert writer.lost_rows(open_store(path), job) == 0
    finally:
        stop.set()
        thread.join()


def test_workers_that_disagree_are_noticed(tmp_path, writer):
    """Two machines differ in the last bit: the last commit counts, and it is whole."""
    job, path = writer.Job(), tmp_path / "s"
    store = writer.capture(path, job)
    other = {key: x + 1 for key, x in job.tensors(1).items()}
    store.write_shard(1, other)
    assert not store.complete
    with pytest.raises(StoreError, match="differs from the manifest"):
        open_store(path)["exit", 0]
    store.finish(job.rows())
    lo, hi = job.plan[1]
    assert (open_store(path)["exit", 0][lo:hi] == other["exit", 0]).all()


def test_a_failing_driver_gives_the_lock_back(tmp_path, writer):
    job = writer.Job()
    store = Store.create(tmp_path / "s", job.identity, job.plan)
    with pytest.raises(StoreError, match="cannot be finished"), store.writing():
        store.finish()
    assert writer.lost_rows(writer.capture(tmp_path / "s", job), job) == 0
