"""How strongly heads compose by chance at most, when very many pairs are looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gamma

FloatArray = NDArray[np.floating[Any]]


def power_sums(values: FloatArray) -> FloatArray:
    """Σ p, Σ p² and Σ p³ of each head's squared singular values `values` (head, r) as shares of their sum: (3, head).

    >>> power_sums(np.asarray([[1.0, 1.0]])).ravel().tolist()
    [1.0, 0.5, 0.25]
    """
    squares = values**2
    sums = squares.sum(-1, keepdims=True)
    shares = np.divide(squares, sums, out=np.zeros_like(squares), where=sums > 0)
    return np.stack([(shares**power).sum(-1) for power in (1, 2, 3)])


def highest_score(sums: FloatArray, d: int, pairs: int, confidence: float = 0.95) -> FloatArray:
    """Scores (pair,) that none of `pairs` pairs of matrices rotated at random exceeds, with `confidence` for all.

    The squared score of A and B in `d` dimensions is Σ p_i q_j u_ij² with cosines u_ij of random directions, each d u²
    nearly chi-squared with one degree of freedom; `sums` (3, pair) are the products of the power sums of p and q. Its
    quantile is that of a shifted gamma distribution with the same three cumulants (Hall–Buckley–Eagleson). The level
    of one pair is confidence^(1/pairs) (Šidák). Exact cosines have lighter tails: the bound is rather too high.

    >>> alone, many = (float(highest_score(np.ones((3, 1)), 100, n)[0]) for n in (1, 100_000))
    >>> round(alone, 2), round(many, 2)  # rank one: |u| of two directions
    (0.2, 0.5)
    """
    level = -np.expm1(np.log(confidence) / pairs)  # of a single pair being above
    mean, twos, threes = (np.maximum(row, 0.0) / d**power for power, row in enumerate(sums, 1))
    found = np.zeros(sums.shape[1])
    some = threes > 0
    variance, third = 2 * twos[some], 8 * threes[some]
    shape = 4 * variance**3 / third**2
    scale = third / (2 * variance)
    far = gamma.isf(level, shape) * scale
    found[some] = np.sqrt(np.maximum(mean[some] + far - shape * scale, 0.0))
    return np.minimum(found, 1.0)
