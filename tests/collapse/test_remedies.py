"""Remedies do what their names say, on what they were fitted on and on what they were not."""

from __future__ import annotations

import numpy as np
import pytest

from probes.collapse.remedies import REMEDIES, centring, whitening, without_top
from probes.errors import DoesNotApply, NonFiniteError
from probes.layers import anisotropy


def collapsed(n: int = 400, seed: int = 0) -> np.ndarray:
    """States along one common vector, with spreads that fall from direction to direction."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 16)) * np.linspace(3, 0.5, 16) + 4


@pytest.mark.parametrize("name", list(REMEDIES))
def test_every_remedy_takes_the_common_direction_away_from_new_texts(name: str) -> None:
    assert anisotropy(collapsed(seed=1)) > 0.5
    assert abs(anisotropy(REMEDIES[name](collapsed())(collapsed(seed=1)))) < 0.05


def test_a_fitted_remedy_is_frozen_and_works_row_by_row() -> None:
    new = collapsed(20, seed=2)
    for name, fit in REMEDIES.items():
        change = fit(collapsed())
        np.testing.assert_allclose(change(new)[:5], change(new[:5]), atol=1e-9, err_msg=name)


def test_centring_leaves_differences_alone() -> None:
    X = collapsed()
    np.testing.assert_allclose(np.diff(centring(X)(X), axis=0), np.diff(X, axis=0), atol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_the_strongest_directions_are_gone_and_the_others_untouched(k: int) -> None:
    X = collapsed()
    left = np.linalg.svd(without_top(X, k)(X), compute_uv=False)
    before = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(left[: 16 - k], before[k:], rtol=1e-6)
    np.testing.assert_allclose(left[16 - k :], 0, atol=1e-6)


def test_whitening_gives_every_direction_the_same_spread() -> None:
    X = collapsed(5000)
    spread = np.linalg.eigvalsh(np.cov(whitening(X)(X).T))
    assert spread.max() / spread.min() < 1.1
    few = collapsed(12)  # fewer texts than directions: shrinkage keeps it finite
    assert np.isfinite(whitening(few)(collapsed(30, 3))).all()


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(DoesNotApply, match="top 10 is all"):
        without_top(np.random.default_rng(0).normal(size=(8, 16)), 10)
    with pytest.raises(DoesNotApply, match="all states are equal"):
        whitening(np.ones((5, 3)))
    with pytest.raises(NonFiniteError):
        centring(np.full((3, 2), np.nan))
