"""The probes as scikit-learn estimators; on hard data see `test_edge_cases`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from probes.probing import LinearProbe, MassMeanProbe, RidgeProbe

ALL: list[Any] = [LinearProbe(), RidgeProbe(), MassMeanProbe(), MassMeanProbe(covariance=True)]
CHOOSING: list[Any] = [LinearProbe(), RidgeProbe()]


def blobs(
    n: int = 120, d: int = 8, classes: int = 2, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return rng.normal(size=(n, d)) + 3 * np.eye(classes, d)[y], y


@pytest.mark.parametrize("probe", ALL, ids=str)
@pytest.mark.parametrize("classes", [2, 3])
def test_finds_what_is_there_and_not_what_is_not(probe: Any, classes: int) -> None:
    X, y = blobs(300, classes=classes)
    fitted = clone(probe).fit(X[:200], y[:200])
    assert fitted.score(X[200:], y[200:]) > 0.9
    noise = np.random.default_rng(1).permutation(y)
    assert (
        abs(clone(probe).fit(X[:200], noise[:200]).score(X[200:], noise[200:]) - 1 / classes) < 0.2
    )


@pytest.mark.parametrize("probe", ALL, ids=str)
def test_same_data_same_numbers(probe: Any) -> None:
    X, y = blobs()
    first, second = clone(probe).fit(X, y), clone(probe).fit(X, y)
    np.testing.assert_array_equal(first.coef_, second.coef_)
    np.testing.assert_array_equal(first.intercept_, second.intercept_)


@pytest.mark.parametrize("probe", ALL, ids=str)
def test_classes_may_be_words_and_names_do_not_matter(probe: Any) -> None:
    X, y = blobs(classes=3)
    words = np.array(["ant", "bee", "cat"])[y]
    by_word, by_code = clone(probe).fit(X, words), clone(probe).fit(X, y)
    np.testing.assert_array_equal(
        by_word.predict(X), np.array(["ant", "bee", "cat"])[by_code.predict(X)]
    )


def test_pipeline_and_grid_search() -> None:
    X, y = blobs()
    pipeline = make_pipeline(Normalizer(), LinearProbe())
    grid = {"linearprobe__Cs": [(1e-6,), (1.0,)]}
    search = GridSearchCV(pipeline, grid, cv=3, scoring="neg_log_loss").fit(X, y)
    assert search.best_params_ == {"linearprobe__Cs": (1.0,)}
    alphas = GridSearchCV(RidgeProbe(), {"alphas": [(1e9,), (1.0,)]}, cv=3).fit(X, y)
    assert alphas.best_score_ > 0.9


@pytest.mark.parametrize("probe", [LinearProbe(), MassMeanProbe(covariance=True)], ids=str)
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities(probe: Any, classes: int) -> None:
    X, y = blobs(classes=classes)
    p = clone(probe).fit(X, y).predict_proba(X)
    assert p.shape == (len(X), classes)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(p.argmax(axis=1), clone(probe).fit(X, y).predict(X))


def test_probabilities_only_where_they_mean_something() -> None:
    assert not hasattr(MassMeanProbe(), "predict_proba")
    assert not hasattr(RidgeProbe(), "predict_proba")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 3])
def test_linear_probe_equals_logistic_regression(dtype: Any, classes: int) -> None:
    X, y = blobs(200, 10, classes)
    X = (X * np.geomspace(1, 1e3, 10) + 50).astype(dtype)
    ours = LinearProbe(Cs=(0.3,), tol=1e-12 if dtype == np.float64 else 1e-9).fit(X, y)
    Z = StandardScaler().fit_transform(X.astype(np.float64))
    judge = LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000).fit(Z, y)
    tolerance = 1e-5 if dtype == np.float64 else 2e-3
    np.testing.assert_allclose(ours.predict_proba(X), judge.predict_proba(Z), atol=tolerance)


def test_mass_mean_is_the_difference_of_means() -> None:
    X, y = blobs()
    probe = MassMeanProbe().fit(X, y)
    np.testing.assert_allclose(probe.coef_[0], X[y == 1].mean(0) - X[y == 0].mean(0))
    middle = (X[y == 1].mean(0) + X[y == 0].mean(0)) / 2
    np.testing.assert_allclose(probe.decision_function(middle[None]), 0, atol=1e-12)


def test_mass_mean_equals_nearest_centroid_and_discriminant_analysis() -> None:
    X, y = blobs(150, classes=3)
    nearest = NearestCentroid().fit(X, y)
    np.testing.assert_array_equal(MassMeanProbe().fit(X, y).predict(X), nearest.predict(X))
    judge = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(X, y)
    ours = MassMeanProbe(covariance=True, shrinkage=0.0).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), judge.predict_proba(X), atol=1e-8)


def test_mass_mean_far_from_the_origin() -> None:
    X, y = blobs()
    near, far = MassMeanProbe().fit(X, y), MassMeanProbe().fit(X + 1e6, y)
    np.testing.assert_allclose(far.decision_function(X + 1e6), near.decision_function(X), atol=1e-5)


@pytest.mark.parametrize("probe", CHOOSING, ids=str)
def test_constant_features_change_no_decision(probe: Any) -> None:
    X, y = blobs()
    more = np.column_stack([X, np.full(len(X), 7.0), np.zeros(len(X))])
    plain, wide = clone(probe).fit(X, y), clone(probe).fit(more, y)
    np.testing.assert_allclose(
        wide.decision_function(more), plain.decision_function(X), rtol=1e-3, atol=1e-3
    )


def test_dying_dimensions_stay_dead() -> None:
    """A dimension with a spread of 1e-33 is a constant, not a feature of unit variance."""
    X, y = blobs()
    dying = 1e-33 * np.random.default_rng(0).normal(size=(len(X), 1)) * (y[:, None] * 2 - 1)
    for probe in CHOOSING:
        fitted = clone(probe).fit(np.hstack([X, dying]), y)
        assert fitted.coef_[0, -1] == 0


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (LinearProbe(Cs=()), "Cs is"),
        (LinearProbe(Cs=(-1.0,)), "positive"),
        (RidgeProbe(alphas=(np.nan,)), "alphas is"),
        (MassMeanProbe(covariance=True, shrinkage=2.0), "0 to 1"),
        (MassMeanProbe(covariance=True, shrinkage="much"), "'auto'"),
    ],
)
def test_bad_parameters(probe: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        probe.fit(*blobs())


def test_groups_of_another_length() -> None:
    X, y = blobs()
    for probe in CHOOSING:
        with pytest.raises(ValueError, match="one per row"):
            probe.fit(X, y, groups=[1, 2])


def test_groups_keep_duplicates_from_choosing_weak_regularisation() -> None:
    """Every row four times: alone, a left-out row is still in the fit and the weakest λ looks best."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 30)), np.arange(40) % 2
    X4, y4, groups = np.repeat(X, 4, axis=0), np.repeat(y, 4), np.repeat(np.arange(40), 4)
    assert RidgeProbe().fit(X4, y4).alpha_ <= 1
    assert RidgeProbe().fit(X4, y4, groups=groups).alpha_ >= 100
    assert LinearProbe().fit(X4, y4).C_ > LinearProbe().fit(X4, y4, groups=groups).C_
