"""Folds and hold-outs: stratified, groups on one side, every class kept in training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.errors import EstimatorInputError, InputError
from probes.probing.folds import FoldPlan, inner_hold_out, stratified_folds
from probes.probing.questions import concepts_of, cv_folds


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 80), st.integers(2, 4), st.integers(2, 5), st.integers(0, 99))
def test_groups_never_straddle(n: int, classes: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, groups = rng.integers(0, classes, n), rng.integers(0, 12, n)
    if len(np.unique(groups)) < k:
        return
    folds = stratified_folds(y, groups, k, seed)
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert sorted([*train, *test]) == list(range(n))
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(n))
    held = inner_hold_out(y, groups, seed)
    assert not set(groups[held]) & set(groups[~held])
    assert set(y[~held]) == set(y)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=8, max_size=60), st.integers(0, 9))
def test_hold_out_keeps_every_class_in_the_fit(labels: list[int], seed: int) -> None:
    y = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    try:
        held = inner_hold_out(y, None, seed)
    except EstimatorInputError:
        assert np.bincount(y).max() < 3
        return
    assert held.any()
    assert set(y[~held]) == set(y)
    np.testing.assert_array_equal(held, inner_hold_out(y, None, seed))


def test_folds_are_stratified() -> None:
    y = np.repeat([0, 1, 2], [50, 30, 20])
    for _, test in stratified_folds(y, None, 5, 0):
        assert np.bincount(y[test]).tolist() == [10, 6, 4]


def test_several_concepts_share_stratified_folds() -> None:
    rng = np.random.default_rng(0)
    concepts = concepts_of({"a": rng.integers(0, 2, 200), "b": rng.integers(0, 2, 200)}, None)
    for _, test in cv_folds(5, concepts, None, 0):
        for c in concepts:
            assert abs(c.y[test].mean() - c.y.mean()) < 0.03


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (1, "2 to 12"),
        (13, "2 to 12"),
        ([], "no folds"),
        ([([0, 1], [1, 2])], "trains on"),
        ([([0, 1], [2]), ([1, 3], [2])], "two folds"),
        ([([0, 1], [99])], "outside"),
        ([([0.5], [1])], "row numbers"),
    ],
)
def test_bad_cv(cv: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cv_folds(cv, concepts_of(np.arange(12) % 2, None), None, 0)


def test_given_folds_must_respect_groups() -> None:
    with pytest.raises(InputError, match="same group"):
        cv_folds([([0, 1, 2], [3])], concepts_of([0, 1, 0, 1], None), np.array([0, 1, 2, 2]), 0)


def test_plan_makes_training_parts_contiguous() -> None:
    y = np.arange(50) % 2
    folds = stratified_folds(y, None, 5, 0)
    plan = FoldPlan.make([train for train, _ in folds], 50)
    assert len(plan.bounds) == 6
    np.testing.assert_array_equal(plan.order[plan.restore], np.arange(50))
    for fold, (train, _) in enumerate(folds):
        assert set(plan.order[plan.train[fold]]) == set(train)
