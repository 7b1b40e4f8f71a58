"""Maps: closed forms, brute force on rows written out, and what each keeps that the others do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from probes.errors import InputError
from probes.exits.translate import TranslatorFitter, fit_translator, maps
from probes.exits.translate.moments import Moments
from probes.linalg import normalise_rows


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def test_orthogonal_map_equals_scipy_and_recovers_a_planted_rotation(rng):
    X = rng.normal(size=(300, 8)) * np.arange(1, 9) + 4
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    Y = 0.25 * X @ turn + 3 + 0.01 * rng.normal(size=(300, 8))
    fitted = fit_translator(X, Y, "orthogonal", rows=70)
    A, B = X - X.mean(axis=0), Y - Y.mean(axis=0)
    R, strength = orthogonal_procrustes(A, B)
    np.testing.assert_allclose(fitted.as_linear()[0], R * strength / (A**2).sum(), atol=1e-10)
    np.testing.assert_allclose(fitted.as_linear()[0], 0.25 * turn, atol=1e-2)
    assert fitted.r2 > 0.99
    scaled = fitted.as_linear()[0] / 0.25
    np.testing.assert_allclose(scaled.T @ scaled, np.eye(8), atol=1e-2)


def test_orthogonal_map_does_not_stretch_where_a_ridge_does(rng):
    X = rng.normal(size=(400, 5))
    Y = X * np.array([1, 2, 3, 4, 5.0])
    assert fit_translator(X, Y).r2 > 0.999
    assert fit_translator(X, Y, "orthogonal").r2 < 0.95


def test_reduced_rank_finds_the_planted_rank_and_beats_the_ridge_under_noise(rng):
    X = rng.normal(size=(400, 60))
    M = rng.normal(size=(60, 8)) @ rng.normal(size=(8, 50)) / 20
    Y = X @ M + 2 * rng.normal(size=(400, 50))
    reduced, ridge = fit_translator(X, Y, "reduced-rank"), fit_translator(X, Y)
    assert reduced.rank == 8
    assert ridge.rank is None
    assert np.linalg.matrix_rank(reduced.coefficients, tol=1e-8) == 8
    new = rng.normal(size=(2000, 60))
    wrong = [((fitted(new) - new @ M) ** 2).mean() for fitted in (reduced, ridge)]
    assert wrong[0] < 0.9 * wrong[1]


def test_whole_rank_is_the_ridge(rng):
    X = rng.normal(size=(300, 12)) + 2
    Y = X @ rng.normal(size=(12, 10)) + 0.1 * rng.normal(size=(300, 10))
    reduced, ridge = fit_translator(X, Y, "reduced-rank"), fit_translator(X, Y)
    assert reduced.rank == 10
    np.testing.assert_allclose(reduced.coefficients, ridge.coefficients, atol=1e-10)


@pytest.mark.parametrize("kind", ["ridge", "orthogonal"])
def test_held_out_error_from_moments_is_that_of_rows(rng, kind):
    X, Y = rng.normal(size=(90, 7)) * 3 + 5, rng.normal(size=(90, 4)) - 1
    train, held = Moments.of(X[:60], Y[:60]), Moments.of(X[60:], Y[60:])
    wide = maps.coefficients(train, kind, 0.1)
    predicted = maps.scaling_of(train, kind).transform(X[60:]) @ wide + Y[:60].mean(axis=0)
    found = maps.held_out_error(train, held, kind, wide)
    assert found == pytest.approx(((Y[60:] - predicted) ** 2).sum())
    if kind == "ridge":
        place = int(np.argmin(abs(maps.LAMBDAS - 0.1)))
        wide = maps.coefficients(train, kind, maps.LAMBDAS[place])
        one = maps.held_out_error(train, held, kind, wide)
        assert maps.held_out_errors(train, held)[place] == pytest.approx(one)


def test_batches_do_not_matter_for_any_map(rng):
    X, Y = rng.normal(size=(80, 6)) + 100, rng.normal(size=(80, 9))
    for kind in maps.KINDS:
        whole, pieces = fit_translator(X, Y, kind), fit_translator(X, Y, kind, rows=7)
        np.testing.assert_allclose(pieces(X), whole(X), atol=1e-6)
        assert (pieces.penalty, pieces.rank) == (whole.penalty, whole.rank)


def test_rotation_changes_no_cosine_and_puts_most_first(rng):
    X = rng.normal(size=(500, 20))
    M = rng.normal(size=(20, 3)) @ rng.normal(size=(3, 20)) + 0.05 * rng.normal(size=(20, 20))
    fitted = fit_translator(X, X @ M + 0.5)
    made = fitted(X)
    turned = made @ fitted.rotation()
    np.testing.assert_allclose(turned @ turned.T, made @ made.T, atol=1e-8)
    np.testing.assert_allclose(fitted.spread, made.T @ made / len(X), rtol=1e-6, atol=1e-6)
    whole = normalise_rows(made) @ normalise_rows(made).T

    def lost(states):
        return np.abs(
            normalise_rows(states[:, :4]) @ normalise_rows(states[:, :4]).T - whole
        ).mean()

    assert lost(turned) < 0.1 * lost(made)


def test_unknown_map_is_refused():
    with pytest.raises(InputError, match="did you mean 'ridge'"):
        TranslatorFitter("rigde")
