"""Block influence: how much a block turns the states that pass through it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.layers.states import States
from probes.layers.views import same_shape
from probes.registry import Measure, register_measure

FloatArray = NDArray[np.floating[Any]]

register_measure(
    Measure(
        "block_influence",
        "Block influence",
        "",
        0.0,
        2.0,
        "none",
        "One less the mean cosine between the states before and after a block; 0 when the block only stretches.",
        "Men et al. 2024 (ShortGPT, arXiv 2403.03853)",
    )
)


def block_influence(X_before: Any, X_after: Any) -> tuple[float, FloatArray]:
    """Mean of 1 − cos(x_k, x_{k+1}) over the rows, and the rows' own values (n,) for an interval.

    `X_before` and `X_after` (n, d) are the states, of texts or of tokens, before and after one block
    or a run of blocks. In [0, 2].

    Raises `DoesNotApply` where a row is zero, `InputError` for shapes that differ. Paper: Men et al.
    2024 (ShortGPT), over tokens of the residual stream. See also `cka`.

    >>> value, rows = block_influence([[1.0, 0], [1, 0]], [[2.0, 0], [0, 1]])
    >>> value, rows.tolist()
    (0.5, [0.0, 1.0])
    """
    first, second = same_shape(X_before, X_after)
    before = States(first).units("block influence", least=1)
    after = States(second).units("block influence", least=1)
    # ‖u − v‖² / 2: exactly 0 for equal directions, where 1 − u·v would leave rounding
    rows = np.minimum(np.square(before - after).sum(axis=1) / 2, 2.0)
    return float(rows.mean()), rows
