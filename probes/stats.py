"""Intervals, resamples, rank statistics and p-values that several measures share.

All functions are pure; every random draw comes from a generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from probes.errors import InputError

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, sample size and seed; `low` and `high` are None where no interval exists."""

    value: float
    low: float | None
    high: float | None
    n: int
    seed: int | None = None

    def row(self) -> dict[str, Any]:
        """The columns of a tidy row that this estimate fills."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "seed": self.seed,
        }


def percentile_interval(
    draws: Array, confidence: float = 0.95, axis: int = 0
) -> tuple[Array, Array]:
    """Central interval of bootstrap draws along `axis`."""
    tail = (1 - check_confidence(confidence)) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=axis)
    return low, high


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927); stays in [0, 1] and is right at 0 and n.

    >>> low, high = wilson_interval(50, 100)
    >>> round(low, 3), round(high, 3)
    (0.404, 0.596)
    """
    if not 0 <= successes <= n or n < 1:
        raise InputError(f"{successes} successes of {n}: 0 ≤ successes ≤ n and n ≥ 1 are needed")
    z = float(special.ndtri(0.5 + check_confidence(confidence) / 2))
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def t_interval(values: Array, confidence: float = 0.95) -> tuple[float, float] | None:
    """Student's interval of the mean of independent values (n,); None for fewer than two.

    For the few repetitions with seeds of their own: at 5, percentiles of resampled means hold the true one in 84 % of
    cases where they promise 95 %.

    >>> low, high = t_interval(np.array([1.0, 2, 3]))
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    n = len(values)
    check_confidence(confidence)
    if n < 2:
        return None
    reach = float(stats.t.ppf(0.5 + confidence / 2, n - 1)) * float(np.std(values, ddof=1))
    middle = float(np.mean(values))
    return middle - reach / n**0.5, middle + reach / n**0.5


def check_confidence(confidence: float) -> float:
    """`confidence` itself if it lies strictly between 0 and 1."""
    if not 0 < confidence < 1:
        raise InputError(
            f"confidence {confidence}: a number strictly between 0 and 1 is needed, such as 0.95"
        )
    return confidence


def ranks(values: Array) -> Array:
    """Average ranks along the last axis, ties shared; (…, n) -> (…, n) float64."""
    return np.asarray(stats.rankdata(values, axis=-1), dtype=np.float64)


def pearson(x: Array, y: Array) -> Array:
    """Pearson correlation along the last axis, broadcasting the rest; 0 where one side is constant."""
    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean(axis=-1, keepdims=True)
    top = (x * y).sum(axis=-1)
    bottom = np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def spearman(x: Array, y: Array) -> Array:
    """Spearman correlation along the last axis (ties by average rank); 0 where one side is constant.

    >>> float(spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 15])))
    0.5
    """
    return pearson(ranks(x), ranks(y))


def hoeffding_bentkus(mean_loss: float, n: int, epsilon: float) -> float:
    """p-value of "the true mean loss exceeds epsilon" for n losses in [0, 1] with mean `mean_loss`.

    p = min(e · P(Bin(n, ε) ≤ ⌈n R̂⌉), exp(−n · kl(min(R̂, ε), ε))), and 1 when R̂ ≥ ε; valid for every n
    (Angelopoulos et al. 2021, Learn then Test, arXiv 2110.01052).

    >>> hoeffding_bentkus(0.2, 100, 0.1)
    1.0
    >>> hoeffding_bentkus(0.0, 100, 0.1) < 1e-4
    True
    """
    if not 0 < epsilon < 1:
        raise InputError(
            f"max loss {epsilon}: a number strictly between 0 and 1 is needed, such as 0.05"
        )
    if mean_loss >= epsilon:
        return 1.0
    bentkus = np.e * float(stats.binom.cdf(np.ceil(n * mean_loss), n, epsilon))
    kl = float(special.rel_entr(mean_loss, epsilon) + special.rel_entr(1 - mean_loss, 1 - epsilon))
    return float(min(1.0, bentkus, np.exp(-n * kl)))
