"""Long documents in pieces: chunks encoded within their document (late), each alone (first), or the whole at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import DoesNotApply
from probes.exits.resample import Resamples
from probes.exits.retrieval import BLOCK_CELLS, ranking_measures
from probes.linalg import normalise_rows
from probes.stats import percentile_interval

if TYPE_CHECKING:
    from probes.models import Model

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Span = tuple[int, int]

CHUNK = 64  # tokens that a chunk holds at most, sentences kept whole
FEWEST = 20  # queries that look for a document of several chunks
MEASURE = "ndcg_at_10"


@dataclass(frozen=True)
class Chunked:
    """Texts cut to what the model reads, and the spans of their chunks, at least one each."""

    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]

    @property
    def pieces(self) -> tuple[str, ...]:
        """The chunks as texts of their own, document after document."""
        return tuple(
            text[start:end]
            for text, spans in zip(self.texts, self.spans, strict=True)
            for start, end in spans
        )

    @property
    def sizes(self) -> IntArray:
        """Chunks per document (m,)."""
        return np.asarray([len(spans) for spans in self.spans], dtype=np.int64)


def chunk_texts(
    model: Model,
    texts: Sequence[str],
    max_length: int | None = None,
    prompt: str = "",
    chunk: int = CHUNK,
) -> Chunked:
    """Every text cut to what the model reads after `prompt`, its sentences grouped into chunks of ≤ `chunk` tokens.

    A longer sentence is a chunk of its own. All methods see the same characters; the prompt is in none of them.
    """
    from probes.capture.spans import sentence_spans
    from probes.capture.tokens import TextEncoder

    longest = min(max_length or model.max_length, model.max_length)
    encoder = TextEncoder(model.require_tokenizer(), longest, prompt, offsets=True)
    cut: list[str] = []
    spans: list[tuple[Span, ...]] = []
    for text, tokens in zip(texts, encoder(texts), strict=True):
        assert tokens.offsets is not None
        kept = np.maximum(tokens.offsets.kept - len(prompt), 0)
        kept = kept[kept[:, 1] > kept[:, 0]]
        text = text[: int(kept[:, 1].max())] if tokens.truncated and len(kept) else text
        cut.append(text)
        spans.append(tuple(_grouped(sentence_spans(text), kept, chunk)))
    return Chunked(tuple(cut), tuple(spans))


def _grouped(sentences: Sequence[Span], tokens: IntArray, most: int) -> list[Span]:
    """Sentences that follow each other, joined while they hold at most `most` tokens; those without one are joined."""
    found: list[Span] = []
    size = 0
    for start, end in sentences:
        own = int(((tokens[:, 0] < end) & (tokens[:, 1] > start)).sum())
        if found and (size + own <= most or not own or not size):
            found[-1] = (found[-1][0], end)
            size += own
        else:
            found.append((start, end))
            size = own
    return found


def best_chunk_ranks(
    queries: Array, chunks: Array, sizes: IntArray, relevance: sparse.csr_array
) -> IntArray:
    """Rank (from 1) of every relevant document by its best chunk, in the order of `relevance.data`: (nnz,).

    `queries` (n, d), `chunks` (Σ sizes, d) document after document; nearness is the cosine, ties count against us.

    >>> relevance = sparse.csr_array(np.array([[0.0, 1.0]]))
    >>> best_chunk_ranks(np.array([[1.0, 0]]), np.array([[0.0, 1], [0, 1], [2, 0]]), np.array([1, 2]), relevance)
    array([1])
    """
    asked, pool = normalise_rows(queries), normalise_rows(chunks)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    found = np.empty(relevance.nnz, dtype=np.int64)
    block = max(1, BLOCK_CELLS // max(1, len(pool)))
    for low in range(0, len(asked), block):
        high = min(low + block, len(asked))
        scores = np.maximum.reduceat(asked[low:high] @ pool.T, starts, axis=1)
        for row in range(low, high):
            mine = slice(int(relevance.indptr[row]), int(relevance.indptr[row + 1]))
            own = scores[row - low, relevance.indices[mine]]
            found[mine] = (scores[row - low][None, :] >= own[:, None]).sum(axis=1)
    return found


def long_queries(sizes: IntArray, relevance: sparse.csr_array) -> IntArray:
    """Queries that look for a document of more than one chunk; `DoesNotApply` where they are too few."""
    several = relevance.copy()
    several.data = (sizes[several.indices] > 1).astype(np.float64)
    rows = np.flatnonzero(np.asarray(several.sum(axis=1)).ravel() > 0)
    if len(rows) < FEWEST:
        raise DoesNotApply(
            f"{len(rows)} queries look for a document of more than {CHUNK} tokens, {FEWEST} are needed: "
            "no long documents to be cut into chunks"
        )
    return rows


def chunking_rows(
    queries: Array, methods: dict[str, tuple[Array, IntArray]], relevance: sparse.csr_array,
    resamples: Resamples,
) -> list[dict[str, Any]]:  # fmt: skip
    """nDCG@10 of every method at one layer, and what `late` adds to `first`, paired over queries.

    `methods` name vectors and their number per document. Rows have method, measure, value, low, high, difference,
    difference_low, difference_high, n; the difference is late − first, and null for the other methods.
    """
    scores = {
        name: ranking_measures(
            best_chunk_ranks(queries, vectors, sizes, relevance)[None, :], relevance
        )[MEASURE]
        for name, (vectors, sizes) in methods.items()
    }
    rows: list[dict[str, Any]] = []
    for name, own in scores.items():
        low, high = percentile_interval(resamples.means(own)[0])
        row: dict[str, Any] = {"method": name, "measure": MEASURE, "value": float(own.mean())}
        row.update(low=float(low), high=float(high), n=own.shape[1])
        row.update(difference=None, difference_low=None, difference_high=None)
        if name == "late":
            gain = own - scores["first"]
            low, high = percentile_interval(resamples.means(gain)[0])
            row.update(
                difference=float(gain.mean()),
                difference_low=float(low),
                difference_high=float(high),
            )
        rows.append(row)
    return rows
