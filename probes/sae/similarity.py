"""How alike the directions of features are: cosines between decoder rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError
from probes.linalg import check_matrix, normalise_rows

FloatArray = NDArray[np.floating[Any]]
_AT_ONCE = 1024  # features


def nearest_features(decoder: Any) -> tuple[NDArray[np.int64], FloatArray]:
    """For each decoder row (m, d) the other row with the largest cosine, and that cosine in [−1, 1]: (m,) and (m,).

    Raises `InputError` for what is no matrix of two or more rows, `NonFiniteError` for NaN.

    >>> nearest_features(np.array([[1.0, 0], [0, 1], [1, 1]]))[0].tolist()
    [2, 2, 0]
    """
    rows = normalise_rows(check_matrix(decoder, "decoder", min_rows=2).astype(np.float32))
    m = len(rows)
    nearest, cosine = np.zeros(m, np.int64), np.zeros(m)
    for lo in range(0, m, _AT_ONCE):
        found = rows[lo : lo + _AT_ONCE] @ rows.T
        here = np.arange(len(found))
        found[here, lo + here] = -np.inf
        nearest[lo : lo + _AT_ONCE] = found.argmax(1)
        cosine[lo : lo + _AT_ONCE] = found.max(1)
    return nearest, np.clip(cosine, -1, 1)


def similar_features(decoder: Any, feature: int, n: int = 10) -> pd.DataFrame:
    """The n features whose decoder rows are most like that of `feature`: columns feature, cosine; the nearest first.

    >>> similar_features(np.array([[1.0, 0], [0, 1], [1, 1]]), 2, 1)["feature"].tolist()
    [0]
    """
    rows = normalise_rows(check_matrix(decoder, "decoder", min_rows=2).astype(np.float64))
    if not 0 <= feature < len(rows):
        raise InputError(f"feature {feature} does not exist: 0 to {len(rows) - 1} are allowed")
    cosine = rows @ rows[feature]
    order = np.argsort(-cosine, kind="stable")
    order = order[order != feature][:n]
    return pd.DataFrame({"feature": order, "cosine": np.clip(cosine[order], -1, 1)})
