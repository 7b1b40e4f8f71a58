"""p-values and sample sizes of the finite-sample rule: mean losses in [0, 1], of one dataset or several weighted ones.

Everything here is a function of means, sizes and limits; none of it looks at a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from probes.errors import InputError
from probes.stats import hoeffding_bentkus

Array = NDArray[np.floating[Any]]

POWER = 0.8  # chance of passing, were the estimates true, that a sample size "that would do" has
LARGEST_SAMPLE = 10**7
_STEPS = 60  # halvings: more than the digits of a float
_TILTS = (
    64  # values of the exponent that are tried, twice: each gives a valid bound, the best is taken
)


def loss_limit(mean: float, n: int, delta: float) -> float:
    """Upper confidence limit at 1 − `delta` of the true mean of `n` losses in [0, 1] with mean `mean`.

    The smallest ε that `hoeffding_bentkus` accepts at `delta` (its p-value falls as ε grows); valid for every n.

    >>> round(loss_limit(0.02, 200, 0.05), 3)
    0.053
    """
    if not 0 < delta < 1:
        raise InputError(f"delta {delta}: a number strictly between 0 and 1 is needed")
    return _smallest_accepted(mean, lambda epsilon: hoeffding_bentkus(mean, n, epsilon), delta)


def weighted_limit(
    means: Sequence[float], sizes: Sequence[int], weights: Sequence[float], delta: float
) -> float:
    """The same for a weighted mean of several datasets: the smallest ε that `weighted_p` accepts."""
    mean = float(np.average(means, weights=weights))
    return _smallest_accepted(mean, lambda e: weighted_p(means, sizes, weights, e), delta, 30)


def _smallest_accepted(
    mean: float, p: Callable[[float], float], delta: float, steps: int = _STEPS
) -> float:
    low, high = min(1.0, max(0.0, mean)), 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if 0 < middle < 1 and p(middle) > delta:
            low = middle
        else:
            high = middle
    return high


def weighted_p(
    means: Sequence[float], sizes: Sequence[int], weights: Sequence[float], epsilon: float
) -> float:
    """p-value of "the weighted mean Σ w_t μ_t of the true losses exceeds epsilon", for independent samples.

    Sample t holds `sizes[t]` losses in [0, 1] with the mean `means[t]`; the `weights` are made to sum to 1. With S the
    weighted mean that came and a_t = w_t/n_t, Chernoff's bound for losses in [0, 1] is

        P(S ≤ s) ≤ min over λ ≥ 0 of max over μ with Σ w_t μ_t ≥ ε of exp(λ s) Π (1 − μ_t (1 − exp(−λ a_t)))^{n_t}

    The maximum is taken by Lagrange's dual, which bounds it from above whatever the multiplier is, so that no
    rounding of a search can make the p-value too small. 1 where s ≥ ε. One sample gives exp(−n kl(s, ε)), the second
    half of `hoeffding_bentkus`. Valid for every size.

    >>> round(weighted_p([0.02, 0.03], [150, 300], [1, 1], 0.08), 4)
    0.0001
    """
    mu, n, w = (np.asarray(given, dtype=float) for given in (means, sizes, weights))
    if not 0 < epsilon < 1:
        raise InputError(
            f"max loss {epsilon}: a number strictly between 0 and 1 is needed, such as 0.05"
        )
    if len(w) != len(mu) or (w < 0).any() or w.sum() <= 0:
        raise InputError(
            f"weights {w.tolist()}: one per dataset, none negative and one positive at least"
        )
    used = w > 0
    mu, n, w = mu[used], n[used], w[used] / w.sum()
    came = float(w @ mu)
    if came >= epsilon:
        return 1.0
    scale = float((n / w).min())
    tilts = scale * np.logspace(-4, 1.5, _TILTS)
    bounds = _log_bounds(tilts, came, n, w, epsilon)
    best = int(np.argmin(bounds))
    low, high = float(tilts[max(0, best - 1)]), float(tilts[min(_TILTS - 1, best + 1)])
    finer = _log_bounds(np.linspace(low, high, _TILTS), came, n, w, epsilon)
    return float(np.exp(min(0.0, float(bounds.min()), float(finer.min()))))


def _log_bounds(tilts: Array, came: float, n: Array, w: Array, epsilon: float) -> Array:
    """The bound's logarithm for every exponent λ in `tilts`: (tilts,).

    The inner maximum lies at μ_t = 1/b_t − n_t/(ν w_t), cut to [0, 1], b_t = 1 − exp(−λ a_t); ν is found by halving.
    """
    b = -np.expm1(-tilts[:, None] * (w / n))  # (tilts, tasks)
    ratio = n / w
    low = (ratio * b).min(axis=1)  # every μ is 0
    high = (ratio * b / (1 - b)).max(axis=1)  # every μ is 1
    for _ in range(_STEPS):
        middle = np.sqrt(low * high)
        enough = _worst_means(middle, b, ratio) @ w >= epsilon
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    mu = _worst_means(high, b, ratio)
    dual = (n * np.log1p(-b * mu)).sum(axis=1) + high * (mu @ w - epsilon)
    return tilts * came + dual


def _worst_means(multiplier: Array, b: Array, ratio: Array) -> Array:
    return np.clip(1 / b - ratio / multiplier[:, None], 0, 1)


def size_for_loss(
    mean: float, spread: float, n: int, epsilon: float, delta: float, power: float = POWER
) -> int | None:
    """Examples at which a candidate passes with chance `power`, if its losses go on with this mean and spread.

    None where the mean is not below `epsilon`: then no number of them would do.

    >>> size_for_loss(0.02, 0.14, 50, 0.05, 0.05) > size_for_loss(0.02, 0.14, 50, 0.08, 0.05)
    True
    """
    if mean >= epsilon:
        return None
    return _grown(
        lambda size: hoeffding_bentkus(_unlucky(mean, spread, size, power), size, epsilon), n, delta
    )


def factor_for_weighted(
    moments: Sequence[tuple[float, float, int]],
    weights: Sequence[float],
    epsilon: float,
    delta: float,
    power: float = POWER,
) -> float | None:
    """By how much all samples must grow for `weighted_p` to pass with chance `power`; `moments`: (mean, spread, n)."""
    means, spreads, sizes = (
        np.asarray(column, dtype=float) for column in zip(*moments, strict=True)
    )
    w = np.asarray(weights, dtype=float) / np.sum(weights)
    mean = float(w @ means)
    if mean >= epsilon:
        return None
    error = math.sqrt(float((w**2 * spreads**2 / sizes).sum()))

    def p(size: int) -> float:
        grown = size / 1000
        worse = means + special.ndtri(power) * error / math.sqrt(grown)
        return weighted_p(
            np.minimum(1, worse).tolist(), (sizes * grown).tolist(), w.tolist(), epsilon
        )

    found = _grown(p, 1000, delta)
    return None if found is None else found / 1000


def _unlucky(mean: float, spread: float, size: int, power: float) -> float:
    """The mean of `size` losses that is not exceeded with chance `power`."""
    return min(1.0, mean + float(special.ndtri(power)) * spread / math.sqrt(size))


def _grown(p: Callable[[int], float], n: int, delta: float) -> int | None:
    """The smallest size above `n`, to about two percent, at which p is at most `delta`; None beyond LARGEST_SAMPLE."""
    size = n + 1
    while p(size) > delta:
        size = math.ceil(size * 1.02)
        if size > LARGEST_SAMPLE:
            return None
    return size


def factor_for_share(
    room: float, resampling: float, made_up: float, delta: float, power: float = POWER
) -> float | None:
    """By how much a sample must grow for a share's lower limit to rise by what it lacks, with chance `power`.

    `room` is the estimate less the asked share; of the distance from estimate to limit today, `resampling` shrinks
    with 1/√n and `made_up`, what the made-up example adds, with 1/n. None where there is no room.

    >>> round(factor_for_share(0.01, 0.02, 0.0, 0.05, power=0.5), 3)
    4.0
    """
    if room <= 0:
        return None
    level = float(special.ndtri(1 - delta))
    luck = 1 + float(special.ndtri(power)) / level if level > 0 else 1.0
    a, b = resampling * luck, made_up
    if a <= 0:
        return max(1.0, b / room)
    root = room / a if b <= 0 else (math.sqrt(a * a + 4 * b * room) - a) / (2 * b)
    return max(1.0, 1 / root**2)
