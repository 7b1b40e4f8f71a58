"""The datasets that every other part works on: frozen, validated when they are made.

Texts are Python strings that can be encoded as UTF-8 and hold more than white space; labels, scores and
groups are numpy arrays of the same length. What is wrong raises `DataError` with the row (0-based) that is at fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import DataError
from probes.files import sha256_texts
from probes.validate import (
    array_hash,
    check_codes,
    check_groups,
    check_length,
    check_spans,
    check_texts,
    class_codes,
    joint_hash,
)

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Kind = Literal[
    "labelled", "labelled-pairs", "numbers", "pairs", "retrieval", "minimal-pairs", "token-labels"
]


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from: licence, a path or description, and notes a reader must know."""

    licence: str = "not stated"
    origin: str = ""
    notes: tuple[str, ...] = ()


def _hash_of(spans: IntArray | None) -> tuple[str, ...]:
    """Nothing for data without spans: their hashes are as they were before there were spans."""
    return () if spans is None else (array_hash(spans),)


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with one class each: `labels` (n,) integer codes into `label_names`; `groups` keep together.

    `spans` (n, 2) are the characters [start, end) of each text that the label is about, None for the whole text.
    """

    kind: ClassVar[Kind] = "labelled"
    name: str
    texts: tuple[str, ...]
    labels: IntArray
    label_names: tuple[str, ...]
    groups: NDArray[Any] | None = None
    source: Source = field(default_factory=Source)
    spans: IntArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", check_texts(self.texts))
        check_codes(self.labels, self.label_names, len(self.texts), "LabelledTexts")
        check_groups(self.groups, len(self.texts))
        object.__setattr__(self, "spans", check_spans(self.spans, self.texts))

    @classmethod
    def make(
        cls,
        name: str,
        texts: Sequence[str],
        labels: Sequence[Any] | NDArray[Any],
        groups: Sequence[Any] | NDArray[Any] | None = None,
        source: Source | None = None,
        spans: Sequence[tuple[int, int]] | IntArray | None = None,
    ) -> LabelledTexts:
        """From labels of one type (str, bool or int); missing labels and mixed types are refused."""
        codes, names = class_codes(labels)
        grouped = None if groups is None else np.asarray(groups)
        placed = None if spans is None else np.asarray(spans)
        return cls(name, tuple(texts), codes, names, grouped, source or Source(), placed)

    def __len__(self) -> int:
        return len(self.texts)

    def all_texts(self) -> tuple[str, ...]:
        """Every text that has to be encoded, in order, repeats included."""
        return self.texts

    def content_hash(self) -> str:
        return joint_hash(
            sha256_texts(self.texts),
            array_hash(self.labels),
            *self.label_names,
            array_hash(self.groups),
            *_hash_of(self.spans),
        )


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs of texts with one class each, e.g. entailment: `labels` (n,) integer codes into `label_names`.

    `spans` (n, 2, 2) hold the characters [start, end) of a word of interest, `spans[i, 0]` in `texts_a[i]` and
    `spans[i, 1]` in `texts_b[i]`; None for whole texts.
    """

    kind: ClassVar[Kind] = "labelled-pairs"
    name: str
    texts_a: tuple[str, ...]
    texts_b: tuple[str, ...]
    labels: IntArray
    label_names: tuple[str, ...]
    groups: NDArray[Any] | None = None
    source: Source = field(default_factory=Source)
    spans: IntArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts_a", check_texts(self.texts_a, "text_a"))
        object.__setattr__(self, "texts_b", check_texts(self.texts_b, "text_b"))
        if len(self.texts_a) != len(self.texts_b):
            raise DataError(f"{len(self.texts_a)} first texts but {len(self.texts_b)} second texts")
        check_codes(self.labels, self.label_names, len(self.texts_a), "LabelledPairs")
        check_groups(self.groups, len(self.texts_a))
        spans = check_spans(self.spans, self.texts_a, self.texts_b)
        object.__setattr__(self, "spans", spans)

    @classmethod
    def make(
        cls,
        name: str,
        texts: tuple[Sequence[str], Sequence[str]],
        labels: Sequence[Any] | NDArray[Any],
        groups: Sequence[Any] | NDArray[Any] | None = None,
        source: Source | None = None,
        spans: IntArray | None = None,
    ) -> LabelledPairs:
        """From first and second texts and labels of one type (str, bool or int)."""
        codes, names = class_codes(labels)
        grouped = None if groups is None else np.asarray(groups)
        return cls(
            name, tuple(texts[0]), tuple(texts[1]), codes, names, grouped, source or Source(), spans
        )

    def __len__(self) -> int:
        return len(self.texts_a)

    def all_texts(self) -> tuple[str, ...]:
        """First texts, then second ones."""
        return self.texts_a + self.texts_b

    def content_hash(self) -> str:
        return joint_hash(
            sha256_texts(self.texts_a),
            sha256_texts(self.texts_b),
            array_hash(self.labels),
            *self.label_names,
            array_hash(self.groups),
            *_hash_of(self.spans),
        )


@dataclass(frozen=True)
class LabelledNumbers:
    """Texts with one or more numbers each: `targets` (n, t) float64, e.g. a year, or latitude and longitude.

    `spans` (n, 2) are the characters [start, end) of each text that the numbers are about, None for the whole text.
    """

    kind: ClassVar[Kind] = "numbers"
    name: str
    texts: tuple[str, ...]
    targets: FloatArray
    target_names: tuple[str, ...]
    groups: NDArray[Any] | None = None
    source: Source = field(default_factory=Source)
    spans: IntArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", check_texts(self.texts))
        n, t = len(self.texts), len(self.target_names)
        targets = np.asarray(self.targets, dtype=np.float64)
        targets = targets[:, None] if targets.ndim == 1 else targets
        object.__setattr__(self, "targets", targets)
        if targets.shape != (n, t) or not t:
            raise DataError(
                f"targets have shape {targets.shape}, ({n}, {t}) is needed: one row per text, one column per name"
            )
        for row, column in np.argwhere(~np.isfinite(targets)).tolist():
            raise DataError(
                f"{self.target_names[column]} of row {row} is {targets[row, column]}: a finite number is needed"
            )
        for name, values in zip(self.target_names, targets.T, strict=True):
            if np.all(values == values[0]):
                raise DataError(
                    f"{name} is {values[0]:g} in all {n} rows: there is nothing to tell from the text"
                )
        check_groups(self.groups, n)
        object.__setattr__(self, "spans", check_spans(self.spans, self.texts))

    def __len__(self) -> int:
        return len(self.texts)

    def all_texts(self) -> tuple[str, ...]:
        return self.texts

    def content_hash(self) -> str:
        return joint_hash(
            sha256_texts(self.texts),
            array_hash(self.targets),
            *self.target_names,
            array_hash(self.groups),
            *_hash_of(self.spans),
        )


@dataclass(frozen=True)
class TextPairs:
    """Pairs of texts with a graded score each (any scale; only its order is used)."""

    kind: ClassVar[Kind] = "pairs"
    name: str
    texts_a: tuple[str, ...]
    texts_b: tuple[str, ...]
    scores: FloatArray
    groups: NDArray[Any] | None = None
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts_a", check_texts(self.texts_a, "text_a"))
        object.__setattr__(self, "texts_b", check_texts(self.texts_b, "text_b"))
        if len(self.texts_a) != len(self.texts_b):
            raise DataError(f"{len(self.texts_a)} first texts but {len(self.texts_b)} second texts")
        scores = np.asarray(self.scores, dtype=np.float64)
        object.__setattr__(self, "scores", scores)
        check_length("scores", scores, len(self.texts_a))
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise DataError(f"score of row {bad[0]} is {scores[bad[0]]}: a finite number is needed")
        if len(scores) < 2 or np.ptp(scores) == 0:
            raise DataError(
                "all scores are equal: a rank correlation needs at least two different scores"
            )
        check_groups(self.groups, len(self.texts_a))

    def __len__(self) -> int:
        return len(self.texts_a)

    def all_texts(self) -> tuple[str, ...]:
        return self.texts_a + self.texts_b

    def content_hash(self) -> str:
        return joint_hash(
            sha256_texts(self.texts_a),
            sha256_texts(self.texts_b),
            array_hash(self.scores),
            array_hash(self.groups),
        )


@dataclass(frozen=True)
class Retrieval:
    """Queries, documents, and graded relevance: `relevance` is (queries, documents), sparse, ≥ 0.

    Every query has at least one relevant document.
    """

    kind: ClassVar[Kind] = "retrieval"
    name: str
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    relevance: sparse.csr_array
    query_ids: tuple[str, ...] = ()
    document_ids: tuple[str, ...] = ()
    groups: NDArray[Any] | None = None
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        object.__setattr__(self, "queries", check_texts(self.queries, "query"))
        object.__setattr__(self, "documents", check_texts(self.documents, "document"))
        shape = (len(self.queries), len(self.documents))
        relevance = sparse.csr_array(self.relevance, dtype=np.float64)
        object.__setattr__(self, "relevance", relevance)
        if relevance.shape != shape:
            raise DataError(f"relevance has shape {relevance.shape}, {shape} is needed")
        if relevance.nnz and (not np.all(np.isfinite(relevance.data)) or relevance.data.min() < 0):
            raise DataError("relevance must be finite and not negative")
        relevance.eliminate_zeros()
        without = np.flatnonzero(np.diff(relevance.indptr) == 0)
        if len(without):
            raise DataError(f"query {without[0]} has no relevant document: remove it")
        for name, given, n in (
            ("query_ids", self.query_ids, shape[0]),
            ("document_ids", self.document_ids, shape[1]),
        ):
            ids = tuple(given) or tuple(str(i) for i in range(n))
            if len(ids) != n or len(set(ids)) != n:
                raise DataError(f"{name}: {len(set(ids))} different ids for {n} rows")
            object.__setattr__(self, name, ids)
        check_groups(self.groups, shape[0])

    def __len__(self) -> int:
        return len(self.queries)

    def all_texts(self) -> tuple[str, ...]:
        return self.queries + self.documents

    def content_hash(self) -> str:
        matrix = self.relevance
        return joint_hash(
            sha256_texts(self.queries),
            sha256_texts(self.documents),
            array_hash(matrix.data),
            array_hash(matrix.indices),
            array_hash(matrix.indptr),
            array_hash(self.groups),
        )


@dataclass(frozen=True)
class MinimalPairs:
    """Two texts that differ in one respect: `good[i]` is right, `bad[i]` is wrong."""

    kind: ClassVar[Kind] = "minimal-pairs"
    name: str
    good: tuple[str, ...]
    bad: tuple[str, ...]
    groups: NDArray[Any] | None = None
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        object.__setattr__(self, "good", check_texts(self.good, "good"))
        object.__setattr__(self, "bad", check_texts(self.bad, "bad"))
        if len(self.good) != len(self.bad):
            raise DataError(f"{len(self.good)} good texts but {len(self.bad)} bad texts")
        check_groups(self.groups, len(self.good))

    def __len__(self) -> int:
        return len(self.good)

    def all_texts(self) -> tuple[str, ...]:
        return self.good + self.bad

    def content_hash(self) -> str:
        return joint_hash(sha256_texts(self.good), sha256_texts(self.bad), array_hash(self.groups))


@dataclass(frozen=True)
class TokenLabels:
    """Words of each text with one class each: `labels[i][j]` belongs to `words[i][j]`."""

    kind: ClassVar[Kind] = "token-labels"
    name: str
    words: tuple[tuple[str, ...], ...]
    labels: tuple[tuple[str, ...], ...]
    groups: NDArray[Any] | None = None
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        if len(self.words) != len(self.labels):
            raise DataError(f"{len(self.words)} texts but labels for {len(self.labels)}")
        for row, (words, labels) in enumerate(zip(self.words, self.labels, strict=True)):
            if len(words) != len(labels) or not words:
                raise DataError(f"text {row} has {len(words)} words and {len(labels)} labels")
        check_groups(self.groups, len(self.words))

    def __len__(self) -> int:
        return len(self.words)

    def all_texts(self) -> tuple[str, ...]:
        return tuple(" ".join(words) for words in self.words)

    def content_hash(self) -> str:
        flat = ["\x1f".join(words) for words in self.words] + [
            "\x1f".join(row) for row in self.labels
        ]
        return joint_hash(sha256_texts(flat), array_hash(self.groups))


Dataset = (
    LabelledTexts
    | LabelledPairs
    | LabelledNumbers
    | TextPairs
    | Retrieval
    | MinimalPairs
    | TokenLabels
)
