"""Coding rate: how many nats a state costs at a given precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.layers.states import States
from probes.registry import Measure, register_layer_metric

FloatArray = NDArray[np.floating[Any]]
EPSILON_SQUARED = 0.5


def _influence(X: Any) -> FloatArray:
    """Of ½ Σ log(1 + a λ_j) with a = d / (W ε²): the row's part less what its weight takes through W."""
    states = States.of(X)
    spectrum = states.unit_spectrum("coding rate")
    a = states.d / (states.n * EPSILON_SQUARED)
    slope = a / (1 + a * spectrum.eigenvalues) / 2
    return spectrum.influence(slope) - slope @ spectrum.eigenvalues / states.n


@register_layer_metric(
    Measure(
        "coding_rate",
        "Coding rate",
        "nats",
        0.0,
        None,
        "none",
        "Nats that one embedding of unit length costs when coded to a squared error of 0.5; more for embeddings "
        "spread over more directions.",
        "Ma et al. 2007; Yu et al. 2023 (White-Box Transformers, arXiv 2306.01129)",
    ),
    {"rotation", "scale", "permutation"},
    _influence,
)
def coding_rate(X: Any, epsilon_squared: float = EPSILON_SQUARED, normalise: bool = True) -> float:
    """Nats per row of X (n, d) at squared error ε²: ½ log det(I + d/(n ε²) ZᵀZ).

    Z holds the rows of X at unit length, so that layers of different scale compare; `normalise=False`
    takes X as it is. ε² = 0.5 as in Yu et al. 2020 (arXiv 2006.08558). From ½ log(1 + d/ε²), all rows
    in one direction, to r/2 · log(1 + d/(r ε²)), r = min(n, d), all evenly spread.

    Raises `DoesNotApply` for one row and for rows of zero length (normalised), `InputError` for ε² ≤
    0. Paper: Ma et al. 2007; Yu et al. 2023. See also `dataset_entropy`.

    >>> import numpy as np
    >>> bool(np.isclose(coding_rate(np.eye(4)), 2 * np.log(3)))  # 4/2 · log(1 + 1/0.5)
    True
    """
    if not 0 < epsilon_squared < np.inf:
        raise InputError(f"epsilon squared {epsilon_squared}: a number above 0 is needed")
    states = States.of(X)
    if normalise:
        sigma = states.unit_spectrum("coding rate").sigma
    else:
        sigma = states.uncentred("coding rate").sigma * states.scale
    with np.errstate(divide="ignore"):  # log 0: that direction costs nothing
        logs = 2 * np.log(sigma) + np.log(states.d / (states.n * epsilon_squared))
    return float(np.logaddexp(0.0, logs).sum() / 2)
