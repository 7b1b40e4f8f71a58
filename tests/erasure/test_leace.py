"""LEACE: the theorem's claims, each with its control; the reference package; streaming; hostile data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from probes.erasure import Eraser, LeaceFitter, fit_leace
from probes.errors import InputError, NonFiniteError
from probes.probing import LinearProbe, RidgeProbe


def spread_of_means(X: np.ndarray, y: np.ndarray) -> float:
    """Largest difference of two class means in a dimension, in standard deviations of that dimension."""
    means = np.stack([X[y == k].astype(np.float64).mean(axis=0) for k in np.unique(y)])
    deviation = X.astype(np.float64).std(axis=0)
    alive = deviation > 1e-9 * max(deviation.max(), 1e-300)
    return float((np.ptp(means, axis=0)[alive] / deviation[alive]).max())


def majority(y: np.ndarray) -> float:
    return float(np.bincount(y).max() / len(y))


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("probe", [LinearProbe(Cs=(1.0,)), RidgeProbe(), LinearProbe()], ids=str)
def test_no_probe_learns_after_erasure_and_did_before(
    planted: Any, classes: int, probe: Any
) -> None:
    X, y = planted(classes=classes)
    y[:20] = 0  # a majority
    cleaned = fit_leace(X, y)(X)
    assert probe.fit(X, y).score(X, y) > 0.9
    assert spread_of_means(X, y) > 0.5
    assert probe.fit(cleaned, y).score(cleaned, y) == pytest.approx(majority(y))
    assert spread_of_means(cleaned, y) < 1e-5


def test_unseen_rows_tell_nothing_either(planted: Any) -> None:
    X, y = planted(n=4000, d=8)
    X_fit, X_new, y_fit, y_new = train_test_split(X, y, random_state=0)
    eraser = fit_leace(X_fit, y_fit)
    probe = LinearProbe().fit(eraser(X_fit), y_fit)
    assert LinearProbe().fit(X_fit, y_fit).score(X_new, y_new) > 0.9
    assert probe.score(eraser(X_new), y_new) < majority(y_new) + 0.05


def test_changes_states_less_than_any_other_map_that_erases(planted: Any) -> None:
    """All linear maps that erase are P with P Σxz = 0; LEACE is the nearest to the identity, in every norm."""
    X, y = planted(n=200, d=6, classes=3)
    rng = np.random.default_rng(0)
    eraser = fit_leace(X, y, shrinkage=0)
    centred = X - X.mean(axis=0)
    Z = np.eye(3)[y] - np.eye(3)[y].mean(axis=0)
    basis = np.linalg.qr(centred.T @ Z[:, :2])[0]  # of the cross-covariance
    blind = np.eye(6) - basis @ basis.T
    best = centred - (eraser(X) - X.mean(axis=0))
    for scale in (0.01, 0.1, 1.0):
        for _ in range(20):
            P = np.eye(6) - eraser.left @ eraser.right + scale * rng.normal(size=(6, 6)) @ blind
            other = centred - centred @ P.T
            assert spread_of_means(centred @ P.T, y) < 1e-8  # it erases too
            M = rng.normal(size=(6, 6))
            for norm in (np.eye(6), M):
                assert np.square(best @ norm).sum() < np.square(other @ norm).sum()


def test_is_a_projection_of_the_least_rank_that_keeps_the_mean(planted: Any) -> None:
    X, y = planted(classes=4)
    eraser = fit_leace(X, y)
    assert eraser.rank == 3
    assert eraser.method == "leace"
    np.testing.assert_allclose(eraser.right @ eraser.left, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(eraser(eraser(X)), eraser(X), atol=1e-8)
    np.testing.assert_allclose(eraser(X).mean(axis=0), X.mean(axis=0), atol=1e-9)


def test_equals_the_concept_erasure_package(planted: Any) -> None:
    reference = pytest.importorskip(
        "concept_erasure",
        reason="the reference implementation is not installed: pip install concept-erasure --no-deps",
    )
    torch = pytest.importorskip("torch")
    for classes, d in ((2, 12), (4, 12), (3, 40)):
        X, y = planted(classes=classes, d=d, n=25 if d == 40 else 300)
        theirs = reference.LeaceFitter.fit(
            torch.from_numpy(X),
            torch.from_numpy(np.eye(classes)[y]),
            shrinkage=False,
            constrain_cov_trace=False,
            svd_tol=1e-9,
        ).eraser
        scale = np.abs(X).max()
        np.testing.assert_allclose(
            fit_leace(X, y, shrinkage=0)(X), theirs(torch.from_numpy(X)).numpy(), atol=1e-7 * scale
        )


def test_streaming_in_any_order_equals_all_at_once(planted: Any) -> None:
    X, y = planted(n=500, classes=3)
    X += 1e4  # a mean that would cancel badly in raw sums
    whole = LeaceFitter(12, 3, shrinkage=0).update(X, y).eraser()
    streamed = LeaceFitter(12, 3, shrinkage=0)
    order = np.random.default_rng(0).permutation(500)
    for rows in np.split(order, [1, 7, 100, 101, 350]):
        streamed.update(X[rows], y[rows])
    found = streamed.eraser()
    np.testing.assert_allclose(found(X), whole(X), atol=1e-7)
    assert streamed.n == 500
    again = streamed.update(X, y).eraser()  # more data after an eraser was made are not forgotten
    assert streamed.n == 1000
    np.testing.assert_allclose(again(X), whole(X), atol=1e-7)


def test_dimensions_of_any_scale_and_constant_ones(planted: Any) -> None:
    """Transformers have dimensions 1e6 times larger than others, and some that never change."""
    X, y = planted(d=12)
    scale = np.logspace(-6, 6, 12)
    X = X * scale
    X[:, 3], X[:, 7] = 5.0, 0.0
    eraser = fit_leace(X, y)
    cleaned = eraser(X)
    assert spread_of_means(cleaned / scale, y) < 1e-5
    assert np.ptp(cleaned[:, 3]) == 0
    assert LinearProbe(Cs=(1e6,)).fit(cleaned / scale, y).score(cleaned / scale, y) == 0.5


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0, "auto"])
def test_fewer_rows_than_dimensions(planted: Any, shrinkage: Any) -> None:
    X, y = planted(n=30, d=200, classes=3)
    eraser = fit_leace(X, y, shrinkage=shrinkage)
    assert eraser.rank == 2
    assert spread_of_means(eraser(X), y) < 1e-5
    ridge = RidgeProbe()
    assert ridge.fit(X, y).score(X, y) == 1.0
    assert ridge.fit(eraser(X), y).score(eraser(X), y) == pytest.approx(majority(y))


def test_shrinkage_spares_unseen_rows_when_rows_are_few() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(1080) % 2
    X = rng.normal(size=(1080, 100)) * np.logspace(0, -3, 100)
    X[:, :5] += 1.5 * y[:, None]
    seen, new = slice(0, 80), slice(80, None)

    def gap(states: np.ndarray) -> float:
        return float(np.linalg.norm(states[y[new] == 1].mean(axis=0) - states[y[new] == 0].mean(0)))

    change: dict[Any, float] = {}
    for shrinkage in (0.0, "auto"):
        cleaned = fit_leace(X[seen], y[seen], shrinkage=shrinkage)(X[new])
        change[shrinkage] = float(np.square(cleaned - X[new]).sum())
        assert gap(cleaned) < 0.5 * gap(X[new])
    assert change["auto"] < 0.5 * change[0.0]


def test_wide_single_precision_data_stay_single_precision(planted: Any) -> None:
    X, y = planted(n=400, d=60, classes=2)
    single = (X + 300).astype(np.float32)
    cleaned = fit_leace(single, y)(single)
    assert cleaned.dtype == np.float32
    assert spread_of_means(cleaned, y) < 1e-5


def test_a_concept_of_numbers_is_decorrelated() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6))
    z = X[:, :2] @ rng.normal(size=(2, 2)) + 0.1 * rng.normal(size=(200, 2))
    eraser = LeaceFitter(6, 2).update(X, z).eraser()
    assert eraser.rank == 2
    assert np.abs(np.cov(eraser(X).T, z.T)[:6, 6:]).max() < 1e-9
    assert np.abs(np.cov(X.T, z.T)[:6, 6:]).max() > 0.1


def test_classes_without_any_difference_need_no_erasure() -> None:
    X = np.tile(np.arange(12.0).reshape(4, 3), (2, 1))
    eraser = fit_leace(X, np.repeat([0, 1], 4))
    assert eraser.rank == 0
    np.testing.assert_array_equal(eraser(X), X)


def test_random_eraser_of_the_same_kind_leaves_the_concept(planted: Any) -> None:
    X, y = planted(n=600, d=40)
    fitter = LeaceFitter(40, 2, shrinkage=0).update(X, y)
    kept = [
        RidgeProbe().fit(control(X), y).score(control(X), y)
        for control in (fitter.random_eraser(1, seed) for seed in range(5))
    ]
    assert min(kept) > 0.9
    control, again = fitter.random_eraser(1, 0), fitter.random_eraser(1, 0)
    np.testing.assert_array_equal(control.right, again.right)
    np.testing.assert_allclose(control.right @ control.left, np.eye(1), atol=1e-9)
    # like LEACE it removes one white direction: no more and no less
    removed = (X - X.mean(axis=0)) @ control.right.T
    assert removed.var() == pytest.approx(1.0)
    assert ((X - X.mean(axis=0)) @ fitter.eraser().right.T).var() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (np.ones((4, 3)), [0, 0, 0, 0], "two are needed"),
        (np.ones((4, 3)), [0, 1], "one class per row"),
        (np.ones(4), [0, 1, 0, 1], r"\(n, d\) array"),
    ],
)
def test_what_cannot_be_erased_is_refused(X: Any, y: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_leace(X, y)


def test_bad_rows_and_parameters_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="row 1"):
        fit_leace(np.array([[0.0, 1], [np.nan, 1]]), [0, 1])
    fitter = LeaceFitter(3, 2, shrinkage=0)
    with pytest.raises(InputError, match="two"):
        fitter.eraser()
    with pytest.raises(InputError, match="columns"):
        fitter.update(np.ones((2, 4)), [0, 1])
    with pytest.raises(InputError, match="class codes"):
        fitter.update(np.ones((2, 3)), [0, 2])
    with pytest.raises(InputError, match="shrinkage"):
        LeaceFitter(3, 2, shrinkage=1.5)
    with pytest.raises(InputError, match="rank"):
        fitter.update(np.eye(3), [0, 1, 1]).random_eraser(3)
    assert isinstance(fitter.random_eraser(2), Eraser)
