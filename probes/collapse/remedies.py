"""Remedies for collapsed embeddings that need no training: fitted once on texts without labels, then frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply
from probes.linalg import check_matrix, whitener

Array = NDArray[np.floating[Any]]
Change = Callable[[Array], Array]
TOPS = (1, 3, 10)


def centring(X: Array) -> Change:
    """Subtract the mean of X (n, d).

    >>> centring(np.array([[1.0, 2], [3, 2]]))(np.array([[2.0, 3.0]])).tolist()
    [[0.0, 1.0]]
    """
    mean = check_matrix(X, min_rows=2).mean(axis=0, dtype=np.float64)
    return lambda Y: Y - mean


def without_top(X: Array, k: int) -> Change:
    """Subtract the mean of X (n, d) and the part along its `k` strongest directions.

    `DoesNotApply` where X has no more than k directions. Paper: Mu & Viswanath 2018, "All-but-the-top"
    (arXiv 1702.01417).

    >>> X = np.array([[5.0, 1], [-5, 1], [5, -1], [-5, -1]])
    >>> without_top(X, 1)(np.array([[7.0, 2.0]])).round(6).tolist()
    [[0.0, 2.0]]
    """
    states = check_matrix(X, min_rows=2).astype(np.float64)
    if k >= min(states.shape[0] - 1, states.shape[1]):
        raise DoesNotApply(f"{len(states)} texts in {states.shape[1]} dimensions: top {k} is all")
    mean = states.mean(axis=0)
    _, vectors = np.linalg.eigh((states - mean).T @ (states - mean))
    top = vectors[:, -k:]

    def change(Y: Array) -> Array:
        centred = Y - mean
        return centred - (centred @ top) @ top.T

    return change


def whitening(X: Array) -> Change:
    """Subtract the mean of X (n, d) and give every direction the same spread.

    The covariance is shrunk towards a multiple of the identity (Ledoit & Wolf 2004), or directions that few texts show
    would be blown up. Paper: Su et al. 2021, "Whitening sentence representations" (arXiv 2103.15316).

    >>> X = np.random.default_rng(0).normal(size=(2000, 2)) * [10, 1]
    >>> whitening(X)(X).std(axis=0).round(1).tolist()
    [1.0, 1.0]
    """
    mean, directions, inverse = whitener(X)
    return lambda Y: ((Y - mean) @ directions * inverse) @ directions.T


REMEDIES: Mapping[str, Callable[[Array], Change]] = {
    "centred": centring,
    "whitened": whitening,
    **{f"top{k}": (lambda X, k=k: without_top(X, k)) for k in TOPS},
}
