"""Ridge regression on states: numbers, years, coordinates; λ by exact leave-one-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.probing.base import FloatArray, IntArray, checked_groups, positive_values
from probes.probing.folds import FoldPlan
from probes.probing.ridge import DEFAULT_ALPHAS


class RidgeRegressionProbe(RegressorMixin, MultiOutputMixin, BaseEstimator):
    """Linear regression with an L2 penalty; every target has its own λ, chosen by exact leave-one-out.

    Minimises ‖y − Z w − b‖² + λ‖w‖² for each target y on states Z that are standardised on the training rows
    (dimensions with a relative spread below 1e-6 are constants); among `alphas` the λ with the least mean squared
    leave-one-out error is taken, ties to the stronger (whole groups are left out, if `fit` is given groups). One
    eigendecomposition serves every λ and every target.

    Parameters
    ----------
    alphas : λ to choose from, positive; in units of standardised states, so n makes a λ strong.
    device : torch device of the computation.

    Attributes
    ----------
    coef_ (d,) or (t, d), intercept_ number or (t,) : act on raw states. alpha_ number or (t,) : the λ taken.
    loo_error_ (len(alphas),) or (len(alphas), t) : mean squared leave-one-out error, in squared units of y.

    `score` is R² on the rows given, at most 1, 0 for their mean; several targets are averaged. Raises
    `ValueError` for states or targets that are not finite numbers, and `EstimatorInputError` for bad alphas. See
    also `RidgeProbe`, `regression_sweep`. Paper: Hoerl & Kennard 1970; Allen 1974 (PRESS); Gurnee & Tegmark 2023
    (arXiv 2310.02207) for places and years.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 5))
    >>> year = 1900 + 30 * X[:, 0] - 10 * X[:, 1] + rng.normal(size=80)
    >>> probe = RidgeRegressionProbe().fit(X, year)
    >>> probe.score(X, year) > 0.99, probe.coef_.shape, probe.alpha_
    (True, (5,), 0.1)
    """

    coef_: FloatArray
    intercept_: FloatArray
    n_features_in_: int

    def __init__(self, *, alphas: Sequence[float] = DEFAULT_ALPHAS, device: str = "cpu") -> None:
        self.alphas = alphas
        self.device = device

    def fit(self, X: Any, y: Any, groups: Any = None) -> RidgeRegressionProbe:
        """X (n, d) states, y (n,) or (n, t) finite numbers, groups (n,) that are left out together."""
        from probes.probing.ridge_path import fit_folds

        found: Any = validate_data(
            self,
            X,
            y,
            dtype=[np.float64, np.float32],
            multi_output=True,
            y_numeric=True,
            ensure_min_samples=2,
        )
        states, targets = found
        n = len(states)
        Y, centre, unit = standard_targets(targets)
        design, fits = fit_folds(
            states,
            Y,
            np.arange(len(Y), dtype=np.int64),
            FoldPlan.make([np.arange(n)], n),
            positive_values(self.alphas, "alphas"),
            checked_groups(groups, n),
            self.device,
        )
        fit = fits[0]
        coef, intercept = design.raw_weights(0, fit.theta[:, :-1], fit.theta[:, -1])
        coef, intercept = coef * unit[:, None], intercept * unit + centre
        alpha = fit.alpha.double().cpu().numpy()
        loo = fit.loo.double().cpu().numpy() * unit**2
        one = np.ndim(targets) == 1
        self.coef_ = coef[0] if one else coef
        self.intercept_ = intercept[0] if one else intercept
        self.alpha_ = float(alpha[0]) if one else alpha
        self.loo_error_ = loo[:, 0] if one else loo
        return self

    def predict(self, X: Any) -> FloatArray:
        """(n,) or (n, t) for states X (n, d)."""
        check_is_fitted(self)
        states: Any = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return states @ self.coef_.T + self.intercept_

    def out_of_fold(
        self,
        X: FloatArray,
        Y: FloatArray,
        folds: Sequence[tuple[IntArray, IntArray]],
        plan: FoldPlan,
        groups: NDArray[Any] | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Predictions (t, n) of targets Y (t, n) and the λ taken (fold, t); all targets share the factorisations."""
        from probes.probing.ridge_path import fit_folds, predict_folds

        scaled, centre, unit = standard_targets(Y.T)
        owner = np.arange(len(Y), dtype=np.int64)
        alphas = positive_values(self.alphas, "alphas")
        design, fits = fit_folds(X, scaled, owner, plan, alphas, groups, self.device)
        predicted = predict_folds(design, fits, [test for _, test in folds])
        chosen = np.stack([fit.alpha.double().cpu().numpy() for fit in fits])
        return predicted * unit[:, None] + centre[:, None], chosen


def standard_targets(y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Targets (t, n) of mean 0 and variance 1 from y (n,) or (n, t), and the centre and unit (t,) taken off.

    Ridge with an intercept follows any shift and factor of its target, so nothing leaks from test
    rows by this; float32 would lose a year's digits about 1900.
    """
    Y = np.atleast_2d(np.asarray(y, dtype=np.float64).T)
    centre = Y.mean(axis=1)
    unit = Y.std(axis=1)
    unit = np.where(unit > 1e-12 * np.abs(centre), unit, 1.0)
    return (Y - centre[:, None]) / unit[:, None], centre, unit
