"""Intrinsic dimension by the ratio of the distances to the two nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from sklearn.neighbors import NearestNeighbors

from probes.errors import DoesNotApply
from probes.layers.states import States
from probes.registry import Measure, register_layer_metric

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
ROWS = 4096
TWINS = (
    1e-5  # rows closer than this, against the states' spread, are one: batches differ in rounding
)
KEPT = 0.9  # share of the rows, smallest ratios first, that the line is fitted to


@dataclass(frozen=True)
class Neighbours:
    """log(r₂ / r₁) of every different row, (m,), its two nearest (m, 2), and which it is for each row of X, (n,)."""

    log_ratios: FloatArray
    nearest: IntArray
    number: IntArray

    @property
    def kept(self) -> FloatArray:
        """The ratios that the line is fitted to, smallest first."""
        return np.sort(self.log_ratios)[: int(len(self.log_ratios) * KEPT)]

    @property
    def line(self) -> FloatArray:
        """−log(1 − F) at the kept ratios, F = 1/m, 2/m, …"""
        m = len(self.log_ratios)
        return -np.log1p(-np.arange(1, int(m * KEPT) + 1) / m)


def _search(states: States) -> Neighbours:
    points, number = np.unique(states.array, axis=0, return_inverse=True)
    number = number.reshape(-1)
    points = points.astype(np.float64) / states.scale
    points -= points.mean(axis=0)
    same = TWINS**2 * np.square(points).sum(axis=1).mean()
    while True:
        m = len(points)
        if m < 4:
            raise DoesNotApply(
                f"intrinsic dimension of {m} different rows ({states.n} in all): at least 4 are needed"
            )
        near, squares = _two_nearest(points)
        first = np.where((squares[:, 0] <= same) & (near[:, 0] < np.arange(m)), near[:, 0], -1)
        if (first < 0).all():
            return Neighbours(np.log(squares[:, 1] / squares[:, 0]) / 2, near, number)
        stays = first < 0
        heir = np.where(stays, np.arange(m), first)
        while not stays[heir].all():
            heir = heir[heir]
        points, number = points[stays], (np.cumsum(stays) - 1)[heir][number]


def _two_nearest(points: FloatArray) -> tuple[IntArray, FloatArray]:
    """The two nearest other rows of each row, and their squared distances, (m, 2) each, the nearer first."""
    search = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(points)
    near = search.kneighbors(return_distance=False)
    # again by differences: from the search's Gram matrix small distances would be rounding
    squares = np.stack([np.square(points - points[near[:, j]]).sum(axis=1) for j in range(2)], 1)
    order = np.argsort(squares, axis=1)
    return np.take_along_axis(near, order, 1), np.take_along_axis(squares, order, 1)


def _neighbours(X: Any) -> Neighbours:
    states = States.of(X)
    return states.once("neighbours", lambda: _search(states))


def _influence(X: Any) -> FloatArray:
    """Each row's ratio as a draw, (n,), made larger by what rows that are neighbours have in common.

    The estimate is the zero of ∫ (Q(p) y(p) − value · Q(p)²) dp over p < 0.9; of ∫ h(Q(p)) J(p) dp the
    influence at x is −∫ (1{x ≤ t} − F(t)) J(F(t)) h'(t) dt. Ratios of neighbours are not independent:
    all shares are scaled so that their squares sum to Σ I_i I_j over rows i = j or i next to j.
    """
    found = _neighbours(X)
    kept, line, m = found.kept, found.line, len(found.log_ratios)
    value = (kept @ line) / (kept @ kept)
    steps = np.diff(kept) * line[:-1] - value * np.diff(np.square(kept))
    own = np.full(m, float(np.arange(1, len(kept)) / m @ steps))
    own[: len(kept)] -= np.append(np.cumsum(steps[::-1])[::-1], 0.0)  # the gaps from one's own on
    shares = np.empty(m)
    shares[np.argsort(found.log_ratios)] = own / (kept @ kept)
    shares *= _dependence(shares, found.nearest)
    return (shares / np.bincount(found.number, minlength=m))[found.number]


def _dependence(shares: FloatArray, nearest: IntArray) -> float:
    """√ of Σ I_i I_j over rows i = j or i next to j, over Σ I_i²; at least 1."""
    m = len(shares)
    pairs = (np.ones(2 * m), (np.repeat(np.arange(m), 2), nearest.ravel()))
    arrows = coo_matrix(pairs, shape=(m, m)).tocsr()
    next_to = arrows.maximum(arrows.T)
    own = float(shares @ shares)
    return float(np.sqrt(max(1.0, 1 + shares @ (next_to @ shares) / own))) if own else 1.0


@register_layer_metric(
    Measure(
        "intrinsic_dimension",
        "Intrinsic dimension",
        "dimensions",
        0.0,
        None,
        "none",
        "Dimension of the surface on which neighbouring states lie, from the distances to the two nearest.",
        "Facco et al. 2017 (TwoNN, arXiv 1803.06992)",
    ),
    {"rotation", "scale", "translation", "permutation"},
    _influence,
    limit=ROWS,
)
def intrinsic_dimension(X: Any) -> float:
    """TwoNN: slope through the origin of −log(1 − F) on log(r₂/r₁), F the share of rows with no larger ratio.

    r₁ and r₂ are the distances of a row of X (n, d) to its nearest and second nearest; the largest
    tenth of the ratios is left out, as in the paper. Rows that are repeated, but for rounding (10⁻⁵
    of the spread), count once. Above 0; dimensions above about 20 are underestimated. n² work, so
    tables use a seeded sample of 4,096 rows, and fewer rows look at the surface from farther away:
    compare only at equal n.

    Raises `DoesNotApply` for fewer than 4 different rows and where all ratios are 1. Paper: Facco et
    al. 2017. See also `effective_rank` (of a linear surface).

    >>> import numpy as np
    >>> cube = np.random.default_rng(0).uniform(size=(1000, 2))
    >>> 1.8 < intrinsic_dimension(cube @ np.ones((2, 5)) + cube @ np.eye(2, 5)) < 2.2
    True
    """
    found = _neighbours(X)
    kept = found.kept
    if kept @ kept < 1e-20:
        raise DoesNotApply(
            "intrinsic dimension: every row has its two nearest at the same distance"
        )
    return float((kept @ found.line) / (kept @ kept))
