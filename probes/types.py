"""The datasets that every other part works on: frozen, validated when they are made.

Texts are Python strings that can be encoded as UTF-8 and hold more than white space; labels, scores and
groups are numpy arrays of the same length. What is wrong raises `DataError` with the row (0-based) that is at fault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import DataError
from probes.files import sha256_texts

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Kind = Literal["labelled", "pairs", "retrieval", "minimal-pairs", "token-labels"]


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from: licence, a path or description, and notes a reader must know."""

    licence: str = "not stated"
    origin: str = ""
    notes: tuple[str, ...] = ()


def check_texts(texts: Sequence[str], what: str = "text") -> tuple[str, ...]:
    """`texts` as a tuple; refuses emptiness, other types and lone surrogates, naming the row."""
    if isinstance(texts, str):
        raise DataError(f"one string came where a list of {what}s is needed: wrap it in a list")
    checked: list[str] = []
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"{what} {row} is {type(text).__name__}, a string is needed")
        if not text.strip():
            raise DataError(f"{what} {row} is empty: remove the row or give it a text")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"{what} {row} holds a lone surrogate at character {error.start}"
            ) from None
        checked.append(text)
    if not checked:
        raise DataError(f"no {what}s came: at least one is needed")
    return tuple(checked)


def _check_length(name: str, values: NDArray[Any], n: int) -> None:
    if values.ndim != 1 or len(values) != n:
        raise DataError(f"{name} has shape {values.shape}, ({n},) is needed: one per row")


def _check_groups(groups: NDArray[Any] | None, n: int) -> None:
    if groups is not None:
        _check_length("groups", groups, n)


def _array_hash(values: NDArray[Any] | None) -> str:
    if values is None:
        return "-"
    if values.dtype == object or values.dtype.kind in "US":
        return sha256_texts([str(v) for v in values])
    plain = np.ascontiguousarray(values)
    return hashlib.sha256(plain.dtype.str.encode() + plain.tobytes()).hexdigest()


def _joint_hash(*parts: str) -> str:
    return sha256_texts(list(parts))


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with one class each: `labels` (n,) integer codes into `label_names`; `groups` keep together."""

    kind: ClassVar[Kind] = "labelled"
    name: str
    texts: tuple[str, ...]
    labels: IntArray
    label_names: tuple[str, ...]
    groups: NDArray[Any] | None = None
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", check_texts(self.texts))
        _check_length("labels", self.labels, len(self.texts))
        _check_groups(self.groups, len(self.texts))
        if self.labels.dtype.kind not in "iu":
            raise DataError("labels must be integer codes into label_names: use LabelledTexts.make")
        present = np.unique(self.labels)
        if present[0] < 0 or present[-1] >= len(self.label_names):
            raise DataError(
                f"label code {present[0] if present[0] < 0 else present[-1]} has no name"
            )
        if len(present) < 2:
            only = self.label_names[int(present[0])]
            raise DataError(
                f"all {len(self.texts)} rows have the label {only!r}: two classes are needed"
            )

    @classmethod
    def make(
        cls,
        name: str,
        texts: Sequence[str],
        labels: Sequence[Any] | NDArray[Any],
        groups: Sequence[Any] | NDArray[Any] | None = None,
        source: Source | None = None,
    ) -> LabelledTexts:
        """From labels of one type (str, bool or int); missing labels and mixed types are refused."""
        values = list(labels)
        for row, value in enumerate(values):
            if value is None or value == "" or (isinstance(value, float) and value != value):
                raise DataError(f"label of row {row} is missing: remove the row or label it")
        types = {
            (
                "str"
                if isinstance(v, str)
                else "bool"
                if isinstance(v, (bool, np.bool_))
                else "number"
                if isinstance(v, (int, np.integer, float, np.floating))
                else type(v).__name__
            )
            for v in values
        }
        if len(types) > 1:
            raise DataError(
                f"labels of mixed types ({', '.join(sorted(types))}): make them all one type"
            )
        for row, value in enumerate(values):
            if isinstance(value, (float, np.floating)) and float(value) != int(value):
                raise DataError(
                    f"label of row {row} is {value}: classes must be whole numbers or strings; "
                    "a score for a pair of texts goes with text_a,text_b"
                )
        plain = [int(v) if isinstance(v, (float, np.floating)) else v for v in values]
        names = sorted(set(plain))
        code = {label: index for index, label in enumerate(names)}
        codes = np.asarray([code[label] for label in plain], dtype=np.int64)
        grouped = None if groups is None else np.asarray(groups)
        return cls(
            name, tuple(texts), codes, tuple(str(n) for n in names), grouped, source or Source()
        )

    def __len__(self) -> int:
        return len(self.texts)

    def all_texts(self) -> tuple[str, ...]:
        """Every text that has to be encoded, in order, repeats included."""
        return self.texts

    def content_hash(self) -> str:
        return _joint_hash(
            sha256_texts(self.texts),
            _array_hash(self.labels),
            *self.label_names,
            _array_hash(self.groups),
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
        _check_length("scores", scores, len(self.texts_a))
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise DataError(f"score of row {bad[0]} is {scores[bad[0]]}: a finite number is needed")
        if len(scores) < 2 or np.ptp(scores) == 0:
            raise DataError(
                "all scores are equal: a rank correlation needs at least two different scores"
            )
        _check_groups(self.groups, len(self.texts_a))

    def __len__(self) -> int:
        return len(self.texts_a)

    def all_texts(self) -> tuple[str, ...]:
        return self.texts_a + self.texts_b

    def content_hash(self) -> str:
        return _joint_hash(
            sha256_texts(self.texts_a),
            sha256_texts(self.texts_b),
            _array_hash(self.scores),
            _array_hash(self.groups),
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
        _check_groups(self.groups, shape[0])

    def __len__(self) -> int:
        return len(self.queries)

    def all_texts(self) -> tuple[str, ...]:
        return self.queries + self.documents

    def content_hash(self) -> str:
        matrix = self.relevance
        return _joint_hash(
            sha256_texts(self.queries),
            sha256_texts(self.documents),
            _array_hash(matrix.data),
            _array_hash(matrix.indices),
            _array_hash(matrix.indptr),
            _array_hash(self.groups),
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
        _check_groups(self.groups, len(self.good))

    def __len__(self) -> int:
        return len(self.good)

    def all_texts(self) -> tuple[str, ...]:
        return self.good + self.bad

    def content_hash(self) -> str:
        return _joint_hash(
            sha256_texts(self.good), sha256_texts(self.bad), _array_hash(self.groups)
        )


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
        _check_groups(self.groups, len(self.words))

    def __len__(self) -> int:
        return len(self.words)

    def all_texts(self) -> tuple[str, ...]:
        return tuple(" ".join(words) for words in self.words)

    def content_hash(self) -> str:
        flat = ["\x1f".join(words) for words in self.words] + [
            "\x1f".join(row) for row in self.labels
        ]
        return _joint_hash(sha256_texts(flat), _array_hash(self.groups))


Dataset = LabelledTexts | TextPairs | Retrieval | MinimalPairs | TokenLabels
