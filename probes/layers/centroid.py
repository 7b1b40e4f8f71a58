"""Distance to the centroid: how far texts stay apart on the unit sphere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.layers.states import States
from probes.registry import Measure, register_layer_metric

FloatArray = NDArray[np.floating[Any]]


def _from_centre(X: Any) -> tuple[FloatArray, FloatArray]:
    """Unit rows less their mean, (n, d), and their lengths, (n,)."""
    units = States.of(X).units("centroid distance")
    away = units - units.mean(axis=0)
    return away, np.linalg.norm(away, axis=1)


def _influence(X: Any) -> FloatArray:
    """The row's own distance less the mean, and its pull on the centroid, over n."""
    away, lengths = _from_centre(X)
    directions = np.divide(
        away, lengths[:, None], out=np.zeros_like(away), where=lengths[:, None] > 0
    )
    return (lengths - lengths.mean() - away @ directions.mean(axis=0)) / len(away)


@register_layer_metric(
    Measure(
        "centroid_distance",
        "Distance to the centroid",
        "",
        0.0,
        1.0,
        "up",
        "Mean distance of the embeddings, at unit length, to their mean; 0 when all are the same.",
        "Zhou et al. 2024 (length-induced collapse, arXiv 2410.24200)",
    ),
    {"rotation", "scale", "permutation"},
    _influence,
)
def centroid_distance(X: Any) -> float:
    """Mean of ‖u_i − ū‖ over the rows u_i of X (n, d) at unit length, ū their mean.

    In [0, 1]: at most √(1 − ‖ū‖²).

    Raises `DoesNotApply` for one row and for rows of zero length. Paper: Zhou et al. 2024, who use
    it to show that longer texts lie closer together. See also `anisotropy`.

    >>> round(centroid_distance([[1.0, 0], [-3, 0]]), 6)
    1.0
    >>> round(centroid_distance([[1.0, 2], [2, 4]]), 6)
    0.0
    """
    return float(min(1.0, _from_centre(X)[1].mean()))
