"""Recall against the size of the index, exactly: what a random subset of the distractors would do, without drawing one.

Of the M pool documents that are not relevant to a query, b lie at least as near to it as its best relevant document.
In a random subset of N of them the number of these is hypergeometric, so the best relevant document is among the first
k with probability P(X < k). That is the expected recall@k of a query with one relevant document, and the chance to
find any of them where there are more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import hypergeom

from probes.errors import InputError
from probes.exits.resample import Resamples
from probes.exits.retrieval import BLOCK_CELLS
from probes.exits.similarity import cumulative_squares, segments
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Row = dict[str, Any]

CUTOFFS = (1, 10)

MARGIN = 0.01  # recall: a loss below it may be sure and still be of no matter


@dataclass(frozen=True)
class Search:
    """Rows of the encoded texts for queries (n,) and the pool (m,), and the relevance (n, m) of the one to the other.

    Rows of the pool are different; `clusters` (n,) says which queries are drawn together.
    """

    queries: IntArray
    pool: IntArray
    relevance: sparse.csr_array
    clusters: IntArray

    @property
    def distractors(self) -> IntArray:
        """How many pool documents are not relevant, per query (n,)."""
        return len(self.pool) - np.diff(self.relevance.indptr)


def subset_sizes(most: int) -> list[int]:
    """10, 30, 100, 300, … below `most`, then `most` itself.

    >>> subset_sizes(2000)
    [10, 30, 100, 300, 1000, 2000]
    """
    if most < 1:
        raise InputError(f"{most} distractors: at least one document beside the relevant is needed")
    return [
        size for power in range(1, 10) for size in (10**power, 3 * 10**power) if size < most
    ] + [most]


def outscoring(states: Array, search: Search, dims: Sequence[int]) -> IntArray:
    """How many distractors lie at least as near as the best relevant document, at every width: (dims, queries).

    `states` (texts, d); nearness is the cosine of the first m coordinates. Blocks of queries against the whole pool,
    inner products accumulated from width to width, so memory is bounded by one block.
    """
    pool = states[search.pool]
    lengths = np.sqrt(cumulative_squares(pool, dims)).astype(states.dtype)  # (dims, pool)
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    n = len(search.queries)
    found = np.empty((len(dims), n), dtype=np.int64)
    block = max(1, BLOCK_CELLS // max(1, len(search.pool)))
    for low in range(0, n, block):
        rows = slice(low, min(low + block, n))
        asked = states[search.queries[rows]]
        relevance = search.relevance[rows]
        products = np.zeros((len(asked), len(search.pool)), dtype=states.dtype)
        for step, (first, last) in enumerate(segments(dims)):
            products += asked[:, first:last] @ pool[:, first:last].T
            found[step, rows] = _nearer(products * inverse[step], relevance)
    return found


def _nearer(similarity: Array, relevance: sparse.csr_array) -> IntArray:
    """Distractors at or above each query's best relevant document; ties count against us."""
    starts = np.asarray(relevance.indptr[:-1], dtype=np.int64)
    owner = np.repeat(np.arange(len(starts)), np.diff(relevance.indptr))
    own = similarity[owner, relevance.indices]
    best = np.maximum.reduceat(own, starts)
    level = np.bincount(owner, weights=own >= best[owner], minlength=len(starts))
    return (similarity >= best[:, None]).sum(axis=1) - level.astype(np.int64)


def expected_recall(nearer: IntArray, distractors: IntArray, subset: int, k: int) -> Array:
    """P(X < k) for X hypergeometric: `subset` drawn of `distractors` (queries,), of which `nearer` (…, queries) count.

    In [0, 1], up is better. With the whole pool it is 0 or 1.

    >>> expected_recall(np.array([0, 1, 5]), np.array([10, 10, 10]), 4, 1).round(3).tolist()
    [1.0, 0.6, 0.024]
    """
    if k < 1 or subset < 1 or subset > int(distractors.min()):
        raise InputError(
            f"recall@{k} among {subset} distractors: k ≥ 1 and 1 to {int(distractors.min())} are allowed"
        )
    pairs = np.stack(np.broadcast_arrays(nearer, distractors), axis=-1).reshape(-1, 2)
    different, place = np.unique(pairs, axis=0, return_inverse=True)
    chances = hypergeom.cdf(k - 1, different[:, 1], different[:, 0], subset)
    return np.clip(chances, 0.0, 1.0)[place.reshape(-1)].reshape(nearer.shape)


def index_rows(
    states: Array,
    search: Search,
    dims: Sequence[int],
    sizes: Sequence[int],
    resamples: Resamples,
) -> tuple[list[Row], list[Row]]:
    """Rows of one layer: dim, distractors, k, recall, low, high, n; bootstrap over queries in their clusters.

    And where every width but the last breaks: dim, k, distractors, difference, low, high, n. That is the smallest of
    `sizes` (ascending) at which recall less that of the last width, paired by query, lies below zero with its 95 %
    interval; `distractors` is None where it does at none, and the difference that at the largest.
    """
    nearer = outscoring(states, search, dims)
    rows: list[Row] = []
    breaks: dict[tuple[int, int], Row] = {}
    for size in sizes:
        for k in CUTOFFS:
            chances = expected_recall(nearer, search.distractors, size, k)
            drawn = resamples.means(chances)
            low, high = percentile_interval(drawn, axis=1)
            lower, upper = percentile_interval(drawn - drawn[-1], axis=1)
            for step, m in enumerate(dims):
                rows.append(
                    {
                        "dim": m,
                        "distractors": size,
                        "k": k,
                        "recall": float(chances[step].mean()),
                        "low": float(low[step]),
                        "high": float(high[step]),
                        "n": len(search.queries),
                    }
                )
            recall = chances.mean(axis=1)
            for step, m in enumerate(dims[:-1]):
                if breaks.get((m, k), {}).get("distractors") is None:
                    breaks[m, k] = {
                        "dim": m,
                        "k": k,
                        "distractors": size if upper[step] < -MARGIN else None,
                        "difference": float(recall[step] - recall[-1]),
                        "low": float(lower[step]),
                        "high": float(upper[step]),
                        "n": len(search.queries),
                    }
    return rows, list(breaks.values())
