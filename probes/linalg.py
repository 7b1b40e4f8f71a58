"""Linear algebra that probes, translators and layer metrics share; float64 inside.

Transformers have dimensions whose standard deviation is 1e-33 (MiniLM's last layer): dividing by it
would turn rounding noise into unit variance, so dimensions below a *relative* floor count as
constants and stay at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError, NonFiniteError

Array = NDArray[np.floating[Any]]

RELATIVE_FLOOR = 1e-6


@dataclass(frozen=True)
class Standardiser:
    """Frozen centring and scaling: `transform(X) = (X − mean) · inverse_scale`."""

    mean: Array  # (d,)
    inverse_scale: Array  # (d,), 0 for constant dimensions

    @classmethod
    def fit(cls, X: Array, scale: bool = True) -> Standardiser:
        """Mean and standard deviation of the rows of X (n, d).

        Dimensions whose spread, relative to the larger of the typical spread and their own magnitude, is below 1e-6
        are constants.
        """
        wide = np.asarray(X, dtype=np.float64)
        mean = wide.mean(axis=0)
        if not scale:
            return cls(mean, np.ones_like(mean))
        return cls.from_moments(mean, wide.std(axis=0))

    @classmethod
    def from_moments(cls, mean: Array, deviation: Array) -> Standardiser:
        """The same from the mean (d,) and standard deviation (d,) of rows that need not be at hand."""
        typical = float(np.median(deviation[deviation > 0])) if np.any(deviation > 0) else 0.0
        alive = deviation > RELATIVE_FLOOR * np.maximum(typical, np.abs(mean))
        return cls(mean, np.divide(1.0, deviation, out=np.zeros_like(deviation), where=alive))

    def transform(self, X: Array) -> Array:
        return (np.asarray(X, dtype=np.float64) - self.mean) * self.inverse_scale


def normalise_rows(X: Array) -> Array:
    """Rows of X (n, d) at unit length; zero rows stay zero."""
    norms = np.linalg.norm(X, axis=-1, keepdims=True)
    return np.divide(X, norms, out=np.zeros_like(X), where=norms > 0)


def check_matrix(X: Any, name: str = "X", *, min_rows: int = 1) -> Array:
    """X as a finite 2-D float array; errors say what came instead, and which row is not finite."""
    array = np.asarray(X)
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise InputError(
            f"{name} has shape {array.shape} and type {array.dtype}: a numeric (n, d) array is needed"
        )
    if array.shape[0] < min_rows or array.shape[1] < 1:
        raise InputError(
            f"{name} has shape {array.shape}: at least {min_rows} rows and one column are needed"
        )
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise NonFiniteError(
            f"{name} holds NaN or infinity in row {int(np.flatnonzero(~finite)[0])} "
            f"({int((~finite).sum())} of {len(array)} rows)"
        )
    return array


def rounding_left(X: Array) -> float:
    """Norm that equal rows of X (n, d), scaled to a largest number of 1, can keep after centring: rounding alone.

    By the precision that X came in: what is equal but for the last bits of float32 is equal.
    """
    precision = max(float(np.finfo(X.dtype).eps), 4 * float(np.finfo(np.float64).eps))
    return 2 * precision * float(np.sqrt(X.size))


def singular_values(X: Array, center: bool) -> Array:
    """Singular values of X (n, d) in float64, largest first; not by a Gram matrix: small ones stay exact."""
    wide = np.asarray(X, dtype=np.float64)
    if center:
        wide = wide - wide.mean(axis=0)
    return np.linalg.svd(wide, compute_uv=False)


def whitener(X: Array) -> tuple[Array, Array, Array]:
    """Mean (d,), directions (d, d) by their spread, largest first, and inverse spreads (d,) of the rows of X (n, d).

    (X − mean) @ directions · inverse has the identity as its covariance. The covariance is shrunk towards a multiple
    of the identity (Ledoit & Wolf 2004), or directions that few rows show would be blown up. `DoesNotApply` where all
    rows are equal. Paper: Su et al. 2021 (arXiv 2103.15316).

    >>> X = np.random.default_rng(0).normal(size=(2000, 2)) * [1, 10]
    >>> mean, directions, inverse = whitener(X)
    >>> ((X - mean) @ directions * inverse).std(axis=0).round(1).tolist(), abs(directions[1, 0]).round(2).item()
    ([1.0, 1.0], 1.0)
    """
    from sklearn.covariance import LedoitWolf

    states = np.asarray(check_matrix(X, min_rows=2), dtype=np.float64)
    fitted: Any = LedoitWolf().fit(states)
    values, vectors = np.linalg.eigh(fitted.covariance_)
    if values[-1] <= 0:
        raise DoesNotApply(f"whitening of {len(states)} texts: all states are equal")
    spread = np.sqrt(np.maximum(values, 1e-12 * values[-1]))
    return states.mean(axis=0), vectors[:, ::-1], 1 / spread[::-1]
