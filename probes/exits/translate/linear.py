"""Linear translators: closed-form maps from what a cut model has seen to the full model's embedding.

A streaming fitter keeps O(d²) statistics in float64 and gives a small frozen map; fitting and applying never mix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError, unknown_name
from probes.exits.translate import maps
from probes.exits.translate.moments import Moments
from probes.linalg import Standardiser, check_matrix

Array = NDArray[np.floating[Any]]

HOLD_OUT_EVERY = 5
MIN_TEXTS = 10


@dataclass(frozen=True)
class Translator:
    """Frozen map x ↦ standardise(x) · coefficients + intercept, from (n, d) to (n, d_out).

    `penalty` is the λ and `rank` the rank of the map (None: not reduced) chosen by held-out reconstruction, `r2` the
    held-out R² there (1 is perfect, 0 the mean), `n` the number of texts of the fit.
    """

    standardiser: Standardiser
    coefficients: Array  # (d, d_out), in standardised coordinates
    intercept: Array  # (d_out,)
    penalty: float
    r2: float
    n: int
    spread: Array  # (d_out, d_out): mean of ŷŷᵀ over the texts of the fit
    rank: int | None = None

    def __call__(self, X: Array) -> Array:
        """Predicted full embeddings (n, d_out), not normalised, for states X (n, d)."""
        if X.ndim != 2 or X.shape[1] != len(self.coefficients):
            raise InputError(
                f"states have shape {X.shape}: (n, {len(self.coefficients)}) is what this translator takes"
            )
        weight, bias = self._linear
        return X @ weight + bias

    def as_linear(self) -> tuple[Array, Array]:
        """The same map as one dense layer: weight (d, d_out) and bias (d_out,) with X @ weight + bias."""
        return self._linear

    @cached_property
    def _linear(self) -> tuple[Array, Array]:
        weight = self.standardiser.inverse_scale[:, None] * self.coefficients
        return weight, self.intercept - self.standardiser.mean @ weight

    def rotation(self) -> Array:
        """Orthogonal (d_out, d_out) with which `translator(X) @ rotation` keeps most in its first coordinates.

        It changes no inner product of whole embeddings. Cut to m coordinates, the rotated predictions are the best m
        that any rotation gives (principal axes of ŷ, not centred, since cosines are not). Embeddings of the full model
        that cut ones are compared with are rotated by the same.
        """
        _, vectors = np.linalg.eigh(self.spread)
        return vectors[:, ::-1]


class TranslatorFitter:
    """Collects (state, embedding) pairs batch by batch, then solves for the map in closed form.

    Every fifth row is held out to choose the map's knob by reconstruction: λ of `LAMBDAS` for `ridge`, then the rank
    for `reduced-rank`; `orthogonal` (a rotation with one scale, Schönemann 1966) has none. The map is then fitted on
    all rows. One eigendecomposition gives the held-out error at every λ. Memory is O(d² + d·d_out) whatever the number
    of texts.

    Reference: METHODS §6; ridge regression, Hoerl & Kennard 1970; updates, Chan, Golub & LeVeque 1983.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 5)); M = rng.normal(size=(5, 3))
    >>> fitter = TranslatorFitter()
    >>> translator = fitter.update(X[:100], X[:100] @ M + 1).update(X[100:], X[100:] @ M + 1).fit()
    >>> bool(np.allclose(translator(X), X @ M + 1, atol=1e-4)), round(translator.r2, 4), translator.n
    (True, 1.0, 200)
    """

    def __init__(self, kind: maps.Kind = "ridge") -> None:
        if kind not in maps.KINDS:
            raise unknown_name("map", kind, maps.KINDS)
        self.kind: maps.Kind = kind
        self._train: Moments | None = None
        self._held: Moments | None = None
        self._seen = 0

    def update(self, X: Array, Y: Array) -> TranslatorFitter:
        """Take in states X (n, d) and the full model's embeddings Y (n, d_out) of the same texts."""
        wide_x = np.asarray(check_matrix(X, "states"), dtype=np.float64)
        wide_y = np.asarray(check_matrix(Y, "embeddings"), dtype=np.float64)
        if len(wide_x) != len(wide_y):
            raise InputError(
                f"{len(wide_x)} states but {len(wide_y)} embeddings: one of each per text is needed"
            )
        train = self._train or Moments.empty(wide_x.shape[1], wide_y.shape[1])
        held = self._held or Moments.empty(wide_x.shape[1], wide_y.shape[1])
        if train.xy.shape != (wide_x.shape[1], wide_y.shape[1]):
            raise InputError(
                f"a batch maps {wide_x.shape[1]} → {wide_y.shape[1]}, earlier ones {train.xy.shape}"
            )
        out = (self._seen + np.arange(len(wide_x))) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
        if (~out).any():
            train = train.merged(Moments.of(wide_x[~out], wide_y[~out]))
        if out.any():
            held = held.merged(Moments.of(wide_x[out], wide_y[out]))
        self._train, self._held = train, held
        self._seen += len(wide_x)
        return self

    def fit(self) -> Translator:
        """The frozen map; raises `InputError` with fewer than ten texts."""
        if self._train is None or self._held is None or self._seen < MIN_TEXTS:
            raise InputError(
                f"{self._seen} texts came to fit a translator: at least {MIN_TEXTS} are needed; name more with --texts"
            )
        knob = maps.settle(self._train, self._held, self.kind)
        total = float(self._held.yy.sum())
        whole = self._train.merged(self._held)
        scaling = maps.scaling_of(whole, self.kind)
        wide = maps.coefficients(whole, self.kind, knob.penalty, knob.rank)
        gram, _ = maps.standardised(whole, scaling)
        return Translator(
            scaling,
            wide,
            whole.mean_y,
            knob.penalty,
            1.0 - knob.error / total if total > 0 else 0.0,
            whole.n,
            wide.T @ gram @ wide / whole.n + np.outer(whole.mean_y, whole.mean_y),
            knob.rank,
        )


def fit_translator(X: Array, Y: Array, kind: maps.Kind = "ridge", rows: int = 8192) -> Translator:
    """A translator from states X (n, d) to embeddings Y (n, d_out), taken in blocks of `rows`."""
    fitter = TranslatorFitter(kind)
    for low in range(0, len(X), rows):
        fitter.update(X[low : low + rows], Y[low : low + rows])
    return fitter.fit()
