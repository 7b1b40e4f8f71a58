"""Uniformity on the unit sphere, and alignment of two views: the two halves of a contrastive loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.layers.states import States
from probes.layers.views import unit_views
from probes.registry import Measure, register_layer_metric, register_pair_metric

FloatArray = NDArray[np.floating[Any]]
BLOCK = 1024  # rows of pairwise cosines at a time
ROWS = 4096
PAPER = "Wang & Isola 2020 (arXiv 2005.10242)"


def _kernel_means(X: Any) -> FloatArray:
    """Mean of exp(−2 ‖u_i − u_j‖²) over the other rows j, (n,)."""
    states = States.of(X)
    return states.once("kernel means", lambda: _means(states.units("uniformity")))


def _means(units: FloatArray) -> FloatArray:
    n = len(units)
    found = np.empty(n)
    for first in range(0, n, BLOCK):
        cosines = units[first : first + BLOCK] @ units.T
        np.exp(4 * np.minimum(cosines, 1.0) - 4, out=cosines)
        found[first : first + BLOCK] = (cosines.sum(axis=1) - 1) / (n - 1)
    return np.maximum(found, np.exp(-8.0))  # the least there is; taking off the row itself rounds


def _influence(X: Any) -> FloatArray:
    means = _kernel_means(X)
    return 2 * (means / means.mean() - 1) / len(means)


@register_layer_metric(
    Measure(
        "uniformity",
        "Uniformity",
        "",
        -8.0,
        0.0,
        "down",
        "Log of the mean Gaussian kernel between different embeddings at unit length: 0 when all are the same, "
        "towards −4 when spread evenly in many dimensions.",
        PAPER,
    ),
    {"rotation", "scale", "permutation"},
    _influence,
    limit=ROWS,
)
def uniformity(X: Any) -> float:
    """log of the mean of exp(−2 ‖u_i − u_j‖²) over all pairs of different rows of X (n, d) at unit length.

    In [−8, 0], lower is more uniform; evenly spread directions in many dimensions give −4. All
    pairs, in blocks: n² work, so tables use a seeded sample of 4,096 rows.

    Raises `DoesNotApply` for one row and for rows of zero length. Paper: Wang & Isola 2020 (t = 2).
    See also `alignment`, `anisotropy`.

    >>> import numpy as np
    >>> round(uniformity(np.eye(4)), 6)
    -4.0
    >>> round(uniformity([[1.0, 0], [-1, 0]]), 6)
    -8.0
    """
    return float(min(0.0, np.log(_kernel_means(X).mean())))


def _distances(A: Any, B: Any) -> FloatArray:
    first, second = unit_views(A, B, "alignment")
    return np.square(first - second).sum(axis=1)


def _alignment_influence(A: Any, B: Any) -> FloatArray:
    distances = _distances(A, B)
    return (distances - distances.mean()) / len(distances)


@register_pair_metric(
    Measure(
        "alignment",
        "Alignment",
        "",
        0.0,
        4.0,
        "down",
        "Mean squared distance between the embeddings, at unit length, of two views of a text; 0 when the views "
        "are the same.",
        PAPER,
    ),
    _alignment_influence,
)
def alignment(A: Any, B: Any) -> float:
    """Mean of ‖a_i − b_i‖² over the rows of A and B (n, d) at unit length; row i of both is one text.

    In [0, 4], lower is more alike. A layer where everything is alike is aligned too: read it beside
    `uniformity`.

    Raises `DoesNotApply` for one row and for rows of zero length, `InputError` for shapes that
    differ. Paper: Wang & Isola 2020 (α = 2). See also `infonce`.

    >>> alignment([[1.0, 0], [0, 1]], [[2.0, 0], [0, -1]])
    2.0
    """
    return float(min(4.0, _distances(A, B).mean()))
