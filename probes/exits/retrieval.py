"""Queries, documents and graded relevance: where the relevant documents rank at every width.

A document's rank is one plus the number of documents before it. Ties are broken against us: among equal cosines the
less relevant document comes first, then the one with the lower index, so that a collapsed space scores low, not high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.exits.resample import Resamples
from probes.exits.similarity import cumulative_squares, segments

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

BLOCK_CELLS = 2**22  # similarities held at once: a block of queries against all documents
CUTOFF = 10
FEW = 8  # up to so many relevant documents per query are counted one by one; more are found by sorting


@dataclass(frozen=True)
class RetrievalTask:
    """Rows of the encoded texts for queries and documents, `relevance`, and each query's cluster."""

    kind: ClassVar[str] = "retrieval"
    primary: ClassVar[str] = "ndcg_at_10"
    measures: ClassVar[tuple[str, ...]] = ("ndcg_at_10", "recall_at_1", "recall_at_10", "mrr")
    name: str
    queries: IntArray  # (n,)
    documents: IntArray  # (m,)
    relevance: sparse.csr_array  # (n, m), at least one entry > 0 per row
    clusters: IntArray  # (n,)

    def __len__(self) -> int:
        return len(self.queries)

    def part(self, rows: IntArray) -> RetrievalTask:
        """The queries `rows` against all documents."""
        return replace(
            self,
            queries=self.queries[rows],
            relevance=self.relevance[rows],
            clusters=self.clusters[rows],
        )

    def text_rows(self, rows: IntArray) -> IntArray:
        """Rows of the encoded texts that the queries `rows` use: their own and those of all documents."""
        return np.unique(np.concatenate([self.queries[rows], self.documents]))

    def score(self, states: Array, dims: Sequence[int], fit: IntArray) -> dict[str, Array]:
        """Every measure per query at every width: {measure: (dims, n)}; `fit` is not needed here."""
        found = relevant_ranks(states, self.queries, self.documents, self.relevance, dims)
        return ranking_measures(found, self.relevance)

    def estimate(self, measure: str, scores: Array, rows: IntArray) -> Array:
        """Mean over the queries `rows` (cells,)."""
        return scores[:, rows].mean(axis=1)

    def draws(self, measure: str, scores: Array, rows: IntArray, resamples: Resamples) -> Array:
        """The measure (cells, draws) under every resample of `rows`."""
        return resamples.means(scores[:, rows])

    def chance(self, rows: IntArray, fit: IntArray) -> Array:
        """Expected nDCG@10 per query (rows,) when the documents come in random order."""
        places = 1 / np.log2(np.arange(2, min(CUTOFF, len(self.documents)) + 2))
        gain = np.asarray(self.relevance.sum(axis=1)).ravel() / len(self.documents)
        return (gain * places.sum() / _ideal(self.relevance))[rows]

    def losses(self, scores: Array, rows: IntArray) -> Array:
        """(cells, rows): 1 − nDCG@10 of every query."""
        return np.clip(1 - scores[:, rows], 0, 1)


def relevant_ranks(
    states: Array,
    queries: IntArray,
    documents: IntArray,
    relevance: sparse.csr_array,
    dims: Sequence[int],
) -> IntArray:
    """Rank (from 1) of every relevant document in the order of `relevance.data`, at every width: (dims, nnz).

    Blocks of queries against all documents, inner products accumulated from width to width: exact, and the memory is
    bounded by one block.
    """
    distinct, place = np.unique(documents, return_inverse=True)  # equal texts must tie exactly
    copies = None if len(distinct) == len(documents) else np.bincount(place)
    pool = states[distinct]
    lengths = np.sqrt(cumulative_squares(pool, dims)).astype(states.dtype)  # (dims, documents)
    inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    result = np.empty((len(dims), relevance.nnz), dtype=np.int64)
    block = max(1, BLOCK_CELLS // max(1, len(distinct)))
    for low in range(0, len(queries), block):
        high = min(low + block, len(queries))
        here = slice(int(relevance.indptr[low]), int(relevance.indptr[high]))
        entries = _Entries.make(relevance, low, high, place)
        products = np.zeros((high - low, len(distinct)), dtype=states.dtype)
        asked = states[queries[low:high]]
        for step, (first, last) in enumerate(segments(dims)):
            products += asked[:, first:last] @ pool[:, first:last].T
            result[step, here] = entries.ranks(products * inverse[step], copies)
    return result


@dataclass(frozen=True)
class _Entries:
    """The relevant documents of a block of queries, flat: query row, column of the pool, gain, document index."""

    row: IntArray
    column: IntArray
    gain: Array
    document: IntArray
    starts: IntArray  # (queries + 1,) borders of each query's entries

    @classmethod
    def make(cls, relevance: sparse.csr_array, low: int, high: int, place: IntArray) -> _Entries:
        starts = np.asarray(relevance.indptr[low : high + 1], dtype=np.int64)
        here = slice(int(starts[0]), int(starts[-1]))
        document = np.asarray(relevance.indices[here])
        starts = starts - starts[0]
        row = np.repeat(np.arange(high - low), np.diff(starts))
        return cls(
            row,
            place[document],
            np.asarray(relevance.data[here], dtype=np.float64),
            document,
            starts,
        )

    def ranks(self, similarity: Array, copies: IntArray | None) -> IntArray:
        """Ranks of all entries, given the block's similarities (queries, distinct documents)."""
        own = similarity[self.row, self.column]  # (entries,)
        at_least = self._at_least(similarity, own, copies)
        ranks = at_least.copy()
        for query in self._with_ties(own):
            mine = slice(self.starts[query], self.starts[query + 1])
            s, gain, document = own[mine], self.gain[mine], self.document[mine]
            tied = s[None, :] == s[:, None]  # [i, j]: does j tie with i?
            later = (gain[None, :] > gain[:, None]) | (
                (gain[None, :] == gain[:, None]) & (document[None, :] > document[:, None])
            )
            ranks[mine] -= (tied & later).sum(axis=1)
        return ranks

    def _with_ties(self, own: Array) -> IntArray:
        """Queries of which two relevant documents have the same similarity."""
        order = np.lexsort((own, self.row))
        same = (own[order][1:] == own[order][:-1]) & (self.row[order][1:] == self.row[order][:-1])
        return np.unique(self.row[order][1:][same])

    def _at_least(self, similarity: Array, own: Array, copies: IntArray | None) -> IntArray:
        """How many documents of the query's row have at least the entry's similarity, itself included."""
        result = np.empty(len(own), dtype=np.int64)
        sizes = np.diff(self.starts)
        few = sizes <= FEW
        for nth in range(min(FEW, int(sizes.max()))):
            rows = np.flatnonzero(few & (sizes > nth))
            entry = self.starts[rows] + nth
            above = similarity[rows] >= own[entry][:, None]
            result[entry] = np.count_nonzero(above, axis=1) if copies is None else above @ copies
        for row in np.flatnonzero(~few):
            mine = slice(self.starts[row], self.starts[row + 1])
            line = similarity[row] if copies is None else np.repeat(similarity[row], copies)
            result[mine] = len(line) - np.searchsorted(np.sort(line), own[mine], side="left")
        return result


def ranking_measures(found: IntArray, relevance: sparse.csr_array) -> dict[str, Array]:
    """nDCG@10, recall@1, recall@10 and reciprocal rank per query from the ranks (cells, nnz): {measure: (cells,
    queries)}.

    * recall@k: share of the query's relevant documents among the first k.
    * reciprocal rank: 1 / rank of the first relevant document, over all documents.
    * nDCG@10: Σ gain / log₂(rank + 1) over the first ten, divided by the best possible sum; the gain is the relevance
      itself (as in trec_eval), not 2^relevance − 1.
    """
    starts = np.asarray(relevance.indptr[:-1], dtype=np.int64)
    sizes = np.diff(relevance.indptr)
    gains = np.asarray(relevance.data, dtype=np.float64)
    discounted = np.where(found <= CUTOFF, gains / np.log2(found + 1), 0.0)
    dcg = np.add.reduceat(discounted, starts, axis=1)
    return {
        "ndcg_at_10": dcg / _ideal(relevance),
        "recall_at_1": np.add.reduceat((found <= 1).astype(np.float64), starts, axis=1) / sizes,
        "recall_at_10": np.add.reduceat((found <= CUTOFF).astype(np.float64), starts, axis=1)
        / sizes,
        "mrr": 1.0 / np.minimum.reduceat(found, starts, axis=1),
    }


def _ideal(relevance: sparse.csr_array) -> Array:
    """Best possible DCG@10 of every query."""
    best = np.empty(len(relevance.indptr) - 1)
    for query, (low, high) in enumerate(
        zip(relevance.indptr[:-1], relevance.indptr[1:], strict=True)
    ):
        top = np.sort(relevance.data[low:high])[::-1][:CUTOFF]
        best[query] = (top / np.log2(np.arange(2, len(top) + 2))).sum()
    return best
