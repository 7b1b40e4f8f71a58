"""What goes in comes out, for any shapes, types and shard plans, and another library reads it too."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import FathometerError, InputError, StoreError
from probes.store import Store, open_store

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@st.composite
def jobs(draw):
    """(plan, offsets per shard or None, {key: whole tensor}); tensors hold random bits, NaN included."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    cuts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    plan = list(pairwise(cuts))
    lengths = None
    if draw(st.booleans()):
        lengths = [draw(st.lists(st.integers(0, 3), min_size=s, max_size=s)) for s in sizes]
    rows = [sum(part) for part in lengths] if lengths else sizes
    keys = st.tuples(st.sampled_from(["exit", "z", "attn_out"]), st.integers(0, 40))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    tensors = {}
    for key in draw(st.lists(keys, min_size=1, max_size=4, unique=True)):
        dtype = TYPES[draw(st.sampled_from(sorted(TYPES)))]
        width = tuple(draw(st.lists(st.integers(0, 5), min_size=1, max_size=2)))
        bits = np.dtype(f"i{dtype.itemsize}")
        lowest, highest = np.iinfo(bits).min, np.iinfo(bits).max
        drawn = rng.integers(lowest, highest, (sum(rows), *width), bits, endpoint=True)
        tensors[key] = torch.from_numpy(drawn).view(dtype)
    offsets = [np.cumsum([0, *part]) for part in lengths] if lengths else None
    return plan, rows, offsets, tensors


def write(path, plan, rows, offsets, tensors):
    store = Store.create(path, {"job": "any"}, plan)
    starts = np.cumsum([0, *rows])
    with store.writing():
        for i in store.pending():
            part = {key: whole[starts[i] : starts[i + 1]] for key, whole in tensors.items()}
            store.write_shard(i, part, offsets[i] if offsets else None)
        store.finish()
    return open_store(path)


@settings(max_examples=60, deadline=None)
@given(jobs())
def test_any_store_reads_back_bit_for_bit(job):
    plan, rows, offsets, tensors = job
    with tempfile.TemporaryDirectory() as parent:
        store = write(Path(parent) / "s", plan, rows, offsets, tensors)
        assert store.complete
        assert store.verify(deep=True).ok
        assert {(s, k) for s in store for k in store[s]} == set(tensors)
        counted = {(r.site, r.layer): r.count for r in store.nonfinite().itertuples(index=False)}
        for (site, layer), whole in tensors.items():
            want = whole.float().numpy()
            got = store[site, layer]
            assert got.dtype == np.float32
            assert got.shape == want.shape
            assert not got.flags.writeable
            np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
            np.testing.assert_array_equal(np.nan_to_num(got), np.nan_to_num(want))
            bad = int((~torch.isfinite(whole)).sum())
            assert counted.get((site, layer), 0) == bad
            order = np.random.default_rng(0).permutation(len(want))[:3]
            np.testing.assert_array_equal(store.take(site, layer, order), want[order])
        if offsets:
            flat = np.concatenate([np.diff(o) for o in offsets])
            np.testing.assert_array_equal(store.offsets, np.concatenate([[0], np.cumsum(flat)]))
            np.testing.assert_array_equal(store.rows()["token_offset"], store.offsets[:-1])
        else:
            assert store.offsets is None


@settings(max_examples=25, deadline=None)
@given(jobs())
def test_the_safetensors_library_reads_every_shard(job):
    plan, rows, offsets, tensors = job
    starts = np.cumsum([0, *rows])
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent) / "s"
        write(path, plan, rows, offsets, tensors)
        for i in range(len(plan)):
            file = next((path / "shards").glob(f"{i:06d}-*.safetensors"))
            theirs = safetensors.torch.load_file(file)
            for (site, layer), whole in tensors.items():
                mine = whole[starts[i] : starts[i + 1]].contiguous()
                assert theirs[f"{site}.{layer}"].dtype == whole.dtype
                bits = torch.int32 if whole.dtype == torch.float32 else torch.int16
                assert torch.equal(theirs[f"{site}.{layer}"].view(bits), mine.view(bits))
            assert ("offsets" in theirs) == (offsets is not None)


def test_numpy_and_torch_give_the_same_bytes(tmp_path, writer):
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    variants = {
        "numpy": x,
        "torch": torch.from_numpy(x),
        "strided": np.asfortranarray(x),
        "big-endian": x.astype(">f4"),
        "with gradient": torch.nn.Parameter(torch.from_numpy(x)),
    }
    trees = []
    for name, tensor in variants.items():
        store = Store.create(tmp_path / name, {"a": 1}, [(0, 4)])
        store.write_shard(0, {("exit", 0): tensor})
        store.finish()
        trees.append(writer.tree(tmp_path / name))
    assert all(t == trees[0] for t in trees)


def test_bfloat16_of_ml_dtypes_is_taken(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.array([[1.0, -2.5]], dtype=np.float32).astype(ml_dtypes.bfloat16)
    store = Store.create(tmp_path / "s", {}, [(0, 1)])
    record = store.write_shard(0, {("exit", 0): x})
    store.finish()
    assert record.specs["exit.0"].dtype == "BF16"
    np.testing.assert_array_equal(store["exit", 0], [[1.0, -2.5]])


def test_one_float32_shard_is_mapped_and_several_are_gathered(tmp_path, writer):
    one = writer.capture(tmp_path / "one", writer.Job(n=5, shard=5))
    several = writer.capture(tmp_path / "several", writer.Job(n=6, shard=5))
    assert isinstance(one["exit", 0], np.memmap)
    assert not isinstance(several["exit", 0], np.memmap)
    for x in (one["exit", 0], several["exit", 0]):
        with pytest.raises(ValueError, match="read-only"):
            x[0, 0] = 1


def test_gathering_needs_no_second_copy(tmp_path, writer):
    job = writer.Job(n=4096, shard=64, layers=2, width=256)  # 4 MiB a layer in 64 shards
    store = writer.capture(tmp_path / "s", job)
    store["exit", 1]
    tracemalloc.start()
    try:
        layer = store["exit", 0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert layer.nbytes == 4 << 20
    assert peak < layer.nbytes * 1.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_writing_makes_no_copy(tmp_path, dtype):
    x = torch.zeros(8192, 512, dtype=dtype)  # 16 or 8 MiB
    store = Store.create(tmp_path / "s", {}, [(0, len(x))])
    tracemalloc.start()
    try:
        store.write_shard(0, {("exit", 0): x, ("exit", 1): x})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 << 20


def test_iterating_a_site_keeps_one_layer_at_a_time(tmp_path, writer):
    job = writer.Job(n=2048, shard=512, layers=8, width=256)  # 2 MiB a layer
    store = writer.capture(tmp_path / "s", job)
    tracemalloc.start()
    try:
        total = sum(float(x.sum()) for x in store["exit"].values())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 0
    assert peak < 2.5 * (2 << 20)  # the layer in hand and the next, not eight


def test_rows_come_back_with_shard_and_ids(tmp_path, writer):
    job = writer.Job()
    rows = writer.capture(tmp_path / "s", job).rows()
    assert list(rows.columns) == ["row", "shard", "id"]
    assert rows["id"].tolist() == job.rows()["id"].tolist()
    assert rows["shard"].tolist() == [row // job.shard for row in range(job.n)]


def test_the_files_are_the_format_that_is_promised(tmp_path, writer):
    path = tmp_path / "s"
    writer.capture(path, writer.Job(n=6, shard=5))
    names = sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())
    shards = [n for n in names if n.endswith(".safetensors")]
    assert sorted(set(names) - set(shards)) == [
        "LOCK", "manifest.json", "rows.parquet",
        "shards/000000.json", "shards/000001.json", "store.json",
    ]  # fmt: skip
    record = json.loads((path / "shards/000001.json").read_text())
    assert record["rows"] == [5, 6]
    assert f"shards/{record['file']}" in shards
    assert record["file"] == f"000001-{record['sha256'][:16]}.safetensors"
    assert record["bytes"] == (path / "shards" / record["file"]).stat().st_size
    manifest = json.loads((path / "manifest.json").read_text())
    del record["self_sha256"]
    assert manifest["records"][1] == record
    plan = json.loads((path / "store.json").read_text())
    assert manifest["fingerprint"] == plan["fingerprint"] == record["fingerprint"]


def test_nonfinite_numbers_are_counted_by_layer_and_text(tmp_path):
    x = np.zeros((6, 2), dtype=np.float32)
    bad = x.copy()
    bad[4] = np.nan, np.inf
    store = Store.create(tmp_path / "s", {}, [(0, 3), (3, 6)])
    for i, (lo, hi) in enumerate(store.shards):
        store.write_shard(i, {("exit", 0): x[lo:hi], ("exit", 1): bad[lo:hi]})
    store.finish()
    table = store.nonfinite()
    assert table.to_dict("records") == [{"site": "exit", "layer": 1, "count": 2, "rows": (4,)}]


def test_nonfinite_tokens_name_their_text(tmp_path):
    x = torch.zeros(5, 2, dtype=torch.bfloat16)
    x[3, 1] = float("-inf")
    store = Store.create(tmp_path / "s", {}, [(0, 3)])
    store.write_shard(0, {("exit", 7): x}, offsets=np.array([0, 2, 2, 5]))
    store.finish()
    assert store.nonfinite()["rows"].tolist() == [(2,)]


def _good():
    return {("exit", 0): np.zeros((2, 3), np.float32)}


@pytest.mark.parametrize(
    ("tensors", "offsets", "says"),
    [
        ({("exit", 0): np.zeros((2, 3))}, None, "float64"),
        ({("exit", 0): np.zeros((3, 3), np.float32)}, None, "2 rows"),
        ({("exit", 0): np.zeros(2, np.float32)}, None, "two dimensions"),
        ({("ex it", 0): np.zeros((2, 3), np.float32)}, None, "bad site"),
        ({("offsets", 0): np.zeros((2, 3), np.float32)}, None, "bad site"),
        ({("exit", -1): np.zeros((2, 3), np.float32)}, None, "layer -1"),
        ({}, None, "without tensors"),
        (_good(), np.array([0, 2]), r"shape \(3,\)"),
        (_good(), np.array([0, 3, 2]), "never fall"),
        (_good(), np.array([0.0, 1.0, 2.0]), "integers"),
        (_good(), np.array([0, 1, 1]), "1 rows"),
    ],
)
def test_a_shard_that_does_not_fit_is_refused(tmp_path, tensors, offsets, says):
    store = Store.create(tmp_path / "s", {}, [(0, 2)])
    with pytest.raises(StoreError, match=says):
        store.write_shard(0, tensors, offsets)
    assert store.pending() == [0]
    store.write_shard(0, _good())
    assert store.pending() == []


def test_shards_must_hold_the_same_tensors(tmp_path):
    store = Store.create(tmp_path / "s", {}, [(0, 2), (2, 4)])
    store.write_shard(0, _good())
    for other in ({("exit", 1): np.zeros((2, 3), np.float32)},
                  {("exit", 0): np.zeros((2, 4), np.float32)},
                  {("exit", 0): np.zeros((2, 3), np.float16)}):  # fmt: skip
        with pytest.raises(StoreError, match="same tensors"):
            store.write_shard(1, other)
    store.write_shard(1, _good())
    store.finish()


def test_unknown_names_are_refused_with_what_there_is(tmp_path, writer):
    store = writer.capture(tmp_path / "s")
    with pytest.raises(InputError, match="did you mean 'exit'"):
        store["exti"]
    with pytest.raises(InputError, match="no layer 2: 0 to 1"):
        store["exit", 2]
    with pytest.raises(InputError, match="row 23 is not in the store"):
        store.take("exit", 0, [0, 23])
    with pytest.raises(InputError, match="list of row numbers"):
        store.take("exit", 0, np.array([0.5]))
    assert "exit" in store
    assert ("exit", 1) in store
    assert ("exit", 2) not in store
    assert 2 not in store["exit"]


def test_rows_that_do_not_fit_are_refused(tmp_path, writer):
    job = writer.Job()
    store = writer.capture(tmp_path / "s", job)
    with pytest.raises(StoreError, match="2 rows, the store has 23"):
        store.finish(pd.DataFrame({"id": ["a", "b"]}))
    with pytest.raises(StoreError, match="'shard' of rows differs"):
        store.finish(pd.DataFrame({"shard": np.zeros(job.n, dtype=int)}))
    with pytest.raises(StoreError, match="one type"):
        store.finish(pd.DataFrame({"id": [1, "a", *range(job.n - 2)]}))
    assert store.complete


def test_an_unfinished_store_says_what_is_missing(tmp_path, writer):
    job = writer.Job()
    store = Store.create(tmp_path / "s", job.identity, job.plan)
    for index in (0, 1, 3, 4):
        store.write_shard(index, job.tensors(index))
    with pytest.raises(StoreError, match="cannot be finished: shard 2 of 5"):
        store.finish()
    opened = open_store(tmp_path / "s")
    assert not opened.complete
    assert opened.pending() == [2]
    for read in (lambda: opened["exit", 0], opened.sites, opened.rows, opened.nonfinite):
        with pytest.raises(StoreError, match="not finished"):
            read()
    store.write_shard(2, job.tensors(2))
    with pytest.raises(StoreError, match=r"manifest.json is missing"):
        opened["exit", 0]
    store.finish(job.rows())
    assert writer.lost_rows(open_store(tmp_path / "s"), job) == 0


@pytest.mark.parametrize("plan", [[], [(0, 2), (3, 4)], [(1, 2)], [(0, 0)], [(0, 2), (1, 3)]])
def test_a_plan_with_holes_is_refused(tmp_path, plan):
    with pytest.raises(StoreError):
        Store.create(tmp_path / "s", {}, plan)


def test_no_store_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(StoreError, match="no activation store"):
            open_store(path)
    with pytest.raises(FathometerError):
        Store.create(tmp_path / "file", {}, [(0, 1)])
    with pytest.raises(StoreError, match="holds other files"):
        Store.create(tmp_path, {}, [(0, 1)])
