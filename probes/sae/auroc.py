"""AUROC of every feature for every concept at once, from sparse codes; zeros are one large tie."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import EstimatorInputError

FloatArray = NDArray[np.floating[Any]]


def feature_aurocs(codes: Any, labels: Any) -> FloatArray:
    """Chance that a positive row has a higher code than a negative one, ties half: (concepts, features) in [0, 1].

    codes: (n, m) sparse or dense, of any sign; labels: (n, concepts) or (n,), True for positive rows. 0.5 for codes
    that are all equal. Exact: (Σ ranks of positives − p (p + 1) / 2) / (p · q), average ranks. Costs what the codes
    that are not zero cost. Raises `EstimatorInputError` for shapes that differ and concepts with one class.
    Paper: Hanley & McNeil 1982.

    >>> codes = np.array([[0.0, 1], [0, 0], [2, 0], [3, 0]])
    >>> feature_aurocs(codes, [False, False, True, True]).tolist()
    [[1.0, 0.25]]
    """
    table: Any = sparse.csc_array(codes)
    chosen = np.asarray(labels, bool)
    chosen = chosen[:, None] if chosen.ndim == 1 else chosen
    n = table.shape[0]
    positive = chosen.sum(0).astype(np.float64)  # (concepts,)
    if len(chosen) != n or not len(positive):
        raise EstimatorInputError(f"{n} rows of codes but labels of shape {chosen.shape}")
    if positive.min() < 1 or positive.max() > n - 1:
        raise EstimatorInputError("every concept needs rows with it and rows without it")
    ranks, zero = _ranks(table)
    above = ranks.T @ chosen.astype(np.float64)  # Σ over positives of (rank − rank of a zero)
    sums = np.asarray(above).T + np.outer(positive, zero)
    lowest = positive * (positive + 1) / 2
    return (sums - lowest[:, None]) / (positive * (n - positive))[:, None]


def _ranks(table: Any) -> tuple[Any, FloatArray]:
    """Average ranks in each column, less the rank of a zero there (as sparse as the codes), and the latter (m,)."""
    if table.nnz and not np.all(table.data):
        table = table.copy()
        table.eliminate_zeros()
    n, m = table.shape
    column = np.repeat(np.arange(m), np.diff(table.indptr))
    value = table.data
    order = np.lexsort((value, column))
    column, value = column[order], value[order]  # columns stay where they are
    count = np.diff(table.indptr).astype(np.float64)
    below = np.bincount(column[value < 0], minlength=m).astype(np.float64)
    zeros = n - count
    position = np.arange(len(value)) - table.indptr[:-1][column] + 1.0  # from 1, zeros left out
    position += np.where(value > 0, zeros[column], 0)
    new = np.ones(len(value), bool)
    new[1:] = (column[1:] != column[:-1]) | (value[1:] != value[:-1])
    tie = np.cumsum(new) - 1
    size = np.bincount(tie) if len(tie) else np.zeros(0)
    mean = np.bincount(tie, position) / size if len(tie) else np.zeros(0)
    zero = below + (zeros + 1) / 2
    back = np.empty(len(value))
    back[order] = mean[tie] - zero[column] if len(tie) else 0.0
    return sparse.csc_array((back, table.indices, table.indptr), shape=table.shape), zero
