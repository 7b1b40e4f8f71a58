"""Bootstrap resamples that all cells of a grid share, as integer counts, and rank statistics under them.

A resample of n examples is a column of counts: how often each example was drawn. Means under every resample are one
matrix product; Spearman's ρ needs one sort per cell and one cumulative sum per draw, because the average rank of a
value in a resample is the number of drawn values below it plus half the number of its own copies and ties, plus a
half.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

CHUNK = 128  # draws worked on at once: (1,500 examples × 128 draws) float64 stay in the second-level cache


@dataclass(frozen=True)
class Resamples:
    """`counts` (n, draws): how often example i occurs in draw j."""

    counts: NDArray[np.uint16]

    @classmethod
    def make(cls, n: int, draws: int, seed: int, clusters: IntArray | None = None) -> Resamples:
        """`draws` resamples of n examples with replacement; whole clusters are drawn where `clusters` (n,) names
        them.

        >>> Resamples.make(4, 3, seed=0).counts.sum(axis=0).tolist()
        [4, 4, 4]
        """
        if n < 1 or draws < 1:
            raise InputError(f"{draws} resamples of {n} examples: at least one of each is needed")
        code = np.arange(n) if clusters is None else np.unique(clusters, return_inverse=True)[1]
        units = int(code.max()) + 1
        rng = np.random.default_rng(seed)
        counts = np.empty((units, draws), dtype=np.uint16)
        for low in range(0, draws, CHUNK):
            width = min(CHUNK, draws - low)
            picks = rng.integers(0, units, size=(width, units)) + units * np.arange(width)[:, None]
            drawn = np.bincount(picks.ravel(), minlength=width * units)
            counts[:, low : low + width] = drawn.reshape(width, units).T
        return cls(counts if clusters is None else counts[code])

    @property
    def n(self) -> int:
        return self.counts.shape[0]

    @property
    def draws(self) -> int:
        return self.counts.shape[1]

    def chunks(self) -> Iterator[tuple[slice, Array]]:
        """Pieces (n, ≤ CHUNK) of the counts in float64, with the slice of draws they are."""
        for low in range(0, self.draws, CHUNK):
            part = slice(low, min(low + CHUNK, self.draws))
            yield part, self.counts[:, part].astype(np.float64)

    def means(self, values: Array) -> Array:
        """Mean of every row of `values` (cells, n) under every draw: (cells, draws)."""
        result = np.empty((len(values), self.draws))
        for part, weights in self.chunks():
            result[:, part] = (values @ weights) / weights.sum(axis=0)
        return result

    def spearman(self, values: Array, gold: Array) -> Array:
        """Spearman's ρ of every row of `values` (cells, n) with `gold` (n,) under every draw: (cells, draws).

        Both sides are ranked anew inside every draw, ties by average rank; 0 where one side is constant in a draw.
        Equal to `scipy.stats.spearmanr` on the drawn examples written out.
        """
        sorts = [_tie_sort(row) for row in values]
        gold_sort = _tie_sort(gold)
        result = np.empty((len(values), self.draws))
        for part, weights in self.chunks():
            result[:, part] = _spearman_chunk(sorts, gold_sort, weights)
        return result


@dataclass(frozen=True)
class _TieSort:
    """Order that sorts a row, and where in it each run of equal values starts (None: all values differ)."""

    order: IntArray
    starts: IntArray | None


def _tie_sort(row: Array) -> _TieSort:
    order = np.argsort(row, kind="stable")
    ordered = row[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return _TieSort(order, None if len(starts) == len(row) else starts)


def _runs(sort: _TieSort, weights: Array) -> Array:
    """`weights` (n, draws) sorted and summed over runs of equal values: (runs, draws)."""
    ordered = weights.take(sort.order, axis=0)
    return ordered if sort.starts is None else np.add.reduceat(ordered, sort.starts, axis=0)


def _spearman_chunk(sorts: list[_TieSort], gold_sort: _TieSort, weights: Array) -> Array:
    """ρ (cells, draws) for one piece of draws.

    With W the copies per run of ties and C their cumulative sum, the runs' ranks are C − W/2 + ½; gold's centred
    ranks times weights sum to zero, so the ½ and the mean rank drop out of the covariance. Σ(rank − mean)² = (N³ −
    Σ W³)/12.
    """
    total = weights.sum(axis=0)  # (draws,)
    cubed = total**3
    gold_runs = _runs(gold_sort, weights)
    gold_ranks = np.cumsum(gold_runs, axis=0) - gold_runs / 2 - total / 2  # centred
    per_example = np.empty_like(weights)
    lengths = (
        None if gold_sort.starts is None else np.diff(np.append(gold_sort.starts, len(weights)))
    )
    spread = gold_ranks if lengths is None else np.repeat(gold_ranks, lengths, axis=0)
    per_example[gold_sort.order] = spread
    moments = weights * per_example  # (n, draws)
    gold_variance = (cubed - (gold_runs**3).sum(axis=0)) / 12
    untied_half = np.einsum("ib,ib->b", weights, moments) / 2
    untied_variance = (cubed - (weights**3).sum(axis=0)) / 12
    result = np.zeros((len(sorts), weights.shape[1]))
    for cell, sort in enumerate(sorts):
        copies, products = _runs(sort, weights), _runs(sort, moments)
        top = np.einsum("ib,ib->b", np.cumsum(copies, axis=0), products)
        if sort.starts is None:  # Σ W²·moment and Σ W³ do not depend on the order: computed once
            top, variance = top - untied_half, untied_variance
        else:
            top = top - np.einsum("ib,ib->b", copies, products) / 2
            variance = (cubed - (copies**3).sum(axis=0)) / 12
        bottom = np.sqrt(variance * gold_variance)
        np.divide(top, bottom, out=result[cell], where=bottom > 0)
    return result
