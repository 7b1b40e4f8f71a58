"""LEACE: the smallest change of the states after which no linear probe reads the concept better than a constant.

Belrose et al. 2023 (arXiv 2306.03819): among all affine maps that make the cross-covariance of states and concept
vanish (which, for classes, makes all class means equal), x ↦ x − W⁺ U Uᵀ W (x − μ) changes x least, in the mean square
and in every other quadratic norm; W = Σ^{-1/2} whitens the states and U spans the columns of W Σ_xz.

Computed in standardised coordinates: the map is the same whichever whitening is used, and dimensions of very
different scale (usual in transformers) would otherwise drown the small ones in rounding. The reference package can
also hold the trace of the covariance down; that mixes in a map that does not erase, and is left out here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.erasure.eraser import Eraser, FloatArray, check_rank
from probes.errors import InputError
from probes.linalg import check_matrix

BLOCK_ROWS = 8192  # rows widened to float64 at a time
_NEGLIGIBLE = 1e-10  # correlation of a whitened direction with the concept that counts as none


@dataclass(frozen=True)
class _Whitening:
    """x − μ ↦ (x − μ) @ down.T is white, (m,); `up` (d, m) leads back. m is the rank of the covariance."""

    down: FloatArray  # (m, d)
    up: FloatArray  # (d, m)


class LeaceFitter:
    """Streams states and classes into O(d²) statistics, in float64; `eraser()` gives the frozen map.

    Parameters
    ----------
    d : width of the states. k : number of classes, or of columns of a numeric concept.
    shrinkage : s in [0, 1]; the covariance of the standardised states is replaced by (1 − s) Σ + s I. "auto" takes
    the s of Chen et al. 2010 (OAS), near 0 for many rows per dimension. Class means of the rows seen agree exactly
    for every s. With s = 0 the change of the rows seen is the smallest possible, but with fewer rows than dimensions
    the map then reads their noise, and unseen rows are changed more than they need to be.

    Raises `InputError` for rows that do not fit and for fewer than two rows, `NonFiniteError` for NaN.

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(100) % 2
    >>> X = rng.normal(size=(100, 5)) + 3 * y[:, None]
    >>> fitter = LeaceFitter(5, 2)
    >>> for part in (slice(0, 60), slice(60, 100)):
    ...     fitter = fitter.update(X[part], y[part])
    >>> cleaned = fitter.eraser()(X)
    >>> bool(np.allclose(cleaned[y == 0].mean(axis=0), cleaned[y == 1].mean(axis=0)))
    True
    """

    def __init__(self, d: int, k: int, *, shrinkage: float | Literal["auto"] = "auto") -> None:
        if d < 1 or k < 1:
            raise InputError(f"LeaceFitter(d={d}, k={k}): both must be 1 or more")
        if shrinkage != "auto" and not (
            isinstance(shrinkage, (int, float)) and 0 <= shrinkage <= 1
        ):
            raise InputError(
                f"shrinkage is {shrinkage!r}: a number from 0 to 1 or 'auto' is needed"
            )
        self.d, self.k, self.shrinkage = d, k, shrinkage
        self.n = 0
        self.mean = np.zeros(d)
        self._mean_z = np.zeros(k)
        self._xx = np.zeros((d, d))  # summed outer products about the means
        self._xz = np.zeros((d, k))

    def update(self, X: Any, y: Any) -> LeaceFitter:
        """Add states X (n, d) with class codes y (n,) in 0…k−1, or real values (n,) or (n, k) to be decorrelated."""
        states = check_matrix(_as_array(X), "X")
        if states.shape[1] != self.d:
            raise InputError(f"X has {states.shape[1]} columns, this fitter was made for {self.d}")
        concept = self._concept(_as_array(y), len(states))
        self.__dict__.pop("_whitening", None)
        for start in range(0, len(states), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            self._add(states[rows].astype(np.float64), concept[rows])
        return self

    def _concept(self, y: NDArray[Any], n: int) -> FloatArray:
        if y.shape[:1] != (n,) or y.dtype.kind not in "fiub":
            raise InputError(f"y has shape {y.shape} and type {y.dtype}: {n} numbers are needed")
        if y.ndim == 1 and y.dtype.kind in "iub":
            codes = y.astype(np.int64)
            if len(codes) and not 0 <= codes.min() <= codes.max() < self.k:
                raise InputError(
                    f"class codes {codes.min()} to {codes.max()} came: 0 to {self.k - 1} are allowed"
                )
            return np.eye(self.k)[codes]
        values = check_matrix(y.reshape(n, -1), "y")
        if values.shape[1] != self.k:
            raise InputError(f"y has {values.shape[1]} columns, this fitter was made for {self.k}")
        return values.astype(np.float64)

    def _add(self, X: FloatArray, Z: FloatArray) -> None:
        """Moments of a union from those of its parts (Chan, Golub & LeVeque 1979)."""
        m, total = len(X), self.n + len(X)
        mean_x, mean_z = X.mean(axis=0), Z.mean(axis=0)
        centred = X - mean_x
        shift_x, shift_z = mean_x - self.mean, mean_z - self._mean_z
        weight = self.n * m / total
        self._xx += centred.T @ centred + weight * np.outer(shift_x, shift_x)
        self._xz += centred.T @ (Z - mean_z) + weight * np.outer(shift_x, shift_z)
        self.mean += m / total * shift_x
        self._mean_z += m / total * shift_z
        self.n = total

    @cached_property
    def _whitening(self) -> _Whitening:
        if self.n < 2:
            raise InputError(f"{self.n} rows came: an eraser needs at least two")
        covariance = self._xx / self.n
        deviation = np.sqrt(np.diag(covariance))
        # a constant keeps a spread of a few roundings of its own value
        alive = deviation > 1e-14 * np.abs(self.mean)
        scale = deviation[alive]
        correlation = covariance[np.ix_(alive, alive)] / np.outer(scale, scale)
        values, vectors = np.linalg.eigh(_shrunk(correlation, self.n, self.shrinkage))
        floor = values[-1:] * len(values) * np.finfo(np.float64).eps
        keep = values > floor
        root, axes = np.sqrt(values[keep]), vectors[:, keep]
        down, up = np.zeros((len(root), self.d)), np.zeros((self.d, len(root)))
        down[:, alive] = (axes / scale[:, None] / root).T
        up[alive] = axes * scale[:, None] * root
        return _Whitening(down, up)

    def eraser(self) -> Eraser:
        """The eraser of everything seen so far; its rank is at most k − 1 for classes, k for values."""
        white, cross = self._whitening, self._xz / self.n
        axes, sizes, mixes = np.linalg.svd(white.down @ cross, full_matrices=False)
        keep = sizes > _NEGLIGIBLE
        # up @ axes, written so that what is removed has the span of `cross` to the last bit: class means then agree
        # as well as the arithmetic allows, however badly the covariance is conditioned
        left = cross @ mixes[keep].T / sizes[keep]
        return Eraser(left, axes[:, keep].T @ white.down, self.mean.copy(), "leace")

    def random_eraser(self, rank: int, seed: int = 0) -> Eraser:
        """The control: an oblique projection of the same kind along `rank` random directions of the whitened states.

        It is what LEACE would give for a concept that has nothing to do with the states, such as shuffled labels.
        """
        white = self._whitening
        check_rank(rank, len(white.down))
        noise = np.random.default_rng(seed).normal(size=(len(white.down), rank))
        axes = np.linalg.qr(noise)[0]
        return Eraser(white.up @ axes, axes.T @ white.down, self.mean.copy(), "random")


def _shrunk(correlation: FloatArray, n: int, shrinkage: float | str) -> FloatArray:
    """(1 − s) R + s I for a correlation matrix R (d, d) of n rows; trace of R is d, so the target is the identity."""
    d = len(correlation)
    if shrinkage == "auto":
        # oracle approximating shrinkage (Chen, Wiesel, Eldar & Hero 2010, eq. 23) with tr R = d
        square = float(np.square(correlation).sum())
        top, bottom = (1 - 2 / max(d, 2)) * square + d * d, (n + 1 - 2 / max(d, 2)) * (square - d)
        s = min(1.0, top / bottom) if bottom > 0 else 1.0
    else:
        s = float(shrinkage)
    return (1 - s) * correlation + s * np.eye(d)


def fit_leace(X: Any, y: Any, *, shrinkage: float | Literal["auto"] = "auto") -> Eraser:
    """LEACE of states X (n, d) and classes y (n,) of any type, in one call; see `LeaceFitter`.

    >>> X = np.array([[0.0, 0], [1, 1], [4, 0], [5, 1]])
    >>> eraser = fit_leace(X, ["cold", "cold", "warm", "warm"])
    >>> eraser.rank
    1
    """
    states = check_matrix(_as_array(X), "X")
    classes, codes = class_codes(y, len(states))
    return (
        LeaceFitter(states.shape[1], len(classes), shrinkage=shrinkage)
        .update(states, codes)
        .eraser()
    )


def class_codes(y: Any, n: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Classes in sorted order and a code (n,) per row; `InputError` for fewer than two classes."""
    values = np.asarray(_as_array(y))
    if values.shape != (n,):
        raise InputError(f"y has shape {values.shape}, ({n},) is needed: one class per row")
    classes, codes = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"all {n} rows have the class {classes[0] if n else None!r}: two are needed to erase a concept"
        )
    return classes, codes.astype(np.int64)


def _as_array(values: Any) -> NDArray[Any]:
    """Arrays as they are, tensors of any device and precision as arrays."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (
            values.float() if values.dtype.itemsize < 4 and values.is_floating_point() else values
        )
        return values.numpy()
    return np.asarray(values)
