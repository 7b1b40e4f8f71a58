"""Means and paired differences over items, with intervals that stay honest when all items agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from probes.layers.measure import interval
from probes.registry import Measure
from probes.stats import wilson_interval

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
Bounds = tuple[float, float, float] | tuple[float, None, None]  # value, low, high


def mean_bounds(values: Array, owners: Sequence[IntArray], confidence: float = 0.95) -> Bounds:
    """Mean of `values` (n,) and its interval: mean ± t · standard error over groups, the wider one of `owners`.

    Each of `owners` (n,) puts the items into groups that count as one draw. Successes and failures (0 and 1) with
    every item a group of its own use Wilson's interval too, so that 20 of 20 is not certainty; their interval is cut
    to [0, 1]. Without three groups there is no interval.

    >>> mean_bounds(np.ones(20), [np.arange(20)])[1] < 0.85
    True
    """
    found = [_t_bounds(values, owner, confidence) for owner in owners]
    if np.isin(values, (0, 1)).all():
        found.append(wilson_interval(float(values.sum()), len(values), confidence))
        return _hull(float(values.mean()), found, low=0.0, high=1.0)
    return _hull(float(values.mean()), found, low=None, high=None)


def difference_bounds(
    changed: Array, plain: Array, owners: Sequence[IntArray], confidence: float = 0.95
) -> Bounds:
    """Mean of changed − plain, both (n,), paired by item; intervals as `mean_bounds` has them.

    Where both are successes and failures, half an item is added to each of the four cases (Agresti & Min 2005), and
    the interval is cut to [-1, 1].

    >>> difference_bounds(np.zeros(20), np.ones(20), [np.arange(20)])[2] > -1
    True
    """
    differences = changed - plain
    found = [_t_bounds(differences, owner, confidence) for owner in owners]
    both = np.isin(changed, (0, 1)).all() and np.isin(plain, (0, 1)).all()
    if both:
        found.append(_agresti_min(differences, confidence))
        return _hull(float(differences.mean()), found, low=-1.0, high=1.0)
    return _hull(float(differences.mean()), found, low=None, high=None)


_UNBOUNDED = Measure("mean", "Mean", "", None, None, "none", "A mean of any numbers.")


def _t_bounds(values: Array, owner: IntArray, confidence: float) -> tuple[float, float] | None:
    mean = float(values.mean())
    low, high = interval(mean, (values - mean) / len(values), owner, _UNBOUNDED, confidence)
    return None if low is None or high is None else (low, high)


def _agresti_min(differences: Array, confidence: float) -> tuple[float, float]:
    n = len(differences) + 2
    mean = float(differences.sum()) / n
    variance = (float((differences**2).sum()) + 1) / n - mean**2
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * (variance / n) ** 0.5
    return mean - half, mean + half


def _hull(value: float, found: list[Any], low: float | None, high: float | None) -> Bounds:
    """The value with the widest of the intervals, if every one exists, cut to [low, high]."""
    if any(each is None for each in found):
        return value, None, None
    lowest = min(value, *(each[0] for each in found))
    highest = max(value, *(each[1] for each in found))
    return (
        value,
        lowest if low is None else max(low, lowest),
        highest if high is None else min(high, highest),
    )
