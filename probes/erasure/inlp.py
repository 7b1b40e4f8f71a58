"""INLP: project out the direction of a linear probe, train again, until no probe is better than the majority."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from probes.erasure.eraser import Eraser, FloatArray
from probes.erasure.leace import class_codes
from probes.errors import InputError
from probes.linalg import check_matrix
from probes.probing.base import fitted
from probes.probing.folds import inner_hold_out
from probes.probing.questions import group_codes
from probes.probing.ridge import RidgeProbe

QUIET_ROUNDS = 2
_NEW = 1e-6  # share of a direction outside the span so far that counts as new


def fit_inlp(
    X: Any,
    y: Any,
    *,
    groups: Any = None,
    probe: BaseEstimator | None = None,
    epsilon: float | None = None,
    max_rounds: int = 64,
    seed: int = 0,
) -> Eraser:
    """Iterative null-space projection, in one call: an orthogonal projection about the mean.

    A stratified fifth of the rows (whole groups) is held out. Each round trains `probe` on the others and projects its
    weights out. The rounds end when the held-out accuracy was at most the majority's share + `epsilon` twice in a row;
    the directions of these two rounds say nothing and stay in the states. At last, what still differs between the
    class means of all rows is projected out, so that class means agree exactly (mean projection, Haghighatkhah et al.
    2022): after the rounds alone a probe trained on all rows could still be a little above the majority.

    Parameters
    ----------
    X : (n, d) states. y : (n,) classes. groups : (n,) rows that stay on one side of the hold-out.
    probe : any linear classifier with `coef_` on raw states; `RidgeProbe()` by default.
    epsilon : accuracy above the majority's that counts as none; by default one standard error of the held-out
    accuracy, at least 0.01: below it the rounds would go on about the noise of the hold-out.

    Returns an `Eraser` whose `history` holds the held-out accuracy of every round. Warns when `max_rounds` or the
    width ended it. Raises `InputError` for data that do not fit. See also `fit_leace`, which changes the states much
    less. Paper: Ravfogel et al. 2020 (arXiv 2004.07667).

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 2
    >>> X = rng.normal(size=(200, 6)); X[:, 0] += 4 * y
    >>> eraser = fit_inlp(X, y)
    >>> eraser.history[0] > 0.9, eraser.rank < 6
    (True, True)
    """
    states = check_matrix(X, "X", min_rows=4).astype(np.float64)
    classes, codes = class_codes(y, len(states))
    grouped = group_codes(groups, len(states))
    held = inner_hold_out(codes, grouped, seed)
    train, check = np.flatnonzero(~held), np.flatnonzero(held)
    if len(np.unique(codes[train])) < len(classes):
        raise InputError("a class lies in one group only: INLP cannot hold rows of it out")
    majority = float(np.bincount(codes[check]).max() / len(check))
    if epsilon is None:
        epsilon = max(0.01, float(np.sqrt(majority * (1 - majority) / len(check))))
    units = None if grouped is None else grouped[train]
    mean = states.mean(axis=0)
    basis, history = np.zeros((states.shape[1], 0)), []
    sizes: list[int] = []  # of the basis before each round
    current = states - mean
    while len(history) < max_rounds and basis.shape[1] < states.shape[1]:
        judge = fitted(
            RidgeProbe() if probe is None else probe, current[train], codes[train], units
        )
        history.append(float(np.mean(judge.predict(current[check]) == codes[check])))
        sizes.append(basis.shape[1])
        if len(history) >= QUIET_ROUNDS and max(history[-QUIET_ROUNDS:]) <= majority + epsilon:
            basis = basis[:, : sizes[-QUIET_ROUNDS]]
            break
        grown = _extended(basis, np.atleast_2d(judge.coef_))
        if grown.shape[1] == basis.shape[1]:  # a probe without weights: nothing left to learn
            break
        current = (states - mean) - ((states - mean) @ grown) @ grown.T
        basis = grown
    else:
        warnings.warn(
            f"INLP stopped after {len(history)} rounds and {basis.shape[1]} of {states.shape[1]} dimensions with "
            f"held-out accuracy {history[-1]:.3f} (majority {majority:.3f}): raise max_rounds or epsilon",
            stacklevel=2,
        )
    basis = _extended(basis, _mean_differences(states - mean, codes))
    return Eraser(basis, basis.T.copy(), mean, "inlp", tuple(history))


def _mean_differences(X: FloatArray, codes: NDArray[np.int64]) -> FloatArray:
    """Class means of centred rows, (classes, d)."""
    return np.stack([X[codes == k].mean(axis=0) for k in range(int(codes.max()) + 1)])


def _extended(basis: FloatArray, directions: FloatArray) -> FloatArray:
    """An orthonormal basis (d, r') of the span of `basis` (d, r) and of the rows of `directions`."""
    norms = np.linalg.norm(directions, axis=1)
    for direction, norm in zip(directions, norms, strict=True):
        if norm <= 1e-12 * norms.max():
            continue
        rest = direction / norm
        for _ in range(2):  # twice is enough (Kahan & Parlett)
            rest = rest - basis @ (basis.T @ rest)
        size = float(np.linalg.norm(rest))
        if size > _NEW:
            basis = np.concatenate([basis, (rest / size)[:, None]], axis=1)
    return basis
