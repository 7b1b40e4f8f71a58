"""Cosines of estimated directions: their intervals, their band under shuffled labels, their ceiling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from probes.linalg import normalise_rows
from probes.probing.base import FloatArray
from probes.stats import percentile_interval

SPLITS = 10  # splits of a single context over which the variance is averaged


@dataclass(frozen=True)
class Seen:
    """The directions of one context at one layer."""

    n: int
    theta: FloatArray  # (d,)
    influence: FloatArray  # (groups, d): what each group adds to θ less its expectation
    shuffled: FloatArray  # (draws, d)
    halves: tuple[FloatArray, FloatArray]  # (draws, d) each
    random_halves: tuple[FloatArray, FloatArray]  # (draws, d) each, of shuffled labels
    first: NDArray[np.bool_]  # (draws, groups): which groups are the first half


@dataclass(frozen=True)
class Found:
    """Value, low and high per variant; of one pair of contexts, or (pair None) of all."""

    pair: str | None
    n: int
    values: dict[str | None, tuple[float, float | None, float | None]]


def compared(seen: Mapping[str, Seen], each_pair: bool, confidence: float) -> list[Found]:
    if len(seen) == 1:
        ((_, only),) = seen.items()
        return [_halved(only, confidence)]
    pairs = list(combinations(seen, 2))
    found = [Found(None, sum(s.n for s in seen.values()), _agreement(seen, pairs, confidence))]
    if each_pair and len(pairs) > 1:
        found += [
            Found(f"{a} ~ {b}", seen[a].n + seen[b].n, _agreement(seen, [(a, b)], confidence))
            for a, b in pairs
        ]
    return found


def _agreement(
    seen: Mapping[str, Seen], pairs: list[tuple[str, str]], confidence: float
) -> dict[str | None, tuple[float, float | None, float | None]]:
    """Mean over pairs of the cosine, of the cosine for shuffled labels, and of the ceiling."""
    names = dict.fromkeys(name for pair in pairs for name in pair)
    theta = {name: seen[name].theta for name in names}
    influence = {name: seen[name].influence for name in names}
    value = float(np.mean([_cosines(theta[a][None], theta[b][None])[0] for a, b in pairs]))
    random = np.mean([_cosines(seen[a].shuffled, seen[b].shuffled) for a, b in pairs], axis=0)
    reliable = {name: _reliability(_cosines(*seen[name].halves)) for name in names}
    ceiling = float(np.mean([np.sqrt(reliable[a] * reliable[b]) for a, b in pairs]))
    size = min(len(parts) for parts in influence.values())
    return {
        None: (value, *_interval(value, _variance(theta, influence, pairs), size, confidence)),
        "random": (float(random.mean()), *_band(random, confidence)),
        "split-half": (ceiling, None, None),
    }


def _halved(only: Seen, confidence: float) -> Found:
    """The agreement of a single context's random halves, by the mean over splits."""
    cosines, random = _cosines(*only.halves), _cosines(*only.random_halves)
    value = float(cosines.mean())
    variance = np.mean([_split_variance(only, draw) for draw in range(min(SPLITS, len(cosines)))])
    size = int(only.first.shape[1]) // 2
    values = {
        None: (value, *_interval(value, float(variance), size, confidence)),
        "random": (float(random.mean()), *_band(random, confidence)),
    }
    return Found(None, only.n, values)


def _split_variance(seen: Seen, draw: int) -> float:
    """Variance of the cosine of one split; a group weighs twice as much in its half as in the whole."""
    side = seen.first[draw]
    a, b = (half[draw] for half in seen.halves)
    return _variance(
        {"a": a, "b": b},
        {"a": 2 * seen.influence[side], "b": 2 * seen.influence[~side]},
        [("a", "b")],
    )


def _variance(
    theta: Mapping[str, FloatArray],
    influence: Mapping[str, FloatArray],
    pairs: Sequence[tuple[str, str]],
) -> float:
    """Variance of the mean cosine of `pairs` by the delta method.

    The cosine of a + ε and b + η moves by ε·b, η·a and ε·η. Each side's influence, taken at the other's
    *estimate*, holds ε·η once, so that it is counted twice: it is subtracted once, and is the least the
    variance can be.
    """
    slope = {name: np.zeros_like(vector) for name, vector in theta.items()}
    both = 0.0
    for a, b in pairs:
        units, sizes = zip(*(_unit(theta[name]) for name in (a, b)), strict=True)
        cosine = float(units[0] @ units[1])
        slope[a] += (units[1] - cosine * units[0]) / sizes[0]
        slope[b] += (units[0] - cosine * units[1]) / sizes[1]
        across = [
            (influence[name] - np.outer(influence[name] @ u, u)) / size
            for name, u, size in zip((a, b), units, sizes, strict=True)
        ]
        both += _square_product(*across)
    single = 0.0
    for name, parts in influence.items():
        m = len(parts)
        single += float(np.square(parts @ slope[name]).sum()) * m / max(m - 1, 1)
    return max(single - both, both) / len(pairs) ** 2


def _square_product(U: FloatArray, V: FloatArray) -> float:
    """‖U Vᵀ‖², by the smaller of the two products; U (m, d), V (k, d)."""
    if max(len(U), len(V)) <= U.shape[1]:
        return float(np.square(U @ V.T).sum())
    return float(((U.T @ U) * (V.T @ V)).sum())


def _unit(vector: FloatArray) -> tuple[FloatArray, float]:
    size = float(np.linalg.norm(vector))
    return (vector / size, size) if size > 0 else (vector, np.inf)


def _interval(
    value: float, variance: float, groups: int, confidence: float
) -> tuple[float | None, float | None]:
    """By Fisher's z, on whose scale the spread of a cosine hardly depends on the cosine."""
    if groups < 3:
        return None, None
    room = 1 - value**2
    if room < 1e-12:
        return value, value
    reach = float(stats.t.ppf(0.5 + confidence / 2, groups - 1)) * np.sqrt(variance) / room
    z = np.arctanh(value)
    return float(np.tanh(z - reach)), float(np.tanh(z + reach))


def _band(draws: FloatArray, confidence: float) -> tuple[float, float]:
    low, high = percentile_interval(draws, confidence)
    return float(low), float(high)


def _cosines(A: FloatArray, B: FloatArray) -> FloatArray:
    """Cosines (draws,) of the rows of A and B (draws, d); 0 for a row of zeros."""
    return np.clip((normalise_rows(A) * normalise_rows(B)).sum(axis=1), -1.0, 1.0)


def _reliability(halves: FloatArray) -> float:
    """Spearman–Brown: the reliability of the whole from the mean cosine of its halves."""
    h = max(0.0, float(halves.mean()))
    return 2 * h / (1 + h)
