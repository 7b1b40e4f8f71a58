"""Damage is found, named, and computed again on request; the undamaged store passes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from probes.errors import ShardCorrupt, StoreError
from probes.store import Store, open_store


@pytest.fixture(params=[False, True], ids=["pooled", "ragged"])
def job(request, writer):
    return writer.Job(n=7, shard=4, ragged=request.param)


@pytest.fixture
def path(tmp_path, writer, job):
    writer.capture(tmp_path / "s", job)
    return tmp_path / "s"


def shard_of(path, index):
    return next((path / "shards").glob(f"{index:06d}-*.safetensors"))


def read_everything(writer, path):
    store = open_store(path)
    writer.read_all(store)
    store.rows()
    assert store.offsets is None or store.offsets[0] == 0
    return store


def mend(writer, path, job):
    """What a user does after an error: redo, capture again."""
    open_store(path).redo()
    return writer.capture(path, job)


def test_control_the_undamaged_store_passes(path, writer, job):
    before = writer.tree(path)
    store = read_everything(writer, path)
    assert store.complete
    for deep in (False, True):
        report = store.verify(deep=deep)
        assert report
        assert report.bad_shards == ()
        assert "0 problems" in str(report)
    assert store.redo() == ()
    assert store.redo([]) == ()
    assert writer.tree(path) == before


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file, position=-1):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(bytes(data))


def extend(file):
    file.write_bytes(file.read_bytes() + b"\0")


def remove(file):
    file.unlink()


def garbage(file):
    file.write_bytes(b"\x00\xff garbage {")


def nested(file):
    file.write_bytes(b"[" * 100_000)


def swap(file):
    """The bytes of the other shard under this one's name."""
    shutil.copyfile(shard_of(file.parent.parent, 0), file)


@pytest.mark.parametrize("damage", [truncate, flip, extend, remove, garbage, swap])
def test_a_damaged_shard_is_named_and_redone(path, writer, job, damage):
    want = writer.tree(path)
    file = shard_of(path, 1)
    damage(file)
    with pytest.raises(ShardCorrupt, match=file.name):
        read_everything(writer, path)
    report = open_store(path).verify(deep=True)
    assert report.bad_shards == (1,)
    assert file.name in str(report)
    assert writer.lost_rows(mend(writer, path, job), job) == 0
    assert writer.tree(path) == want


@pytest.mark.parametrize("damage", [truncate, extend, remove, garbage])
def test_a_shard_of_a_wrong_size_is_pending_without_being_asked(path, writer, job, damage):
    want = writer.tree(path)
    damage(shard_of(path, 1))
    store = open_store(path)
    assert not store.complete
    assert store.pending() == [1]
    writer.capture(path, job)
    assert writer.tree(path) == want


@pytest.mark.parametrize("damage", [truncate, flip, extend, remove, garbage, nested])
def test_a_damaged_record_is_an_error_and_never_zeros(path, writer, job, damage):
    want = writer.tree(path)
    damage(path / "shards" / "000001.json")
    with pytest.raises(ShardCorrupt, match=r"000001\.json"):
        read_everything(writer, path)
    assert open_store(path).verify().bad_shards == (1,)
    assert open_store(path).pending() == [1]
    writer.capture(path, job)
    assert writer.tree(path) == want


def test_a_record_of_another_shard_or_folder_does_not_count(path, writer, job, tmp_path):
    records = path / "shards"
    shutil.copyfile(records / "000000.json", records / "000001.json")
    assert open_store(path).pending() == [1]
    writer.capture(path, job)
    other = Store.create(tmp_path / "other", {"model": "other"}, job.plan)
    for file in records.iterdir():
        shutil.copyfile(file, tmp_path / "other" / "shards" / file.name)
    assert other.pending() == [0, 1]


@pytest.mark.parametrize("damage", [truncate, flip, extend, garbage, nested])
@pytest.mark.parametrize("name", ["manifest.json", "rows.parquet"])
def test_a_damaged_summary_is_named_and_written_anew(path, writer, job, damage, name):
    want = writer.tree(path)
    damage(path / name)
    with pytest.raises(StoreError, match=name):
        read_everything(writer, path)
    report = open_store(path).verify()
    assert not report
    assert report.bad_shards == ()
    assert name in str(report)
    assert not open_store(path).complete
    shards = {p: p.stat().st_mtime_ns for p in (path / "shards").iterdir()}
    assert mend(writer, path, job).complete
    assert writer.tree(path) == want
    assert {p: p.stat().st_mtime_ns for p in (path / "shards").iterdir()} == shards


@pytest.mark.parametrize("damage", [truncate, flip, extend, garbage, nested])
def test_a_damaged_plan_is_named_and_shards_survive_its_deletion(path, writer, job, damage):
    want = writer.tree(path)
    damage(path / "store.json")
    for attempt in (lambda: open_store(path), lambda: writer.capture(path, job)):
        with pytest.raises(StoreError, match=r"store\.json is damaged .* delete that one file"):
            attempt()
    (path / "store.json").unlink()
    shards = {p: p.stat().st_mtime_ns for p in (path / "shards").iterdir()}
    writer.capture(path, job)
    assert writer.tree(path) == want
    assert {p: p.stat().st_mtime_ns for p in (path / "shards").iterdir()} == shards


def _positions(size, limit=120):
    """All bytes of a small file, else a spread-out sample with both ends."""
    return sorted(set(np.linspace(0, size - 1, min(size, limit)).astype(int).tolist()))


def test_every_flipped_byte_is_found_and_none_is_read(path, writer, job):
    """A sample over all files; in plain safetensors nearly all of these pass unnoticed."""
    flips = 0
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != "LOCK"):
        whole = file.read_bytes()
        for position in _positions(len(whole)):
            data = bytearray(whole)
            data[position] ^= 1 << (position % 8)
            file.write_bytes(bytes(data))
            flips += 1
            with pytest.raises(StoreError):
                read_everything(writer, path)
            if file.name != "store.json":
                assert not open_store(path).verify(deep=True), (file.name, position)
        file.write_bytes(whole)
    assert flips > 500
    assert read_everything(writer, path).verify(deep=True)


def test_only_the_damaged_layer_is_refused(path, writer, job):
    """Reading verifies the wanted tensor alone."""
    shard = shard_of(path, 1)
    flip(shard)  # the last byte belongs to the last layer
    store = open_store(path)
    np.testing.assert_array_equal(store["exit", 0], job.states(0, job.n, 0))
    with pytest.raises(ShardCorrupt, match=r"exit\.1"):
        store["exit", 1]
    with pytest.raises(ShardCorrupt, match=r"exit\.1"):
        store.take("exit", 1, [len(store["exit", 0]) - 1])
    assert store.verify(deep=False).ok  # sizes and headers are right: depth is what finds it
    assert "tensors exit.1" in str(store.verify(deep=True))


def test_a_mapped_shard_is_verified_before_it_is_given(tmp_path, writer):
    job = writer.Job(n=4, shard=4)
    writer.capture(tmp_path / "s", job)
    assert isinstance(open_store(tmp_path / "s")["exit", 1], np.memmap)
    flip(shard_of(tmp_path / "s", 0))
    with pytest.raises(ShardCorrupt, match=r"exit\.1"):
        open_store(tmp_path / "s")["exit", 1]


def test_chosen_shards_are_redone(path, writer, job):
    want = writer.tree(path)
    store = open_store(path)
    assert store.redo([0]) == (0,)
    assert store.pending() == [0]
    assert not store.complete
    with pytest.raises(StoreError, match="not finished"):
        store["exit", 0]
    writer.capture(path, job)
    assert writer.tree(path) == want
    with pytest.raises(StoreError, match="shard 9"):
        store.redo([9])


def test_orphans_are_removed_and_strangers_stay(path, writer, job):
    want = writer.tree(path)
    orphan = path / "shards" / "000001-0123456789abcdef.safetensors"
    orphan.write_bytes(b"never committed")
    (path / "shards" / ".000001-0123.safetensors.x.tmp").write_bytes(b"half")
    (path / ".store.json.y.tmp").write_bytes(b"half")
    note = path / "shards" / "note.txt"
    note.write_text("mine")
    store = open_store(path)
    writer.read_all(store)  # an orphan is never read
    assert orphan.exists()
    with store.writing():
        pass
    assert note.exists()
    note.unlink()
    assert writer.tree(path) == want


def test_a_hostile_record_cannot_name_a_file_elsewhere(path, writer):
    from probes.store.sealed import read_sealed, seal

    file = path / "shards" / "000001.json"
    content = read_sealed(file)
    for name in ("../../../etc/passwd", "/etc/passwd", "000001-0123456789abcdef.safetensors"):
        file.write_bytes(seal({**content, "file": name}))
        assert open_store(path).pending() == [1]
    file.write_bytes(seal(content))
    assert open_store(path).pending() == []


def test_a_header_that_lies_is_refused(path, writer):
    """Size and data hash right, header changed: the reader compares it with the record."""
    shard = shard_of(path, 1)
    data = shard.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = [name for name in header if name != "offsets"]
    header[names[0]], header[names[1]] = header[names[1]], header[names[0]]
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    shard.write_bytes(data[:8] + text + data[8 + length :])
    with pytest.raises(ShardCorrupt, match="header differs"):
        read_everything(writer, path)
    assert open_store(path).verify(deep=False).bad_shards == (1,)
