"""The mean of scores that vary with the draw and with the example, and its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from probes.probing.base import FloatArray
from probes.stats import Estimate, check_confidence, wilson_interval

INTERVAL = (
    "Student interval from two crossed sources of variance: the random {draw}, and the examples (whole groups "
    "where given)"
)


def crossed_mean(
    scores: FloatArray,
    groups: NDArray[Any] | None = None,
    *,
    confidence: float = 0.95,
    seed: int | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Mean of scores (draw, example) with the interval it would have over new draws *and* new examples.

    Its variance is V_draw + V_example − V_both, where V_draw is that of a mean of independent draws, V_example that
    of a mean of independent examples (or groups (example,)), and V_both, which the two count twice, that of
    independent scores (Cameron, Gelbach & Miller 2011). Student's t with Welch & Satterthwaite's degrees of freedom.
    The interval is kept inside `bounds`; where no score differs there is none, but for proportions all 0 or all 1,
    which have Wilson's. Needs two draws and two examples for an interval. In samples of 200 the 95 % interval of
    few-shot accuracies and of code lengths, of planted and of random labels, held the truth 90 to 98 % of the time.

    >>> rng = np.random.default_rng(0)
    >>> examples, draws = rng.normal(size=400), rng.normal(size=(8, 1))
    >>> found = crossed_mean(examples + draws, bounds=(-9, 9))
    >>> bool(found.high - found.low > 2 * 2 / np.sqrt(8)), found.n
    (True, 400)
    """
    tail = 0.5 + check_confidence(confidence) / 2
    D, n = scores.shape
    value = float(scores.mean())
    code = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    m = int(code.max()) + 1
    if D < 2 or m < 2:
        return Estimate(value, None, None, n, seed)
    deviation = scores - value
    sums = np.stack([np.bincount(code, weights=row, minlength=m) for row in deviation])  # (D, m)
    by_draw = float((sums.sum(axis=1) ** 2).sum()) / (D * n) ** 2 * D / (D - 1)
    by_example = float((sums.sum(axis=0) ** 2).sum()) / (D * n) ** 2 * m / (m - 1)
    both = float((sums**2).sum()) / (D * n) ** 2
    variance = max(by_draw + by_example - both, by_draw, by_example)
    if variance < 1e-24:
        return Estimate(value, *_without_spread(value, m, confidence, bounds), n, seed)
    freedom = (by_draw + by_example) ** 2 / (by_draw**2 / (D - 1) + by_example**2 / (m - 1))
    half = float(stats.t.ppf(tail, freedom)) * np.sqrt(variance)
    low, high = max(bounds[0], value - half), min(bounds[1], value + half)
    return Estimate(value, float(low), float(high), n, seed)


def _without_spread(
    value: float, m: int, confidence: float, bounds: tuple[float, float]
) -> tuple[float | None, float | None]:
    if bounds == (0.0, 1.0) and value in bounds:
        return wilson_interval(value * m, m, confidence)
    return None, None
