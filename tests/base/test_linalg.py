"""Standardising and checking matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from probes.errors import InputError, NonFiniteError
from probes.linalg import Standardiser, check_matrix, normalise_rows, singular_values


def test_standardiser_equals_scikit_learn_on_healthy_data() -> None:
    X = np.random.default_rng(0).normal(3, [0.1, 1, 30], size=(50, 3))
    np.testing.assert_allclose(
        Standardiser.fit(X).transform(X), StandardScaler().fit_transform(X), atol=1e-9
    )


def test_rounding_noise_stays_constant_where_scikit_learn_blows_it_up() -> None:
    """MiniLM's last layer has dimensions whose deviation is 1e-33; the control shows the trap is real."""
    X = np.random.default_rng(0).normal(size=(50, 4))
    X[:, 2] *= 1e-33
    assert np.abs(Standardiser.fit(X).transform(X)[:, 2]).max() == 0
    assert StandardScaler().fit_transform(X * 1e20)[:, 2].std() > 0.5


@given(st.floats(0.1, 1e3), st.floats(-1e3, 1e3))
def test_scale_and_shift_do_not_matter(scale: float, shift: float) -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    moved = X * scale + shift
    np.testing.assert_allclose(
        Standardiser.fit(moved).transform(moved), Standardiser.fit(X).transform(X), atol=1e-6
    )


def test_rows_are_normalised_and_zero_rows_stay() -> None:
    X = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(normalise_rows(X), [[0.6, 0.8], [0, 0]])


def test_singular_values_of_a_known_spectrum() -> None:
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(20, 4)))
    r, _ = np.linalg.qr(rng.normal(size=(6, 4)))
    spectrum = np.array([5.0, 1.0, 1e-3, 1e-9])
    np.testing.assert_allclose(
        singular_values((q * spectrum) @ r.T, center=False)[:4], spectrum, rtol=1e-6
    )


@pytest.mark.parametrize("X", [np.zeros(3), np.zeros((0, 3)), np.array([["a"]]), np.zeros((2, 0))])
def test_what_is_no_matrix_is_refused(X: np.ndarray) -> None:
    with pytest.raises(InputError, match="X has shape"):
        check_matrix(X)


def test_not_finite_rows_are_named() -> None:
    X = np.zeros((4, 2))
    X[2, 1] = np.nan
    with pytest.raises(NonFiniteError, match=r"row 2 \(1 of 4 rows\)"):
        check_matrix(X)
