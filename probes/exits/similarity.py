"""Pairs of texts with a score: Spearman correlation of their cosine at every width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from probes.exits.resample import Resamples
from probes.stats import ranks, spearman

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class SimilarityTask:
    """Pairs (a[i], b[i]) of rows of the encoded texts, their `gold` scores, and the cluster each pair belongs to."""

    kind: ClassVar[str] = "similarity"
    primary: ClassVar[str] = "spearman"
    measures: ClassVar[tuple[str, ...]] = ("spearman",)
    name: str
    a: IntArray  # (n,)
    b: IntArray  # (n,)
    gold: Array  # (n,)
    clusters: IntArray  # (n,)

    def __len__(self) -> int:
        return len(self.gold)

    def part(self, rows: IntArray) -> SimilarityTask:
        return replace(
            self, a=self.a[rows], b=self.b[rows], gold=self.gold[rows], clusters=self.clusters[rows]
        )

    def text_rows(self, rows: IntArray) -> IntArray:
        """Rows of the encoded texts that the examples `rows` use."""
        return np.unique(np.concatenate([self.a[rows], self.b[rows]]))

    def score(self, states: Array, dims: Sequence[int], fit: IntArray) -> dict[str, Array]:
        """Cosine of every pair at every width: {"spearman": (dims, n)}; `fit` is not needed here."""
        return {"spearman": cosines(states, self.a, self.b, dims)}

    def estimate(self, measure: str, scores: Array, rows: IntArray) -> Array:
        """Spearman per cell (cells,) over the examples `rows`."""
        return np.asarray(spearman(scores[:, rows], self.gold[rows]))

    def draws(self, measure: str, scores: Array, rows: IntArray, resamples: Resamples) -> Array:
        """The measure (cells, draws) under every resample of `rows`."""
        return resamples.spearman(scores[:, rows], self.gold[rows])

    def chance(self, rows: IntArray, fit: IntArray) -> Array:
        """Chance level per example (rows,): 0, no correlation."""
        return np.zeros(len(rows))

    def losses(self, scores: Array, rows: IntArray) -> Array:
        """(cells, rows): half the squared difference of standardised ranks; the mean over `rows` is 1 − ρ exactly."""
        gold = _standard_ranks(self.gold[rows])
        return (_standard_ranks(scores[:, rows]) - gold) ** 2 / 2


def _standard_ranks(values: Array) -> Array:
    ranked = ranks(values)
    ranked = ranked - ranked.mean(axis=-1, keepdims=True)
    spread = np.sqrt((ranked**2).mean(axis=-1, keepdims=True))
    return np.divide(ranked, spread, out=np.zeros_like(ranked), where=spread > 0)


def segments(dims: Sequence[int]) -> list[tuple[int, int]]:
    """Column ranges between successive widths.

    >>> segments([8, 16, 24])
    [(0, 8), (8, 16), (16, 24)]
    """
    return list(zip([0, *dims[:-1]], dims, strict=True))


def cumulative_squares(states: Array, dims: Sequence[int]) -> Array:
    """Squared length of every row's first m coordinates, for every width m: (dims, rows) float64."""
    result = np.empty((len(dims), len(states)))
    for step, (low, high) in enumerate(segments(dims)):
        piece = np.asarray(states[:, low:high], dtype=np.float64)
        result[step] = np.einsum("id,id->i", piece, piece)
    return np.cumsum(result, axis=0)


def cosines(states: Array, a: IntArray, b: IntArray, dims: Sequence[int]) -> Array:
    """Cosine of rows a[i] and b[i] of `states` (texts, d) cut to their first m coordinates, for every m: (dims, n).

    Inner products and squared lengths are accumulated from width to width, so all widths cost what the last one does.
    A zero vector has cosine 0 with everything.

    >>> cosines(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([0]), np.array([1]), [1, 2]).round(3).tolist()
    [[1.0], [0.707]]
    """
    products = np.empty((len(dims), len(a)))
    for step, (low, high) in enumerate(segments(dims)):
        piece = np.asarray(states[:, low:high], dtype=np.float64)
        products[step] = np.einsum("id,id->i", piece[a], piece[b])
    squares = cumulative_squares(states, dims)
    lengths = np.sqrt(squares[:, a] * squares[:, b])
    top = np.cumsum(products, axis=0)
    return np.divide(top, lengths, out=np.zeros_like(top), where=lengths > 0)
