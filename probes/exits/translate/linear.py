"""Translators: closed-form linear maps from the pooled state at layer k to the full model's embedding.

A streaming fitter keeps O(d²) statistics in float64 and gives a small frozen map; fitting and applying never mix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.linalg import Standardiser, check_matrix

Array = NDArray[np.floating[Any]]

LAMBDAS: Array = np.logspace(
    -6, 2, 17
)  # per text: the penalty is λ · n on coordinates of unit variance
HOLD_OUT_EVERY = 5
MIN_TEXTS = 10


@dataclass(frozen=True)
class Translator:
    """Frozen map x ↦ standardise(x) · coefficients + intercept, from (n, d) to (n, d_out).

    `penalty` is the λ chosen by held-out reconstruction, `r2` the held-out R² at that λ (1 is perfect, 0 the mean),
    `n` the number of texts of the fit.
    """

    standardiser: Standardiser
    coefficients: Array  # (d, d_out), in standardised coordinates
    intercept: Array  # (d_out,)
    penalty: float
    r2: float
    n: int

    def __call__(self, X: Array) -> Array:
        """Predicted full embeddings (n, d_out), not normalised, for pooled states X (n, d)."""
        if X.ndim != 2 or X.shape[1] != len(self.coefficients):
            raise InputError(
                f"states have shape {X.shape}: (n, {len(self.coefficients)}) is what this translator takes"
            )
        weight, bias = self.as_linear()
        return X @ weight + bias

    def as_linear(self) -> tuple[Array, Array]:
        """The same map as one dense layer: weight (d, d_out) and bias (d_out,) with X @ weight + bias."""
        weight = self.standardiser.inverse_scale[:, None] * self.coefficients
        return weight, self.intercept - self.standardiser.mean @ weight


@dataclass
class _Moments:
    """Running count, means and centred second moments of X and Y (Chan's update: no cancellation)."""

    n: int
    mean_x: Array  # (d,)
    mean_y: Array  # (e,)
    xx: Array  # (d, d)
    xy: Array  # (d, e)
    yy: Array  # (e,) diagonal

    @classmethod
    def empty(cls, d: int, e: int) -> _Moments:
        return cls(0, np.zeros(d), np.zeros(e), np.zeros((d, d)), np.zeros((d, e)), np.zeros(e))

    @classmethod
    def of(cls, X: Array, Y: Array) -> _Moments:
        mean_x, mean_y = X.mean(axis=0), Y.mean(axis=0)
        A, B = X - mean_x, Y - mean_y
        return cls(len(X), mean_x, mean_y, A.T @ A, A.T @ B, (B * B).sum(axis=0))

    def merged(self, other: _Moments) -> _Moments:
        """The moments of both sets of rows together."""
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        n = self.n + other.n
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        share = self.n * other.n / n
        return _Moments(
            n,
            self.mean_x + dx * other.n / n,
            self.mean_y + dy * other.n / n,
            self.xx + other.xx + share * np.outer(dx, dx),
            self.xy + other.xy + share * np.outer(dx, dy),
            self.yy + other.yy + share * dy * dy,
        )

    def standardiser(self) -> Standardiser:
        """Frozen scaling with the same rule for constant coordinates as `Standardiser.fit`."""
        deviation = np.sqrt(np.clip(np.diag(self.xx), 0, None) / self.n)
        return Standardiser.from_moments(self.mean_x, deviation)


class TranslatorFitter:
    """Collects (state, embedding) pairs batch by batch, then solves ridge regression in closed form.

    Every fifth row is held out to choose λ from `LAMBDAS` by reconstruction; the map is then fitted on all rows. One
    eigendecomposition gives the held-out error at every λ. Memory is O(d² + d·d_out) whatever the number of texts.

    Reference: METHODS §6; ridge regression, Hoerl & Kennard 1970; updates, Chan, Golub & LeVeque 1983.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 5)); M = rng.normal(size=(5, 3))
    >>> fitter = TranslatorFitter()
    >>> translator = fitter.update(X[:100], X[:100] @ M + 1).update(X[100:], X[100:] @ M + 1).fit()
    >>> bool(np.allclose(translator(X), X @ M + 1, atol=1e-4)), round(translator.r2, 4), translator.n
    (True, 1.0, 200)
    """

    def __init__(self) -> None:
        self._train: _Moments | None = None
        self._held: _Moments | None = None
        self._seen = 0

    def update(self, X: Array, Y: Array) -> TranslatorFitter:
        """Take in pooled states X (n, d) and the full model's embeddings Y (n, d_out) of the same texts."""
        wide_x = np.asarray(check_matrix(X, "states"), dtype=np.float64)
        wide_y = np.asarray(check_matrix(Y, "embeddings"), dtype=np.float64)
        if len(wide_x) != len(wide_y):
            raise InputError(
                f"{len(wide_x)} states but {len(wide_y)} embeddings: one of each per text is needed"
            )
        train = self._train or _Moments.empty(wide_x.shape[1], wide_y.shape[1])
        held = self._held or _Moments.empty(wide_x.shape[1], wide_y.shape[1])
        if train.xy.shape != (wide_x.shape[1], wide_y.shape[1]):
            raise InputError(
                f"a batch maps {wide_x.shape[1]} → {wide_y.shape[1]}, earlier ones {train.xy.shape}"
            )
        out = (self._seen + np.arange(len(wide_x))) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
        if (~out).any():
            train = train.merged(_Moments.of(wide_x[~out], wide_y[~out]))
        if out.any():
            held = held.merged(_Moments.of(wide_x[out], wide_y[out]))
        self._train, self._held = train, held
        self._seen += len(wide_x)
        return self

    def fit(self) -> Translator:
        """The frozen map; raises `InputError` with fewer than ten texts."""
        if self._train is None or self._held is None or self._seen < MIN_TEXTS:
            raise InputError(
                f"{self._seen} texts came to fit a translator: at least {MIN_TEXTS} are needed; name more with --texts"
            )
        errors = _held_out_errors(self._train, self._held)
        best = int(np.argmin(errors))
        total = float(self._held.yy.sum())
        r2 = 1.0 - float(errors[best]) / total if total > 0 else 0.0
        whole = self._train.merged(self._held)
        scaling = whole.standardiser()
        gram, cross = _standardised(whole, scaling)
        ridge = gram + LAMBDAS[best] * whole.n * np.eye(len(gram))
        coefficients = np.linalg.solve(ridge, cross)
        return Translator(scaling, coefficients, whole.mean_y, float(LAMBDAS[best]), r2, whole.n)


def _standardised(moments: _Moments, scaling: Standardiser) -> tuple[Array, Array]:
    """Gram matrix (d, d) and cross products (d, e) of standardised X with centred Y."""
    scale = scaling.inverse_scale
    return moments.xx * scale[:, None] * scale, moments.xy * scale[:, None]


def _held_out_errors(train: _Moments, held: _Moments) -> Array:
    """Σ‖y − ŷ‖² over the held-out rows at every λ, from moments alone: (λ,).

    In the eigenbasis V of the training Gram, ŷ = A·diag(f)·B with f = 1/(s + λn), B = Vᵀ·cross; the held-out error
    is then a quadratic form in f, plus what the difference of the two sets' means adds.
    """
    scaling = train.standardiser()
    gram, cross = _standardised(train, scaling)
    values, vectors = np.linalg.eigh(gram)
    values = np.clip(values, 0, None)
    B = vectors.T @ cross  # (d, e)
    held_gram, held_cross = _standardised(held, scaling)
    shift_x = vectors.T @ ((held.mean_x - train.mean_x) * scaling.inverse_scale)  # (d,)
    shift_y = held.mean_y - train.mean_y  # (e,)
    G = vectors.T @ held_gram @ vectors + held.n * np.outer(shift_x, shift_x)
    C = vectors.T @ held_cross + held.n * np.outer(shift_x, shift_y)
    constant = float(held.yy.sum() + held.n * (shift_y @ shift_y))
    quadratic = G * (B @ B.T)
    linear = (B * C).sum(axis=1)
    errors = [
        constant - 2 * (f @ linear) + f @ quadratic @ f
        for f in 1.0 / (values + np.multiply.outer(LAMBDAS, train.n)[:, None])
    ]
    return np.asarray(errors)


def fit_translator(X: Array, Y: Array, rows: int = 8192) -> Translator:
    """A translator from states X (n, d) to embeddings Y (n, d_out), taken in blocks of `rows`."""
    fitter = TranslatorFitter()
    for low in range(0, len(X), rows):
        fitter.update(X[low : low + rows], Y[low : low + rows])
    return fitter.fit()
