"""Intrinsic dimension by the ratio of the distances to the two nearest neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from probes.errors import DoesNotApply
from probes.layers.states import States
from probes.registry import Measure, register_layer_metric

FloatArray = NDArray[np.floating[Any]]
ROWS = 4096
KEPT = 0.9  # share of the rows, smallest ratios first, that the line is fitted to


def _log_ratios(X: Any) -> tuple[FloatArray, NDArray[np.int64]]:
    """log(r₂ / r₁) of every different row, (m,), and the number of its row for each row of X, (n,)."""
    states = States.of(X)
    points, number = np.unique(states.array, axis=0, return_inverse=True)
    m = len(points)
    if m < 4:
        raise DoesNotApply(
            f"intrinsic dimension of {m} different rows ({states.n} in all): at least 4 are needed"
        )
    points = points.astype(np.float64) / states.scale
    points -= points.mean(axis=0)
    search = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(points)
    near = search.kneighbors(return_distance=False)  # (m, 2), the row itself left out
    # again by differences: from the search's Gram matrix small distances would be rounding
    squares = np.stack([np.square(points - points[near[:, j]]).sum(axis=1) for j in range(2)])
    squares.sort(axis=0)
    if not squares.all():
        raise DoesNotApply(
            "intrinsic dimension: two rows differ by less than floating point resolves"
        )
    return np.log(squares[1] / squares[0]) / 2, number.reshape(-1)


def _line(m: int) -> FloatArray:
    """−log(1 − F) at the kept ratios, F = 0, 1/m, …"""
    return -np.log1p(-np.arange(int(m * KEPT)) / m)


def _influence(X: Any) -> FloatArray:
    """Ratios taken as independent draws: of Σ Q(p) y(p) / Σ Q(p)², two sums over order statistics.

    Of ∫ h(Q(p)) J(p) dp over p < 0.9 the influence at x is −∫ (1{x ≤ t} − F(t)) J(F(t)) h'(t) dt.
    """
    logs, number = _log_ratios(X)
    m = len(logs)
    order = np.argsort(logs)
    kept = logs[order][: int(m * KEPT)]
    line = _line(m)
    value = (kept @ line) / (kept @ kept)
    level = np.arange(1, len(kept)) / m
    # h(x) J(p) = x·y(p) − value·x²: the sum whose zero the estimate is
    steps = np.diff(kept) * line[1:] - value * np.diff(np.square(kept))
    after = np.append(np.cumsum(steps[::-1])[::-1], 0.0)  # from gap k on
    own = np.full(m, float(level @ steps))
    own[: len(kept)] -= after
    shares = np.empty(m)
    shares[order] = own / (kept @ kept)
    repeats = np.bincount(number, minlength=m)
    return (shares / repeats)[number]


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
    """TwoNN: slope through the origin of −log(1 − F) on log(r₂/r₁), F the share of rows with a smaller ratio.

    r₁ and r₂ are the distances of a row of X (n, d) to its nearest and second nearest; the largest
    tenth of the ratios is left out, as in the paper. Rows that are repeated exactly count once. Above
    0; dimensions above about 20 are underestimated. n² work, so tables use a seeded sample of 4,096
    rows, and fewer rows look at the surface from farther away: compare only at equal n.

    Raises `DoesNotApply` for fewer than 4 different rows and where all ratios are 1. Paper: Facco et
    al. 2017. See also `effective_rank` (of a linear surface).

    >>> import numpy as np
    >>> cube = np.random.default_rng(0).uniform(size=(1000, 2))
    >>> 1.8 < intrinsic_dimension(cube @ np.ones((2, 5)) + cube @ np.eye(2, 5)) < 2.2
    True
    """
    logs = np.sort(_log_ratios(X)[0])
    line = _line(len(logs))
    kept = logs[: len(line)]
    if kept @ kept < 1e-20:
        raise DoesNotApply(
            "intrinsic dimension: every row has its two nearest at the same distance"
        )
    return float((kept @ line) / (kept @ kept))
