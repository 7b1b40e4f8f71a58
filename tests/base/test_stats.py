"""Statistics against scipy, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from probes.errors import InputError
from probes.stats import (
    hoeffding_bentkus,
    pearson,
    percentile_interval,
    spearman,
    wilson_interval,
)


@given(
    hnp.arrays(np.float64, st.integers(3, 40), elements=st.integers(0, 5).map(float)),
    st.integers(0, 99),
)
def test_spearman_equals_scipy_with_ties(x: np.ndarray, seed: int) -> None:
    y = np.random.default_rng(seed).integers(0, 4, size=len(x)).astype(float)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert spearman(x, y) == 0
    else:
        assert spearman(x, y) == pytest.approx(scipy_stats.spearmanr(x, y).statistic, abs=1e-12)


def test_pearson_broadcasts_over_leading_axes() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 50)), rng.normal(size=50)
    expected = [np.corrcoef(row, y)[0, 1] for row in x]
    np.testing.assert_allclose(pearson(x, y), expected, atol=1e-12)


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_equals_scipy(n: int, share: float) -> None:
    successes = round(n * share)
    expected = scipy_stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    low, high = wilson_interval(successes, n)
    assert low == pytest.approx(expected.low, abs=1e-9)
    assert high == pytest.approx(expected.high, abs=1e-9)


def test_percentile_interval_is_central_along_its_axis() -> None:
    draws = np.random.default_rng(0).permutation(np.arange(1001.0))
    low, high = percentile_interval(np.stack([draws, 2 * draws], axis=1), 0.9)
    np.testing.assert_allclose([low, high], [[50, 100], [950, 1900]])
    assert percentile_interval(draws, 0.5) == (250, 750)


@pytest.mark.parametrize("n", [20, 100, 400])
@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_hoeffding_bentkus_is_valid_at_the_border_of_the_null(n: int, epsilon: float) -> None:
    """At true mean exactly ε, P(p ≤ δ) ≤ δ: computed exactly over the binomial, no sampling."""
    counts = np.arange(n + 1)
    mass = scipy_stats.binom.pmf(counts, n, epsilon)
    p = np.array([hoeffding_bentkus(k / n, n, epsilon) for k in counts])
    for delta in (0.01, 0.05, 0.1):
        assert mass[p <= delta].sum() <= delta + 1e-12


def test_hoeffding_bentkus_has_power_and_never_passes_above_epsilon() -> None:
    assert hoeffding_bentkus(0.02, 1000, 0.05) < 0.05
    assert hoeffding_bentkus(0.0501, 10**6, 0.05) == 1.0
    ps = [hoeffding_bentkus(r, 300, 0.1) for r in np.linspace(0, 0.1, 30)]
    assert np.all(np.diff(ps) >= -1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1])
def test_bad_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(InputError, match="max loss"):
        hoeffding_bentkus(0.0, 10, epsilon)
