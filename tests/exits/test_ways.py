"""The search space: names that say what is done, each way once, and what may be chosen."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import FathometerError, InputError
from probes.exits.translate import TranslatorSpec
from probes.exits.ways import SearchSpace, Source, Way, parse_spec

RIDGE = TranslatorSpec()
RICH = TranslatorSpec(("mean", "sif"), table=True)
STATIC = TranslatorSpec((), table=True)


def names(space, specs=(RIDGE,), own="mean", remedies=True):
    return [way.name for way in space.ways(specs, own, remedies)]


def test_what_was_tried_before_is_still_the_default():
    assert names(SearchSpace()) == [None, "centred", "translated"]
    assert names(SearchSpace(), remedies=False) == [None, "translated"]


def test_every_way_once_and_the_own_pooling_is_none_of_the_others():
    space = SearchSpace(("mean", "last", "last"), ("whitened",), ("bfloat16",))
    found = names(space, (RIDGE, RICH, STATIC))
    assert len(set(found)) == len(found)
    assert found[0] is None
    assert set(found) == {
        None, "whitened", "translated",
        "pool=last", "pool=last,whitened", "pool=last,translated",
        "bfloat16", "bfloat16,whitened", "bfloat16,translated",
        "pool=last,bfloat16", "pool=last,bfloat16,whitened", "pool=last,bfloat16,translated",
        "translated=mean+sif+table", "bfloat16,translated=mean+sif+table", "translated=table",
    }  # fmt: skip


def test_a_translator_of_another_pooling_reads_that_pooling():
    way = next(
        w for w in SearchSpace(("last",)).ways((RIDGE,), "mean") if w.name == "pool=last,translated"
    )
    assert way.spec == TranslatorSpec(("last",))


@pytest.mark.parametrize(
    ("way", "stock"),
    [
        (Way(), True),
        (Way(Source("last", "bfloat16"), "whitened"), True),
        (Way(spec=RIDGE), True),
        (Way(spec=STATIC, plain=False), True),
        (Way(spec=RICH, plain=False), False),
        (Way(spec=TranslatorSpec(reach="all"), plain=False), False),
        (Way(Source("ditto")), False),
        (Way(Source(precision="int8")), False),
        (Way(Source(tau=0.9)), False),
    ],
)
def test_what_stock_modules_hold(way, stock):
    assert way.is_exportable == stock


def test_ways_that_take_equal_time_are_timed_as_one():
    assert Way().timed_as is None
    assert Way(Source("last"), "whitened").timed_as is None
    assert Way(spec=RIDGE).timed_as is None
    low = [Way(Source(p, "bfloat16"), r) for p in (None, "last") for r in (None, "centred")]
    assert {way.timed_as for way in low} == {("bfloat16", "states")}
    kinds = {Way(spec=RICH, plain=False).timed_as, Way(spec=STATIC, plain=False).timed_as}
    assert len(kinds) == 2
    assert None not in kinds


@pytest.mark.parametrize(
    "given", [{"poolings": ("men",)}, {"remedies": ("white",)}, {"precisions": ("float8",)},
              {"translators": ("ridge+tabel",)}, {"translators": ("mean/rigde",)}]
)  # fmt: skip
def test_misspelt_names_are_refused(given):
    with pytest.raises(FathometerError, match=r"Allowed|allowed"):
        SearchSpace(**given)


def test_specs_are_read():
    assert parse_spec("ridge", "last") == TranslatorSpec(("last",))
    assert parse_spec("ridge+sif+table", "mean") == RICH
    assert parse_spec("mean+sif+table/reduced-rank", "last") == TranslatorSpec(
        ("mean", "sif"), table=True, map="reduced-rank"
    )
    assert parse_spec("table", "mean") == STATIC
    assert parse_spec("0..k:mean", "mean") == TranslatorSpec(reach="all")
    for spec in (RIDGE, RICH, STATIC, TranslatorSpec(("max",), "all", True)):
        assert parse_spec(spec.reads, "mean") == spec
    with pytest.raises(InputError, match="belongs to no layer"):
        parse_spec("0..k:table", "mean")


def test_whitening_gives_equal_spread_and_strongest_first():
    from probes.linalg import whitener

    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 4)) * [1, 5, 0.7, 2] @ np.linalg.qr(rng.normal(size=(4, 4)))[0] + 7
    mean, directions, inverse = whitener(X)
    turned = (X - mean) @ directions
    assert (np.diff(turned.std(axis=0)) < 0).all()
    np.testing.assert_allclose(np.cov((turned * inverse).T), np.eye(4), atol=0.05)
