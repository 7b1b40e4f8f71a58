"""Two views of the same texts: what every pair metric asks of its arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.layers.states import States
from probes.linalg import check_matrix

FloatArray = NDArray[np.floating[Any]]


def same_shape(A: Any, B: Any) -> tuple[FloatArray, FloatArray]:
    """A and B as finite arrays (n, d) of one shape."""
    first, second = check_matrix(A, "A"), check_matrix(B, "B")
    if first.shape != second.shape:
        raise InputError(
            f"two views have shapes {first.shape} and {second.shape}: row i of both is one text, so they must agree"
        )
    return first, second


def unit_views(A: Any, B: Any, what: str) -> tuple[FloatArray, FloatArray]:
    """A and B (n, d) with rows at unit length; `DoesNotApply` for a single row and for rows of zero length."""
    first, second = same_shape(A, B)
    return States(first).units(what), States(second).units(what)
