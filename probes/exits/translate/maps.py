"""Linear maps from moments: ridge, ridge of reduced rank, orthogonal. Each has one knob, settled on held-out texts.

A map gets the moments of the texts it is fitted on and gives, for every setting of its knob, what the coefficients and
the held-out error are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.errors import unknown_name
from probes.exits.translate.moments import Moments
from probes.linalg import Standardiser

Array = NDArray[np.floating[Any]]
Kind = Literal["ridge", "reduced-rank", "orthogonal"]
KINDS: tuple[Kind, ...] = ("ridge", "reduced-rank", "orthogonal")

LAMBDAS: Array = np.logspace(
    -6, 2, 17
)  # per text: the penalty is λ · n on coordinates of unit variance


@dataclass(frozen=True)
class Knob:
    """What held-out reconstruction settled: λ of a ridge, rank of its image (None: all), and the error there."""

    penalty: float
    rank: int | None
    error: float  # Σ‖y − ŷ‖² over the held-out rows


def scaling_of(moments: Moments, kind: Kind) -> Standardiser:
    """Unit variance for a ridge; for an orthogonal map, which must not distort, centring alone."""
    if kind == "orthogonal":
        return Standardiser(moments.mean_x, np.ones_like(moments.mean_x))
    return moments.standardiser()


def settle(train: Moments, held: Moments, kind: Kind) -> Knob:
    """The knob with the smallest error on `held` of the map fitted on `train`."""
    if kind not in KINDS:
        raise unknown_name("map", kind, KINDS)
    if kind == "orthogonal":
        return Knob(0.0, None, held_out_error(train, held, kind, coefficients(train, kind)))
    errors = held_out_errors(train, held)
    best = int(np.argmin(errors))
    penalty = float(LAMBDAS[best])
    if kind == "ridge":
        return Knob(penalty, None, float(errors[best]))
    wide = coefficients(train, "ridge", penalty)
    image = image_basis(train, wide)
    found = [
        Knob(penalty, r, held_out_error(train, held, kind, _projected(wide, image, r)))
        for r in ranks_to_try(*wide.shape)
    ]
    return min(found, key=lambda knob: knob.error)


def coefficients(
    moments: Moments, kind: Kind, penalty: float = 0.0, rank: int | None = None
) -> Array:
    """The map (d, e) in the coordinates of `scaling_of`: ŷ = scaled(x) · map + mean of y."""
    gram, cross = standardised(moments, scaling_of(moments, kind))
    if kind == "orthogonal":
        U, strength, Vt = np.linalg.svd(cross, full_matrices=False)
        W = (
            U @ Vt
        )  # (d, e), the nearest to orthogonal; one scale keeps lengths apart from directions
        spread = float(np.einsum("ij,ij->", W, gram @ W))
        return W * (float(strength.sum()) / spread if spread > 0 else 0.0)
    wide = np.linalg.solve(gram + penalty * moments.n * np.eye(len(gram)), cross)
    return wide if rank is None else _projected(wide, image_basis(moments, wide), rank)


def image_basis(moments: Moments, wide: Array) -> Array:
    """Directions of the embedding space by how much variance the map `wide` explains in each, largest first: (e, e).

    Projecting a least-squares map on the first r of them is the best map of rank r (Izenman 1975); for a ridge the
    penalty counts as variance (Mukherjee & Zhu 2011), which is left out here: r is settled on held-out texts anyway.
    """
    gram, _ = standardised(moments, moments.standardiser())
    _, vectors = np.linalg.eigh(wide.T @ gram @ wide)
    return vectors[:, ::-1]


def ranks_to_try(d: int, e: int) -> list[int]:
    """Powers of two up to what a map (d, e) can have, and that itself.

    >>> ranks_to_try(40, 24)
    [8, 16, 24]
    """
    most = min(d, e)
    return [2**p for p in range(3, 64) if 2**p < most] + [most]


def _projected(wide: Array, image: Array, rank: int) -> Array:
    basis = image[:, :rank]
    return wide @ basis @ basis.T


def standardised(moments: Moments, scaling: Standardiser) -> tuple[Array, Array]:
    """Gram matrix (d, d) and cross products (d, e) of scaled X with centred Y."""
    scale = scaling.inverse_scale
    return moments.xx * scale[:, None] * scale, moments.xy * scale[:, None]


def held_out_error(train: Moments, held: Moments, kind: Kind, wide: Array) -> float:
    """Σ‖y − ŷ‖² over the held-out rows of the map `wide` fitted on `train`, from moments alone."""
    scaling = scaling_of(train, kind)
    gram, cross = standardised(held, scaling)
    shift_x = (held.mean_x - train.mean_x) * scaling.inverse_scale
    shift = held.mean_y - train.mean_y - shift_x @ wide  # of the mean residual
    within = held.yy.sum() - 2 * np.einsum("ij,ij->", wide, cross)
    return float(within + np.einsum("ij,ij->", wide, gram @ wide) + held.n * (shift @ shift))


def held_out_errors(train: Moments, held: Moments) -> Array:
    """`held_out_error` of the ridge at every λ: (λ,).

    In the eigenbasis V of the training Gram, ŷ = A·diag(f)·B with f = 1/(s + λn), B = Vᵀ·cross; the held-out error
    is then a quadratic form in f, plus what the difference of the two sets' means adds.
    """
    scaling = train.standardiser()
    gram, cross = standardised(train, scaling)
    values, vectors = np.linalg.eigh(gram)
    values = np.clip(values, 0, None)
    B = vectors.T @ cross  # (d, e)
    held_gram, held_cross = standardised(held, scaling)
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
