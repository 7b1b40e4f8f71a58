"""Every public probe on data at the edge: a clear error or a right answer; and as a scikit-learn citizen.

The list is what `probes.probing` exports: a new probe is tested as soon as `KINDS` says what it is fitted on.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import probes.probing as public
from probes.errors import FathometerError
from probes.probing import (
    ContrastiveProbe,
    LinearProbe,
    MassMeanProbe,
    MDLProbe,
    MinimalPairProbe,
    RidgeProbe,
    RidgeRegressionProbe,
    ScalarMixProbe,
)

KINDS: dict[str, list[Any]] = {
    "classes": [
        LinearProbe(),
        RidgeProbe(),
        MassMeanProbe(),
        MassMeanProbe(covariance=True),
        MDLProbe(),
        MinimalPairProbe(),
        ScalarMixProbe(),
    ],
    "numbers": [RidgeRegressionProbe()],
    "views": [ContrastiveProbe(dim=4, epochs=2)],
}
CASES = [pytest.param(kind, probe, id=str(probe)) for kind in KINDS for probe in KINDS[kind]]
CLASSES = [pytest.param(probe, id=str(probe)) for probe in KINDS["classes"]]
every_probe = pytest.mark.parametrize(("kind", "probe"), CASES)
every_classifier = pytest.mark.parametrize("probe", CLASSES)

GRIDS: dict[type, dict[str, list[Any]]] = {  # a hopeless value and a good one
    LinearProbe: {"Cs": [(1e-9,), (1.0,)]},
    RidgeProbe: {"alphas": [(1e9,), (1.0,)]},
    MassMeanProbe: {"covariance": [False, True]},
    MDLProbe: {"Cs": [(1e-9,), (1.0,)]},
    MinimalPairProbe: {"probe": [RidgeProbe(), MassMeanProbe()]},
    ScalarMixProbe: {"Cs": [(1e-9,), (1.0,)]},
    RidgeRegressionProbe: {"alphas": [(1e9,), (1.0,)]},
    ContrastiveProbe: {"dim": [1, 4]},
}


def data(kind: str, n: int = 120, d: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States that hold what is asked plainly; classes lie about the origin, as differences of pairs do."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = rng.permutation(np.arange(n) % 2)
    if kind == "classes":
        X[:, 0] += 3 * (2 * y - 1)
        return X, y
    if kind == "numbers":
        return X, 50 + 10 * X[:, 0] + 0.5 * rng.normal(size=n)
    thing = rng.normal(size=(n, 4))
    views = [thing @ rng.normal(size=(4, d)) + 0.01 * rng.normal(size=(n, d)) for _ in range(2)]
    return views[0], views[1]


def quality(probe: Any, X: Any, y: Any) -> float:
    """Accuracy, R² or recall; 1 is perfect."""
    return float(probe.score(X, y))


def test_every_public_probe_is_in_the_list() -> None:
    found = {getattr(public, name) for name in public.__all__}
    estimators = {c for c in found if isinstance(c, type) and issubclass(c, BaseEstimator)}
    assert estimators == {type(probe) for probes in KINDS.values() for probe in probes}
    assert estimators == set(GRIDS)


@every_probe
def test_scikit_learn_accepts_it(kind: str, probe: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(clone(probe), on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert sum(r["status"] == "passed" for r in results) > 30


@every_probe
def test_pipeline_and_grid_search(kind: str, probe: Any) -> None:
    X, y = data(kind, 200)
    name = type(probe).__name__.lower()
    grid = {f"{name}__{key}": values for key, values in GRIDS[type(probe)].items()}
    search = GridSearchCV(make_pipeline(StandardScaler(), clone(probe)), grid, cv=3)
    fitted = search.fit(X[:120], y[:120])
    assert quality(fitted, X[120:], y[120:]) > 0.9
    if kind == "numbers":
        assert search.best_params_ == {f"{name}__alphas": (1.0,)}


@every_probe
def test_clone_and_refit_give_the_same(kind: str, probe: Any) -> None:
    X, y = data(kind)
    first = clone(probe).fit(X, y)
    again = clone(first)
    assert again.get_params() == probe.get_params() or isinstance(probe, MinimalPairProbe)
    ask = "transform" if kind == "views" else "predict"
    expected = getattr(first, ask)(X)
    np.testing.assert_array_equal(getattr(again.fit(X, y), ask)(X), expected)
    refit = first.fit(*data(kind, seed=1)).fit(X, y)  # nothing of an earlier fit stays
    np.testing.assert_array_equal(getattr(refit, ask)(X), expected)


@every_probe
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_states_that_are_not_finite(kind: str, probe: Any, bad: float) -> None:
    X, y = data(kind)
    fitted = clone(probe).fit(X, y)
    broken = X.copy()
    broken[3, 1] = bad
    ask = fitted.transform if kind == "views" else fitted.predict
    for attempt in (lambda: clone(probe).fit(broken, y), lambda: ask(broken)):
        with pytest.raises(ValueError, match=r"NaN|infinity"):
            attempt()


@pytest.mark.parametrize("kind", ["numbers", "views"])
def test_targets_that_are_not_finite(kind: str) -> None:
    X, y = data(kind)
    y = y.copy()
    y[3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        clone(KINDS[kind][0]).fit(X, y)


@every_probe
def test_constant_features_change_nothing(kind: str, probe: Any) -> None:
    X, y = data(kind)
    more = np.column_stack([X, np.full(len(X), 7.0), np.zeros(len(X))])
    if isinstance(probe, MinimalPairProbe):  # a difference of 7 in every pair is no constant
        more[:, -2] = 0
    plain, wide = clone(probe).fit(X, y), clone(probe).fit(more, y)
    assert quality(wide, more, y) == pytest.approx(quality(plain, X, y), abs=0.01)
    far = more.copy()
    if not isinstance(probe, MassMeanProbe):  # raw states: a constant that moves does count there
        far[:, -1] += 1e6  # what never varied in training cannot speak in a test
        assert quality(wide, far, y) == pytest.approx(quality(plain, X, y), abs=0.01)


@every_classifier
def test_only_constant_features(probe: Any) -> None:
    """No state says anything: every row gets the same answer, which is right for one class."""
    X, y = np.zeros((40, 3)), np.arange(40) % 2
    if not isinstance(probe, MinimalPairProbe):
        X += 1.5
    fitted = clone(probe).fit(X, y)
    assert np.isfinite(fitted.decision_function(X)).all()
    assert fitted.score(X, y) == 0.5


def test_only_constant_features_of_numbers_and_views() -> None:
    X, y = np.full((40, 3), 1.5), np.arange(40.0)
    fitted = RidgeRegressionProbe().fit(X, y)
    np.testing.assert_allclose(fitted.predict(X), 19.5)
    alike = ContrastiveProbe(dim=2, epochs=1).fit(X, X)
    assert np.isfinite(alike.transform(X)).all()


@every_probe
def test_fewer_rows_than_dimensions(kind: str, probe: Any) -> None:
    """Every one of 200 dimensions knows a little; 40 rows suffice to add it up."""
    X, y = data(kind, 80, 200)
    if kind != "views":
        about = 2 * y - 1 if kind == "classes" else (y - 50) / 10
        X += 0.5 * about[:, None]
    fitted = clone(probe).fit(X[:40], y[:40])
    assert quality(fitted, X[40:], y[40:]) > 0.8


@pytest.mark.slow
@every_probe
def test_a_hundred_thousand_rows(kind: str, probe: Any) -> None:
    X, y = data(kind, 100_000, 6)
    X = X.astype(np.float32)
    judged = slice(1000 if kind == "views" else None)  # recall is asked among so many pairs
    least = 0.5 if kind == "views" else 0.99
    assert quality(clone(probe).fit(X, y), X[judged], y[judged]) > least


@every_classifier
def test_one_class(probe: Any) -> None:
    with pytest.raises(ValueError, match="two classes") as caught:
        clone(probe).fit(np.ones((6, 2)), np.zeros(6))
    assert isinstance(caught.value, FathometerError)


def test_one_value_and_one_class_of_pairs() -> None:
    X, _ = data("numbers")
    fitted = RidgeRegressionProbe().fit(X, np.full(120, 4.0))
    np.testing.assert_allclose(fitted.predict(X), 4)
    A, B = data("views")
    with pytest.raises(ValueError, match="one class"):
        ContrastiveProbe().fit(A, B, classes=np.zeros(120))


@every_classifier
def test_a_class_with_two_members(probe: Any) -> None:
    X, _ = data("classes")
    y = (np.arange(120) < 2).astype(int)
    X[:, 0] = 4 + np.random.default_rng(0).normal(size=120)
    X[:2, 0] = -25
    fitted = clone(probe).fit(X, y)
    assert (fitted.predict(X[:2]) == 1).all()
    assert fitted.score(X, y) == 1


@pytest.mark.parametrize(
    "probe", [p for p in CLASSES if not isinstance(p.values[0], MinimalPairProbe)]
)
def test_a_third_class_with_two_members(probe: Any) -> None:
    X, y = data("classes")
    y = np.where(np.arange(120) < 2, 2, y)
    X[:2, 1] += 30
    fitted = clone(probe).fit(X, y)
    assert set(fitted.predict(X[:2])) == {2}
    assert fitted.decision_function(X).shape == (120, 3)


def test_two_rows() -> None:
    """The least there can be."""
    X, y = np.array([[0.0, 1.0], [3.0, 1.0]]), np.array([0, 1])
    for probe in (RidgeProbe(), MassMeanProbe(), LinearProbe(Cs=(1.0,))):
        assert probe.fit(X, y).score(X, y) == 1
    with pytest.raises(ValueError, match="hold-out"):
        LinearProbe().fit(X, y)
    assert np.isfinite(RidgeRegressionProbe().fit(X, y).predict(X)).all()
    assert MDLProbe(Cs=(1.0,)).fit(X, y).mdl_ == 2


@every_classifier
def test_classes_may_be_words(probe: Any) -> None:
    X, y = data("classes")
    words = np.array(["no", "yes"])[y]
    by_word, by_code = clone(probe).fit(X, words), clone(probe).fit(X, y)
    np.testing.assert_array_equal(by_word.predict(X), np.array(["no", "yes"])[by_code.predict(X)])


@every_probe
def test_unfitted_probes_refuse(kind: str, probe: Any) -> None:
    X, _ = data(kind)
    ask = clone(probe).transform if kind == "views" else clone(probe).predict
    with pytest.raises(ValueError, match="not fitted"):
        ask(X)


@every_probe
@pytest.mark.parametrize("labels", ["short", "empty"])
def test_rows_that_do_not_fit(kind: str, probe: Any, labels: str) -> None:
    X, y = data(kind)
    with pytest.raises(ValueError, match=r"(?i)inconsistent|rows|sample"):
        clone(probe).fit(X if labels == "short" else X[:0], y[:50] if labels == "short" else y[:0])
