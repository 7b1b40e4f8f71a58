"""Translators: a planted map is found, scikit-learn agrees, constants and few texts do no harm."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from probes.errors import InputError, NonFiniteError
from probes.exits.translate import TranslatorFitter, fit_translator
from probes.exits.translate import maps as module


def test_planted_map_is_recovered_and_noise_is_not(rng):
    X = rng.normal(size=(400, 12)) * np.logspace(-3, 3, 12) + 50
    M = rng.normal(size=(12, 5)) / np.logspace(-3, 3, 12)[:, None]
    fitted = fit_translator(X, X @ M + 2)
    new = rng.normal(size=(50, 12)) * np.logspace(-3, 3, 12) + 50
    np.testing.assert_allclose(fitted(new), new @ M + 2, atol=1e-3)
    assert fitted.r2 > 0.999
    control = fit_translator(X, rng.normal(size=(400, 5)))
    assert control.r2 < 0.1


@pytest.mark.parametrize("n", [15, 40, 300])  # fewer texts than coordinates, and more
@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_equals_sklearn_ridge(rng, monkeypatch, n, penalty):
    monkeypatch.setattr(module, "LAMBDAS", np.array([penalty]))
    X, Y = rng.normal(size=(n, 30)) * rng.uniform(0.1, 10, size=30) + 3, rng.normal(size=(n, 4))
    ours = fit_translator(X, Y, rows=7)
    scaler = StandardScaler().fit(X)
    theirs = Ridge(alpha=penalty * n).fit(scaler.transform(X), Y)
    new = rng.normal(size=(20, 30))
    np.testing.assert_allclose(ours(new), theirs.predict(scaler.transform(new)), atol=1e-8)


def test_penalty_is_the_best_on_held_out_rows(rng):
    """The errors from moments alone equal those of fitting on four fifths and predicting every fifth row."""
    X = rng.normal(size=(100, 40)) + 1
    Y = X @ rng.normal(size=(40, 3)) + 8 * rng.normal(size=(100, 3)) - 2
    held = np.arange(100) % 5 == 4
    scaler = StandardScaler().fit(X[~held])
    errors = []
    for penalty in module.LAMBDAS:
        model = Ridge(alpha=penalty * 80).fit(scaler.transform(X[~held]), Y[~held])
        errors.append(((model.predict(scaler.transform(X[held])) - Y[held]) ** 2).sum())
    fitter = TranslatorFitter().update(X[:33], Y[:33]).update(X[33:], Y[33:])
    found = module.held_out_errors(fitter._train, fitter._held)
    np.testing.assert_allclose(found, errors, rtol=1e-8)
    fitted = fitter.fit()
    assert fitted.penalty == module.LAMBDAS[np.argmin(errors)]
    total = ((Y[held] - Y[held].mean(axis=0)) ** 2).sum()
    assert fitted.r2 == pytest.approx(1 - min(errors) / total)


def test_batches_do_not_matter(rng):
    X, Y = rng.normal(size=(64, 6)) + 1e4, rng.normal(size=(64, 2))
    whole = fit_translator(X, Y)
    for rows in (1, 5, 63):
        again = fit_translator(X, Y, rows=rows)
        assert again.penalty == whole.penalty
        np.testing.assert_allclose(again(X), whole(X), atol=1e-6)


def test_constant_coordinates_do_no_harm(rng):
    X, Y = rng.normal(size=(100, 6)), rng.normal(size=(100, 3))
    dead = np.concatenate([X, np.full((100, 2), 5.0), 1e-33 * rng.normal(size=(100, 2))], axis=1)
    np.testing.assert_allclose(fit_translator(dead, Y)(dead), fit_translator(X, Y)(X), atol=1e-9)
    changed = dead.copy()
    changed[:, 6:] += 100  # what was constant at the fit has no say later
    np.testing.assert_allclose(fit_translator(dead, Y)(changed), fit_translator(X, Y)(X), atol=1e-9)


def test_as_linear_is_the_same_map(rng):
    X, Y = rng.normal(size=(60, 8)) * 3 + 1, rng.normal(size=(60, 4))
    fitted = fit_translator(X, Y)
    weight, bias = fitted.as_linear()
    assert weight.shape == (8, 4)
    assert bias.shape == (4,)
    by_hand = fitted.standardiser.transform(X) @ fitted.coefficients + fitted.intercept
    np.testing.assert_allclose(X @ weight + bias, by_hand, atol=1e-10)
    np.testing.assert_allclose(fitted(X), by_hand, atol=1e-10)


def test_what_cannot_be_fitted_is_refused(rng):
    X = rng.normal(size=(9, 3))
    with pytest.raises(InputError, match="at least 10"):
        TranslatorFitter().update(X, X).fit()
    with pytest.raises(InputError, match="at least 10"):
        TranslatorFitter().fit()
    with pytest.raises(InputError, match="9 states but 8 embeddings"):
        TranslatorFitter().update(X, X[:8])
    with pytest.raises(InputError, match="earlier"):
        TranslatorFitter().update(X, X).update(X[:, :2], X)
    with pytest.raises(NonFiniteError, match="row 4"):
        TranslatorFitter().update(np.where(np.arange(9)[:, None] == 4, np.nan, X), X)
    with pytest.raises(InputError, match=r"\(n, 3\)"):
        fit_translator(rng.normal(size=(20, 3)), rng.normal(size=(20, 2)))(rng.normal(size=(4, 5)))
