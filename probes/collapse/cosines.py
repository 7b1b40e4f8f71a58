"""Mean and quantiles of the cosine between different texts, with intervals that respect that pairs share texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from probes.errors import DoesNotApply, InputError
from probes.exits.resample import Resamples
from probes.linalg import check_matrix, normalise_rows
from probes.stats import Estimate, check_confidence

Array = NDArray[np.floating[Any]]

FEWEST = 10  # texts: with fewer a resample may hold one text only, and no pair


def unit_rows(X: Any) -> Array:
    """Rows of X (n, d) at unit length in float64.

    Raises `DoesNotApply` for fewer than ten rows and where a row is zero.
    """
    states = check_matrix(X)
    if len(states) < FEWEST:
        raise DoesNotApply(f"cosines of {len(states)} texts: at least {FEWEST} are needed")
    # scaled first, so that no square underflows
    units = normalise_rows(states.astype(np.float64) / (float(np.abs(states).max()) or 1.0))
    zero = np.flatnonzero(~units.any(axis=1))
    if len(zero):
        raise DoesNotApply(f"cosines: row {zero[0]} is zero, it has no direction")
    return units


def mean_cosine(units: Array, counts: Array) -> Array:
    """Mean cosine over all pairs of different texts under every resample: (draws,).

    `units` (n, d) at unit length, `counts` (n, draws) how often each text was drawn (ones give the estimate itself).
    Copies of a text do not count as a pair, or every draw would be biased upwards:
    (‖Σ w_i u_i‖² − Σ w_i²) / ((Σ w_i)² − Σ w_i²). In [−1, 1].

    >>> mean_cosine(np.eye(3), np.ones((3, 1))).tolist()
    [0.0]
    """
    weights = np.asarray(counts, dtype=np.float64)
    total = units.T @ weights  # (d, draws)
    copies = np.einsum("ij,ij->j", weights, weights)
    pairs = weights.sum(axis=0) ** 2 - copies
    return np.clip((np.einsum("dj,dj->j", total, total) - copies) / pairs, -1.0, 1.0)


def drawn_cosine(X: Any, resamples: Resamples) -> tuple[float, Array]:
    """Mean cosine over all pairs of different rows of X (n, d), and under every resample of the rows: (draws,).

    Raises `DoesNotApply` as `unit_rows`.

    >>> value, draws = drawn_cosine(np.eye(10), Resamples.make(10, 3, seed=0))
    >>> value, draws.tolist()
    (0.0, [0.0, 0.0, 0.0])
    """
    units = unit_rows(X)
    drawn = [mean_cosine(units, weights) for _, weights in resamples.chunks()]
    return float(mean_cosine(units, np.ones((len(units), 1)))[0]), np.concatenate(drawn)


def cosine_quantiles(
    X: Any, levels: Sequence[float] = (0.1, 0.5, 0.9), confidence: float = 0.95
) -> list[Estimate]:
    """Quantiles of the cosine over all pairs of different rows of X (n, d), one estimate per level.

    The interval is Woodruff's: the share of pairs below the quantile is a mean over pairs that share texts, whose
    standard error is twice that of the texts' own shares; the quantiles at that share ± t · SE are its ends. Values in
    [−1, 1]. Paper: Woodruff 1952, "Confidence intervals for medians and other position measures".

    >>> [round(found.value, 6) for found in cosine_quantiles(np.eye(10), [0.5])]
    [0.0]
    """
    if not levels or min(levels) < 0 or max(levels) > 1:
        raise InputError(f"quantile levels {list(levels)}: numbers from 0 to 1 are needed")
    units = unit_rows(X)
    n = len(units)
    cosines = np.clip(units @ units.T, -1.0, 1.0)
    pairs = cosines[np.triu_indices(n, 1)]
    reach = float(stats.t.ppf(0.5 + check_confidence(confidence) / 2, n - 1))
    found: list[Estimate] = []
    for level in levels:
        value = float(np.quantile(pairs, level))
        below = cosines <= value
        own = (below.sum(axis=1) - np.diagonal(below)) / (n - 1)
        half = reach * 2 * float(own.std(ddof=1)) / np.sqrt(n)
        low, high = np.quantile(pairs, np.clip([level - half, level + half], 0, 1))
        found.append(Estimate(value, float(low), float(high), n))
    return found


def fit_slope(tokens: Sequence[float], values: Array) -> Array:
    """Least-squares slope of `values` (lengths, …) on log₂ of `tokens`: change per doubling of length, (…).

    >>> float(fit_slope([8, 16, 32], np.array([0.1, 0.2, 0.3])).round(6))
    0.1
    """
    x = np.log2(np.asarray(tokens, dtype=np.float64))
    x = x - x.mean()
    if len(x) < 2 or not np.any(x):
        raise DoesNotApply(f"collapse slope of {len(x)} lengths: at least two are needed")
    return np.tensordot(x, np.asarray(values, dtype=np.float64), axes=1) / (x @ x)
