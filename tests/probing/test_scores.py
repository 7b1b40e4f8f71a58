"""Quality measures against scikit-learn, and intervals against their promise."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from probes.probing import LinearProbe, MassMeanProbe, RidgeProbe, sweep
from probes.probing.base import Concept, OutOfFold, as_classes
from probes.probing.scores import Resamples, Terms, quality_terms, sign_inflation


def values(y: np.ndarray, scores: np.ndarray, fold: np.ndarray) -> dict[str, float]:
    concept = Concept(None, y, int(y.max()) + 1)
    result = OutOfFold(scores, as_classes(scores))
    return {t.measure: t.value() for t in quality_terms(concept, result, np.arange(len(y)), fold)}


@pytest.mark.parametrize("classes", [2, 4])
def test_measures_equal_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(0)
    y = rng.choice(classes, 300, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    scores = rng.normal(size=(300, classes)) + np.eye(classes)[y]
    scores = np.round(scores[:, 1] - scores[:, 0], 1) if classes == 2 else scores  # with ties
    found = values(y, scores, np.zeros(300, dtype=int))
    predicted = as_classes(scores)
    assert found["accuracy"] == pytest.approx(accuracy_score(y, predicted))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(y, predicted))
    if classes == 2:
        expected = roc_auc_score(y, scores)
    else:
        expected = np.mean([roc_auc_score(y == k, scores[:, k]) for k in range(classes)])
    assert found["auroc"] == pytest.approx(expected)


def test_auroc_compares_within_folds_only() -> None:
    """Folds whose scores have another zero: pooled pairs would see nothing, pairs of one fold all."""
    y, fold = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    scores = np.array([10.0, 11, -11, -10])
    assert values(y, scores, fold)["auroc"] == 1
    assert roc_auc_score(y, scores) == 0.75


def test_inflation_matches_simulation() -> None:
    """The derivation in the module's docstring, tried on the simplest probe: nearest mean, labels random."""
    rng = np.random.default_rng(0)
    n, d = 60, 40
    rates = []
    for _ in range(1500):
        X, y = rng.normal(size=(n, d)), rng.permutation(np.arange(n) % 2) * 2 - 1
        K = X @ X.T
        np.fill_diagonal(K, 0)
        rates.append((np.sign(K @ y) == y).mean())
    assert np.var(rates) * n / 0.25 == pytest.approx(sign_inflation(2), rel=0.12)


def test_group_bootstrap_sees_the_dependence() -> None:
    """Ten identical rows per group: the interval must be that of the groups, √10 wider than of single rows."""
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(100) < 0.7, 10).astype(float)[:, None]
    terms = [Terms("accuracy", right, np.ones_like(right), 1.0, 0.0, 1.0)]

    def width(groups: np.ndarray | None) -> float:
        resamples = Resamples(1000, groups, 1000, 0.95, np.random.default_rng(1))
        ((_, estimate),) = resamples.estimates(terms, 0)
        assert estimate.low is not None
        assert estimate.high is not None
        return estimate.high - estimate.low

    assert width(np.repeat(np.arange(100), 10)) / width(None) == pytest.approx(np.sqrt(10), rel=0.1)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_perfect_and_hopeless_have_an_interval(right: float) -> None:
    ones = np.ones((50, 1))
    terms = [Terms("accuracy", right * ones, ones, 1.0, 0.0, 1.0)]
    ((_, estimate),) = Resamples(50, None, 200, 0.95, np.random.default_rng(0)).estimates(terms, 0)
    assert estimate.low is not None
    assert estimate.high is not None
    assert 0.9 < estimate.high - estimate.low + 0.9 < 1.0


def coverage(probe: object, n: int, d: int, classes: int, seeds: int) -> dict[str, float]:
    hits: dict[str, list[bool]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        y = rng.permutation(np.arange(n) % classes)
        table = sweep(probe, {0: rng.normal(size=(n, d))}, y, seed=seed, draws=500)  # type: ignore[arg-type]
        for row in table.itertuples():
            chance = 0.5 if row.measure == "auroc" else 1 / classes
            hits.setdefault(str(row.measure), []).append(row.low <= chance <= row.high)
    return {measure: float(np.mean(hit)) for measure, hit in hits.items()}


def test_shuffled_labels_are_at_chance() -> None:
    for share in coverage(RidgeProbe(), 80, 15, 2, 60).values():
        assert share >= 0.87  # four standard errors below 0.95 at 60 seeds would be 0.84


@pytest.mark.slow
@pytest.mark.parametrize("probe", [RidgeProbe(), LinearProbe(), MassMeanProbe()], ids=str)
@pytest.mark.parametrize(("d", "classes"), [(15, 2), (150, 2), (15, 4)])
def test_intervals_cover_chance_at_the_nominal_rate(probe: object, d: int, classes: int) -> None:
    """95 % ± three standard errors of 200 seeds, choice of λ included."""
    for share in coverage(probe, 100, d, classes, 200).values():
        assert 0.95 - 3 * 0.0154 <= share <= 1.0
