"""Every single system call fails once: a clean error, nothing temporary left, and resuming gives the same bytes.

The loop is SQLite's: the k-th call fails, for k = 1, 2, 3, … until a run meets no fault.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import resource
import shutil
import sys
import tempfile
from itertools import count

import pytest

from probes.errors import FathometerError, StoreError
from probes.store import Store, open_store


class Faults:
    """Fails the k-th of all wrapped calls that touch `root` (or an open descriptor)."""

    def __init__(self, root, k, code):
        self.root, self.k, self.code = str(root), k, code
        self.calls, self.fired = 0, ""

    def _step(self, name):
        self.calls += 1
        if self.calls == self.k:
            self.fired = name
            raise OSError(self.code, os.strerror(self.code))

    def _by_path(self, name, real):
        def call(*args, **kwargs):
            if str(args[0]).startswith(self.root):
                self._step(name)
            return real(*args, **kwargs)

        return call

    def _always(self, name, real):
        def call(*args, **kwargs):
            self._step(name)
            return real(*args, **kwargs)

        return call

    def _fdopen(self, *args, **kwargs):
        handle = self._real_fdopen(*args, **kwargs)
        return FailingWriter(handle, self._step)

    @contextlib.contextmanager
    def active(self):
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "replace", "link", "mkdir"):
                patch.setattr(os, name, self._by_path(f"os.{name}", getattr(os, name)))
            for name in ("fsync", "pwrite", "chmod"):
                patch.setattr(os, name, self._always(f"os.{name}", getattr(os, name)))
            self._real_fdopen = os.fdopen
            patch.setattr(os, "fdopen", self._fdopen)
            patch.setattr(tempfile, "mkstemp", self._always("mkstemp", tempfile.mkstemp))
            opened = self._by_path("open", builtins.open)
            patch.setattr(builtins, "open", opened)
            patch.setattr(io, "open", opened)
            yield self


class FailingWriter:
    """A file whose every write asks first; half of the bytes are written before it fails."""

    def __init__(self, handle, step):
        self._handle, self._step = handle, step

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._handle.close()

    def write(self, data):
        try:
            self._step("write")
        except OSError:
            self._handle.write(bytes(data)[: len(data) // 2])
            raise
        return self._handle.write(data)

    def flush(self):
        self._handle.flush()

    def fileno(self):
        return self._handle.fileno()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS], ids=errno.errorcode.get)
def test_every_failing_call_is_clean_and_resumable(tmp_path, writer, code):
    job = writer.Job(n=5, shard=2)
    writer.capture(tmp_path / "reference", job)
    want = writer.tree(tmp_path / "reference")
    seen = set()
    for k in count(1):
        path = tmp_path / f"{k}"
        faults = Faults(path, k, code)
        error = None
        with faults.active():
            try:
                writer.capture(path, job)
            except FathometerError as caught:
                error = str(caught)
        if not faults.fired:
            break
        seen.add(faults.fired)
        assert error is not None, f"call {k} ({faults.fired}) failed and nobody said so"
        assert "\n" not in error
        assert writer.temporaries(tmp_path) == [], f"call {k} ({faults.fired})"
        resumed = writer.capture(path, job)
        assert writer.tree(path) == want, f"call {k} ({faults.fired})"
        assert writer.lost_rows(resumed, job) == 0
        shutil.rmtree(path)
    assert writer.tree(path) == want  # the run without a fault
    assert k > 50
    assert seen >= {"os.open", "open", "write", "os.fsync", "os.replace", "os.link", "mkstemp"}


def test_every_failing_call_while_reading_is_clean(tmp_path, writer):
    job = writer.Job(n=5, shard=2)
    writer.capture(tmp_path / "s", job)
    for k in count(1):
        faults = Faults(tmp_path / "s", k, errno.EIO)
        error = None
        with faults.active():
            try:
                store = open_store(tmp_path / "s")
                assert writer.lost_rows(store, job) == 0
                store.rows()
            except StoreError as caught:
                error = str(caught)
        if not faults.fired:
            break
        assert error is not None
        assert "Input/output error" in error
    assert k > 10


def test_finished_shards_survive_a_fault_and_are_not_written_again(tmp_path, writer):
    job = writer.Job()
    store = Store.create(tmp_path / "s", job.identity, job.plan)
    store.write_shard(0, job.tensors(0))
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s" / "shards").iterdir()}
    with Faults(tmp_path, 1, errno.ENOSPC).active(), pytest.raises(FathometerError):
        store.write_shard(1, job.tensors(1))
    assert store.pending() == [1, 2, 3, 4]
    writer.capture(tmp_path / "s", job)
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "s" / "shards").iterdir()}
    assert {name: after[name] for name in before} == before


def _limited(writer, path, job, limit, result):
    """In a child: capture with files limited to `limit` bytes; the message goes to `result`."""

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            writer.capture(path, job)
        except FathometerError as error:
            result.write_text(str(error))

    return writer.wait(writer.fork(work))


def test_a_full_disk_gives_one_line_with_the_bytes_needed(tmp_path, writer):
    """The last shard is larger than the limit: the shards before it stay and count."""
    job = writer.Job(n=200, shard=50, width=64)
    plan = [(0, 10), (10, 20), (20, 200)]
    uneven = type("Uneven", (writer.Job,), {"plan": property(lambda self: plan)})(**vars(job))
    result = tmp_path / "message"
    assert _limited(writer, tmp_path / "s", uneven, 20_000, result) == 0
    message = result.read_text()
    needed = 2 * 180 * 64 * 4
    assert "disk full" in message
    assert "\n" not in message
    number = int(message.split(" bytes were needed")[0].split()[-1].replace(",", ""))
    assert needed < number < needed + 1000
    assert writer.temporaries(tmp_path) == []
    store = open_store(tmp_path / "s")
    assert store.pending() == [2]
    assert writer.lost_rows(writer.capture(tmp_path / "s", uneven), uneven) == 0
    result.unlink()
    assert _limited(writer, tmp_path / "roomy", uneven, 10_000_000, result) == 0  # control
    assert not result.exists()
    assert writer.tree(tmp_path / "roomy") == writer.tree(tmp_path / "s")


def test_a_read_only_folder_is_one_line_and_a_finished_store_still_reads(
    tmp_path, writer, monkeypatch
):
    """Permissions do not bind root, so the refusal is injected where the system would give it."""
    job = writer.Job()
    writer.capture(tmp_path / "s", job)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("replace", "link", "mkdir", "unlink", "ftruncate"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    store = writer.capture(tmp_path / "s", job)  # complete: nothing needs to be written
    assert writer.lost_rows(store, job) == 0
    with pytest.raises(FathometerError, match=r"no write access|Read-only file system") as caught:
        Store.create(tmp_path / "new", {"model": 1}, job.plan)
    assert "\n" not in str(caught.value)
    with pytest.raises(StoreError, match="Read-only file system"):
        store.redo([0])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_descriptor_leaks(tmp_path, writer):
    job = writer.Job(n=5, shard=2)
    writer.capture(tmp_path / "warm", job)
    before = len(os.listdir("/proc/self/fd"))
    for k in range(1, 40):
        faults = Faults(tmp_path / str(k), k, errno.EIO)
        with faults.active(), contextlib.suppress(FathometerError):
            writer.capture(tmp_path / str(k), job)
    assert len(os.listdir("/proc/self/fd")) == before


def test_bytes_are_on_disk_before_anything_names_them(tmp_path, writer, monkeypatch):
    """Power may fail at any moment: file synced, then renamed, then its folder synced; the shard before its record,
    the records before the manifest."""
    job, path, log = writer.Job(n=4, shard=2), tmp_path / "s", []
    sync, replace = os.fsync, os.replace

    def traced_sync(descriptor):
        sync(descriptor)
        log.append(("sync", os.fstat(descriptor).st_ino))

    def traced_replace(source, target):
        log.append(("rename", os.path.basename(target), os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", traced_sync)
    monkeypatch.setattr(os, "replace", traced_replace)
    writer.capture(path, job)
    folder = {True: path.stat().st_ino, False: (path / "shards").stat().st_ino}
    renames = [(i, *entry[1:]) for i, entry in enumerate(log) if entry[0] == "rename"]
    assert len(renames) == 6
    for i, name, inode in renames:
        assert log[i - 1] == ("sync", inode), name
        assert log[i + 1] == ("sync", folder[name in ("rows.parquet", "manifest.json")]), name
    order = [name.split("-")[0] for _, name, _ in renames]
    assert order == [
        "000000",
        "000000.json",
        "000001",
        "000001.json",
        "rows.parquet",
        "manifest.json",
    ]
