"""Minimal pairs: what is planted is found, what is mirrored is mirrored, what is equal is a tie."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator

from probes.errors import DataError, InputError, NonFiniteError
from probes.probing import (
    LinearProbe,
    MassMeanProbe,
    MinimalPairProbe,
    RidgeProbe,
    minimal_pair_sweep,
)
from probes.probing.sweep import BelowChanceWarning

INNER: list[Any] = [LinearProbe(), RidgeProbe(), MassMeanProbe(), MassMeanProbe(covariance=True)]


def pairs(k: int, layers: int = 5, n: int = 150, d: int = 12, shift: float = 1.5) -> Any:
    """States of good and bad texts; their difference has a direction from layer `k` on."""
    rng = np.random.default_rng(k)
    good, bad = {}, {}
    for layer in range(layers):
        common = 5 * rng.normal(size=(n, d)) + 20  # what the two texts share
        good[layer] = common + rng.normal(size=(n, d))
        bad[layer] = common + rng.normal(size=(n, d))
        if layer >= k:
            good[layer] += shift * np.linalg.qr(rng.normal(size=(d, d)))[0][0] * np.sqrt(2)
    return good, bad


@pytest.mark.parametrize("probe", INNER, ids=str)
def test_scikit_learn_accepts_it(probe: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(MinimalPairProbe(probe=probe), on_fail=None)
    assert not {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert sum(r["status"] == "passed" for r in results) > 40


@pytest.mark.parametrize("probe", INNER, ids=str)
@pytest.mark.parametrize("k", [0, 2, 4])
def test_finds_the_planted_layer(probe: Any, k: int) -> None:
    table, curves = minimal_pair_sweep(*pairs(k), probe=probe, controls=("shuffled",))
    assert [curve.variant for curve in curves] == [None, "shuffled"]
    values = curves[0].values
    assert int(np.argmax(values > 0.8)) == k
    assert (values[:k] < 0.7).all()
    assert (values[k:] > 0.8).all()
    assert (np.abs(curves[1].values - 0.5) < 0.15).all()
    own = table[table.variant.isna()]
    np.testing.assert_allclose(own.value.astype(float), values)
    assert (own.low <= own.value).all()
    assert (own.value <= own.high).all()


@pytest.mark.parametrize("probe", INNER, ids=str)
def test_exchanged_texts_are_exchanged_answers(probe: Any) -> None:
    good, bad = pairs(0, layers=1)
    X = good[0] - bad[0]
    fitted = MinimalPairProbe(probe=probe).fit(X)
    assert fitted.intercept_.tolist() == [0.0]
    np.testing.assert_array_equal(fitted.decision_function(X), -fitted.decision_function(-X))
    # which text stands first in training does not matter either
    flip = np.where(np.arange(len(X)) % 3 == 0, -1, 1)
    turned = MinimalPairProbe(probe=probe).fit(X * flip[:, None], flip)
    np.testing.assert_allclose(turned.coef_, fitted.coef_, rtol=2e-2, atol=2e-2)


def test_equals_logistic_regression_without_an_intercept() -> None:
    good, bad = pairs(0, layers=1)
    X = good[0] - bad[0]
    ours = MinimalPairProbe(probe=LinearProbe(Cs=(0.5,), tol=1e-12)).fit(X)
    scale = np.sqrt(np.square(X).mean(axis=0))  # about zero: the mirrored rows have no mean
    Z = np.concatenate([X, -X]) / scale
    judge = LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10, max_iter=10_000)
    judge.fit(Z, np.repeat([1, 0], len(X)))
    np.testing.assert_allclose(ours.coef_, judge.coef_ / scale, rtol=1e-4, atol=1e-6)


def test_mass_mean_is_twice_the_mean_difference() -> None:
    good, bad = pairs(0, layers=1)
    X = good[0] - bad[0]
    ours = MinimalPairProbe(probe=MassMeanProbe()).fit(X)
    np.testing.assert_allclose(ours.coef_[0], 2 * X.mean(axis=0))


def test_mirror_images_are_on_one_side_of_the_hold_out() -> None:
    """Random directions in wide space: a leaked mirror image would make weak regularisation look best."""
    rng = np.random.default_rng(0)
    chosen = []
    for seed in range(8):
        X = rng.normal(size=(40, 200))
        probe = LinearProbe(Cs=(1e-4, 10.0), random_state=seed)
        chosen.append(MinimalPairProbe(probe=probe).fit(X).probe_.C_)
    assert np.mean(np.asarray(chosen) == 1e-4) >= 0.75


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_equal_states_are_ties_not_wrong(scale: float) -> None:
    good, bad = pairs(0, layers=1)
    rounding = scale * 1e-7 * np.random.default_rng(0).normal(size=good[0].shape)
    table, curves = minimal_pair_sweep(
        {0: scale * good[0]}, {0: scale * good[0] + rounding}, probe=RidgeProbe()
    )
    assert set(curves[0].scores.ravel()) == {0.5}
    assert table.value[0] == 0.5
    half = good[0].copy()
    half[::2] = bad[0][::2]  # half of the pairs are equal
    _, mixed = minimal_pair_sweep({0: half}, {0: bad[0]}, probe=RidgeProbe())
    assert set(mixed[0].scores[0, ::2]) == {0.5}
    assert mixed[0].scores[0, 1::2].mean() > 0.8


def test_groups_never_straddle_and_are_what_the_interval_is_over() -> None:
    good, bad = pairs(0, layers=1)
    groups = np.arange(150) // 15
    table, curves = minimal_pair_sweep(good, bad, groups=groups)
    free, _ = minimal_pair_sweep(good, bad)
    assert curves[0].groups is not None
    np.testing.assert_array_equal(curves[0].groups, groups)
    assert table.n[0] == free.n[0] == 150
    # ten templates with one direction each: nothing can be carried over, so groups give about chance
    rng = np.random.default_rng(1)
    own = 4 * rng.normal(size=(10, 40))[groups] + rng.normal(size=(150, 40))
    zero = {0: np.zeros((150, 40))}
    leaky, _ = minimal_pair_sweep({0: own}, zero)
    kept, _ = minimal_pair_sweep({0: own}, zero, groups=groups)
    assert leaky.value[0] > 0.95
    assert kept.value[0] < 0.8


def test_contradicting_pairs_warn() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 30))
    states = {0: np.concatenate([X, -X])}  # every pair once as right, once as wrong
    with pytest.warns(BelowChanceWarning, match="give groups"):
        table, _ = minimal_pair_sweep(states, {0: np.zeros((120, 30))})
    assert table.attrs["notes"]
    groups = np.tile(np.arange(60), 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BelowChanceWarning)
        minimal_pair_sweep(states, {0: np.zeros((120, 30))}, groups=groups)


def test_same_seed_same_table() -> None:
    data = pairs(1, layers=2, n=60)
    first, _ = minimal_pair_sweep(*data, controls=("shuffled",), seed=3)
    second, _ = minimal_pair_sweep(*data, controls=("shuffled",), seed=3)
    other, _ = minimal_pair_sweep(*data, controls=("shuffled",), seed=4)
    assert first.equals(second)
    assert not first.value.equals(other.value)


def test_rows_say_where_they_come_from() -> None:
    good, bad = pairs(0, layers=2)
    place = {"site": "z", "dataset": "blimp", "concept": "agreement", "pooling": "last"}
    table, curves = minimal_pair_sweep(good, bad, variant="noise=swap", **place)
    assert table.block.tolist() == [0, 1]
    assert table.layer.isna().all()
    assert set(table.variant) == {"noise=swap"}
    assert curves[0].variant == "noise=swap"
    for column, value in place.items():
        assert set(table[column]) == {value}


def test_errors_say_what_came() -> None:
    good, bad = pairs(0, layers=2)
    with pytest.raises(InputError, match="unknown control 'shufled': did you mean 'shuffled'"):
        minimal_pair_sweep(good, bad, controls=("shufled",))
    with pytest.raises(InputError, match=r"'good' hold the layers \[0, 1\], those of 'bad' \[0\]"):
        minimal_pair_sweep(good, {0: bad[0]})
    with pytest.raises(DataError, match="layer 1 of bad has 149 rows, 150 are needed"):
        minimal_pair_sweep(good, {0: bad[0], 1: bad[1][1:]})
    broken = {0: good[0], 1: good[1].copy()}
    broken[1][7, 2] = np.nan
    with pytest.raises(NonFiniteError, match="layer 1 of good holds NaN or infinity in row 7"):
        minimal_pair_sweep(broken, bad)
    with pytest.raises(InputError, match="2 to 3 folds"):
        minimal_pair_sweep(good, bad, groups=np.arange(150) % 3)
    with pytest.raises(ValueError, match="a pair has two sides"):
        clone(MinimalPairProbe()).fit(good[0], np.arange(150) % 3)


@pytest.mark.slow
def test_intervals_cover_chance_at_their_rate() -> None:
    """95 % over 200 seeds, within three binomial standard errors, the choice of λ included."""
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        good, bad = ({0: rng.normal(size=(80, 10))} for _ in range(2))
        row = minimal_pair_sweep(good, bad, probe=RidgeProbe(), seed=seed, draws=400)[0].iloc[0]
        covered.append(row.low <= 0.5 <= row.high)
    assert abs(np.mean(covered) - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / 200)
