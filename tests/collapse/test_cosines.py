"""Mean cosines under resamples, quantiles and slopes, against loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from probes.collapse.cosines import cosine_quantiles, fit_slope, mean_cosine, unit_rows
from probes.errors import DoesNotApply
from probes.exits.resample import Resamples
from probes.layers import anisotropy


def test_the_mean_cosine_of_a_resample_is_that_of_its_pairs_of_different_texts() -> None:
    units = unit_rows(np.random.default_rng(0).normal(size=(12, 4)))
    counts = Resamples.make(12, 5, 0).counts
    found = mean_cosine(units, counts)
    for draw in range(5):
        rows = np.repeat(np.arange(12), counts[:, draw])
        pairs = [units[a] @ units[b] for a in rows for b in rows if a != b]
        assert found[draw] == pytest.approx(np.mean(pairs), abs=1e-12)


def test_without_a_resample_it_is_the_anisotropy() -> None:
    X = np.random.default_rng(1).normal(size=(50, 6)) + 1
    assert float(mean_cosine(unit_rows(X), np.ones((50, 1)))[0]) == pytest.approx(anisotropy(X))


def test_resamples_of_texts_without_a_common_direction_are_not_biased() -> None:
    """Copies counted as pairs would raise every draw by about 1/n."""
    means = []
    for seed in range(30):
        units = unit_rows(np.random.default_rng(seed).normal(size=(40, 20)))
        means.append(float(mean_cosine(units, Resamples.make(40, 100, seed).counts).mean()))
    assert abs(np.mean(means)) < 3 * np.std(means) / np.sqrt(30) + 1e-3


def test_quantiles_are_those_of_all_pairs() -> None:
    X = np.random.default_rng(2).normal(size=(30, 5))
    cosines = np.array(
        [
            X[a] @ X[b] / np.linalg.norm(X[a]) / np.linalg.norm(X[b])
            for a in range(30)
            for b in range(a)
        ]
    )
    for level, found in zip((0.1, 0.9), cosine_quantiles(X, (0.1, 0.9)), strict=True):
        assert found.value == pytest.approx(np.quantile(cosines, level), abs=1e-12)
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high


def test_intervals_of_the_median_cosine_hold_the_truth_as_often_as_they_say() -> None:
    """Texts have a common part of random strength, so that pairs that share a text are alike."""

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.normal(size=(n, 10)) + rng.uniform(0, 2, size=(n, 1))

    truth = np.mean([cosine_quantiles(draw(800, s), [0.5])[0].value for s in range(900, 906)])
    held = 0
    for seed in range(200):
        found = cosine_quantiles(draw(60, seed), [0.5])[0]
        held += bool(found.low <= truth <= found.high)  # type: ignore[operator]
    assert 0.89 <= held / 200 <= 1.0


def test_the_slope_is_per_doubling() -> None:
    tokens = np.array([8, 16, 64])
    assert float(fit_slope(tokens, 0.5 + 0.03 * np.log2(tokens))) == pytest.approx(0.03)
    assert fit_slope(tokens, np.ones((3, 4))).tolist() == pytest.approx([0] * 4)


@pytest.mark.parametrize("X", [np.ones((5, 2)), np.vstack([np.ones((20, 2)), np.zeros((1, 2))])])
def test_what_has_no_cosines_does_not_apply(X: np.ndarray) -> None:
    with pytest.raises(DoesNotApply):
        cosine_quantiles(X)


def test_one_length_has_no_slope() -> None:
    for tokens in ([8], [8, 8]):
        with pytest.raises(DoesNotApply, match="two are needed"):
            fit_slope(tokens, np.ones(len(tokens)))
