"""Anisotropy: do all states of a layer point the same way?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.layers.states import States
from probes.registry import Measure, register_layer_metric

FloatArray = NDArray[np.floating[Any]]


def _influence(X: Any) -> FloatArray:
    """What each row adds to the mean per unit of extra weight, (n,).

    That is twice its own mean cosine less the mean, over n.
    """
    units = States.of(X).units("anisotropy")
    n = len(units)
    own = (units @ units.sum(axis=0) - 1) / (n - 1)
    return 2 * (own - own.mean()) / n


@register_layer_metric(
    Measure(
        "anisotropy",
        "Anisotropy",
        "cosine",
        -1.0,
        1.0,
        "down",
        "Mean cosine between the states of two different texts; 0 for directions spread evenly, 1 when "
        "all point the same way.",
        "Ethayarajh 2019 (arXiv 1909.00512)",
    ),
    {"rotation", "scale", "permutation"},
    _influence,
)
def anisotropy(X: Any) -> float:
    """Mean cosine over all pairs of different rows of X (n, d), exactly.

    With u_i the rows at unit length and s = Σ u_i the mean is (‖s‖² − n) / (n (n − 1)), so all
    pairs cost no more than one pass. In [−1/(n − 1), 1]; isotropic states give about 0, identical
    directions 1.

    Raises `DoesNotApply` for a single row and where a row is zero (it has no direction),
    `InputError` or `NonFiniteError` for what is no finite matrix. Paper: Ethayarajh 2019, "How
    contextual are contextualized word representations?" (random pairs there, all pairs here). See
    also `centroid_distance`, `uniformity`, `effective_rank`.

    >>> import numpy as np
    >>> round(anisotropy(np.eye(4)), 6)
    0.0
    >>> round(anisotropy([[1.0, 0], [0, 1], [0, 2]]), 6)
    0.333333
    """
    units = States.of(X).units("anisotropy")
    n = len(units)
    total = units.sum(axis=0)
    return float(np.clip((total @ total - n) / (n * (n - 1)), -1.0, 1.0))
