"""The p-values against exact enumeration and closed forms; sample sizes against simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from probes.errors import InputError
from probes.exits.bounds import (
    POWER,
    factor_for_share,
    factor_for_weighted,
    loss_limit,
    size_for_loss,
    weighted_limit,
    weighted_p,
)
from probes.stats import hoeffding_bentkus


@given(st.floats(0, 0.9), st.integers(2, 2000), st.floats(0.001, 0.4), st.floats(0.01, 0.99))
@settings(max_examples=80, deadline=None)
def test_the_limit_is_where_the_p_value_meets_delta(mean, n, delta, epsilon):
    limit = loss_limit(mean, n, delta)
    assert mean <= limit <= 1
    if abs(epsilon - limit) > 1e-6:
        assert (hoeffding_bentkus(mean, n, epsilon) <= delta) == (epsilon > limit)


def test_one_sample_is_the_bound_of_chernoff_and_hoeffding():
    for mean, n, epsilon in ((0.02, 200, 0.06), (0.0, 100, 0.05), (0.3, 50, 0.5), (0.1, 900, 0.11)):
        zero = 0 if mean == 0 else mean * np.log(mean / epsilon)
        kl = zero + (1 - mean) * np.log((1 - mean) / (1 - epsilon))
        assert weighted_p([mean], [n], [3], epsilon) == pytest.approx(np.exp(-n * kl), rel=1e-4)
    assert weighted_p([0.1, 0.1], [50, 50], [1, 1], 0.1) == 1.0


def test_equal_samples_and_weights_are_one_sample():
    """The worst means are equal ones then: the bound is that of all examples together."""
    together = weighted_p([0.03], [400], [1], 0.08)
    assert weighted_p([0.02, 0.04], [200, 200], [1, 1], 0.08) == pytest.approx(together, rel=1e-3)


@pytest.mark.parametrize(
    ("sizes", "weights"), [((8, 8), (1, 1)), ((12, 4), (1, 1)), ((5, 9), (3, 1)), ((3, 4, 5), (1, 2, 1))]
)  # fmt: skip
def test_no_means_beyond_the_limit_pass_more_often_than_allowed(sizes, weights):
    """Exact: every outcome of Bernoulli losses is listed, for many true means whose weighted mean is ε."""
    epsilon, w = 0.4, np.asarray(weights) / sum(weights)
    outcomes = list(itertools.product(*(range(n + 1) for n in sizes)))
    p = np.array(
        [weighted_p([k / n for k, n in zip(ks, sizes, strict=True)], sizes, weights, epsilon) for ks in outcomes]
    )  # fmt: skip
    levels = np.unique(p[p < 1])
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(60):
        mu = rng.dirichlet(np.ones(len(sizes))) * epsilon / w
        if mu.max() > 1:
            continue
        mass = np.array(
            [np.prod([binom.pmf(k, n, m) for k, n, m in zip(ks, sizes, mu, strict=True)]) for ks in outcomes]
        )  # fmt: skip
        passed = np.array([mass[p <= level].sum() for level in levels])
        assert (passed <= levels + 1e-9).all()
        worst = max(worst, float((passed / levels).max()))
    assert worst > 0.1  # it is a bound, yet not an empty one


def test_the_weighted_limit_turns_the_weighted_test_round():
    given = [0.02, 0.05], [150, 80], [0.7, 0.3]
    limit = weighted_limit(*given, 0.05)
    assert weighted_p(*given, limit + 1e-4) <= 0.05 < weighted_p(*given, limit - 1e-4)


@pytest.mark.parametrize(("risk", "epsilon", "delta"), [(0.02, 0.05, 0.05), (0.05, 0.1, 0.025)])
def test_the_size_that_would_do_passes_in_four_of_five_cases(risk, epsilon, delta):
    rng = np.random.default_rng(1)
    size = size_for_loss(risk, np.sqrt(risk * (1 - risk)), 20, epsilon, delta)
    assert size is not None

    def passed(n):
        counts = rng.binomial(n, risk, size=1500)
        return np.mean([hoeffding_bentkus(k / n, n, epsilon) <= delta for k in counts])

    assert passed(size) == pytest.approx(POWER, abs=0.08)
    assert passed(size // 2) < 0.65
    assert size_for_loss(epsilon, 0.1, 20, epsilon, delta) is None


def test_the_factor_for_a_weighted_mean_passes_in_four_of_five_cases():
    rng = np.random.default_rng(2)
    risks, sizes, weights = np.array([0.02, 0.04]), np.array([60, 90]), [1.0, 1.0]
    moments = [(r, np.sqrt(r * (1 - r)), n) for r, n in zip(risks, sizes, strict=True)]
    factor = factor_for_weighted(moments, weights, 0.08, 0.05)
    assert factor is not None

    def passed(grown):
        means = rng.binomial(grown, risks, size=(300, 2)) / grown
        return np.mean([weighted_p(row, grown, weights, 0.08) <= 0.05 for row in means])

    assert passed(np.ceil(sizes * factor).astype(int)) == pytest.approx(POWER, abs=0.1)
    assert passed(np.ceil(sizes * factor / 2).astype(int)) < 0.65


def test_the_factor_for_a_share_is_that_of_a_normal_mean():
    rng = np.random.default_rng(3)
    room, spread, n, delta = 0.01, 0.2, 100, 0.05
    factor = factor_for_share(room, 1.645 * spread / np.sqrt(n), 0.0, delta)
    size = int(np.ceil(n * factor))
    means = rng.normal(room, spread / np.sqrt(size), size=20000)
    passed = (means - 1.645 * spread / np.sqrt(size) > 0).mean()
    assert passed == pytest.approx(POWER, abs=0.02)
    assert factor_for_share(0.0, 0.1, 0.0, delta) is None


@pytest.mark.parametrize("weights", [[1], [-1, 2], [0, 0]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(InputError, match="weights"):
        weighted_p([0.1, 0.1], [10, 10], weights, 0.2)
