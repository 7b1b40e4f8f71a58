"""Same identity: reused. Another: refused with the difference. Unhashable: refused."""

from __future__ import annotations

import enum
import math
import re
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probes.errors import StoreError
from probes.store import Store, fingerprint, open_store
from probes.store.identity import check_identity, difference

IDENTITY = {
    "weights": "a" * 64,
    "sites": ["exit", "z"],
    "dtype": "float32",
    "versions": {"torch": "2.13.0", "transformers": "5.23"},
}
PLAN = [(0, 2), (2, 3)]

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), plain, max_size=4))
def test_fingerprints_do_not_depend_on_order_and_survive_a_round_trip(identity):
    backwards = dict(reversed(list(identity.items())))
    assert fingerprint(identity) == fingerprint(backwards)
    assert fingerprint(check_identity(identity)) == fingerprint(identity)
    assert difference(identity, backwards) == ""


@given(
    st.dictionaries(st.sampled_from("abc"), plain), st.dictionaries(st.sampled_from("abc"), plain)
)
def test_a_difference_is_named_exactly_when_fingerprints_differ(a, b):
    a, b = check_identity(a), check_identity(b)
    line = difference(a, b)
    assert bool(line) == (fingerprint(a) != fingerprint(b))
    assert len(line.splitlines()) <= 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dtype": "bfloat16"}, 'identity.dtype: "float32" there, "bfloat16" now'),
        ({"versions": {"torch": "2.12", "transformers": "5.23"}},
         'identity.versions.torch: "2.13.0" there, "2.12" now'),
        ({"device": "cuda"}, 'identity.device: nothing there, "cuda" now'),
        ({"sites": ["exit"]}, 'identity.sites: ["exit","z"] there, ["exit"] now'),
        ({"weights": "a" * 60 + "bbbb"}, 'aaaaaaaabbbb" now'),
    ],
)  # fmt: skip
def test_another_identity_is_refused_with_the_difference_in_one_line(tmp_path, change, says):
    Store.create(tmp_path / "s", IDENTITY, PLAN)
    with pytest.raises(StoreError) as caught:
        Store.create(tmp_path / "s", {**IDENTITY, **change}, PLAN)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert open_store(tmp_path / "s").identity == IDENTITY


def test_another_shard_plan_is_refused(tmp_path):
    Store.create(tmp_path / "s", IDENTITY, PLAN)
    with pytest.raises(StoreError, match=r"shards: \[\[0,2\],\[2,3\]\] there, \[\[0,3\]\] now"):
        Store.create(tmp_path / "s", IDENTITY, [(0, 3)])
    with pytest.raises(StoreError, match="3 texts, 4 are needed"):
        Store.create(tmp_path / "s", IDENTITY, PLAN, 4)


def test_the_same_identity_is_reused_and_nothing_is_written(tmp_path, writer):
    writer.capture(tmp_path / "s")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*")}
    again = writer.capture(tmp_path / "s")
    assert again.complete
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*")} == before


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"x", math.nan, math.inf, torch.float32, np.arange(3), np.int64(3), Colour.RED,
     {1: "a"}, "\ud800", {"\ud800": 1}, [1, [2, len]]],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)  # fmt: skip
def test_what_cannot_be_hashed_raises_and_names_the_place(tmp_path, value):
    with pytest.raises(StoreError, match="identity"):
        Store.create(tmp_path / "s", {"outer": {"inner": value}}, PLAN)
    assert not (tmp_path / "s").exists()
    Store.create(tmp_path / "s", {"outer": {"inner": (None, True, 1, 1.5, "ä")}}, PLAN)


def test_one_true_and_one_point_zero_differ():
    assert len({fingerprint({"a": value}) for value in (1, 1.0, True, "1", [1], None)}) == 6


def test_racing_creators_of_different_identities_agree_on_one(tmp_path):
    for round_ in range(15):
        path = tmp_path / str(round_)
        barrier, won, lost = threading.Barrier(4), [], []

        def create(name, path=path, barrier=barrier, won=won, lost=lost):
            barrier.wait()
            try:
                won.append(Store.create(path, {"name": name}, PLAN).identity["name"])
            except StoreError as error:
                lost.append(str(error))

        threads = [threading.Thread(target=create, args=(i % 2,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 2
        assert len(set(won)) == 1
        assert all("another identity" in line for line in lost)
        assert open_store(path).identity == {"name": won[0]}


def test_shards_of_another_identity_never_count(tmp_path, writer):
    """The record carries the fingerprint: swapping store.json does not make old shards valid."""
    job = writer.Job()
    writer.capture(tmp_path / "s", job)
    (tmp_path / "s" / "store.json").unlink()
    other = Store.create(tmp_path / "s", {"model": "other"}, job.plan)
    assert other.pending() == list(range(len(job.plan)))
    assert not other.complete
