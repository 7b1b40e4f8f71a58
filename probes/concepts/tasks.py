"""What a concept asks of the states: which texts are read, at which tokens, and what is to be told from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError, InputError
from probes.types import (
    Dataset,
    LabelledNumbers,
    LabelledPairs,
    LabelledTexts,
    MinimalPairs,
    TextPairs,
    TokenLabels,
)

if TYPE_CHECKING:
    from probes.datasets import ConceptData

Kind = Literal["classes", "pairs", "minimal-pairs", "numbers", "tokens"]
Spans = tuple[tuple[tuple[int, int], ...], ...]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Reading:
    """What the model reads: texts, and the character spans at which states are taken (None: the pooled text).

    Texts with the same entry in `keys` get the same noise, so that it does not tell the sides of a minimal pair apart.
    """

    texts: tuple[str, ...]
    spans: Spans | None = None
    keys: tuple[str, ...] | None = None

    def in_template(self, template: str) -> Reading:
        """The same within a template that holds {} once; spans move along.

        >>> Reading(("Gold",), (((0, 4),),)).in_template("True? {}!")
        Reading(texts=('True? Gold!',), spans=(((6, 10),),), keys=None)
        """
        before, found, after = template.partition("{}")
        if not found or "{}" in after:
            raise InputError(f"template {template!r}: {{}} is needed once, where the text goes")
        texts = tuple(f"{before}{text}{after}" for text in self.texts)
        if self.spans is None:
            return replace(self, texts=texts)
        moved = tuple(
            tuple((a + len(before), b + len(before)) for a, b in row) for row in self.spans
        )
        return replace(self, texts=texts, spans=moved)


@dataclass(frozen=True)
class Target:
    """What is to be told: class codes (n,) with their names, or numbers (n, t) with theirs; None for minimal pairs."""

    values: NDArray[Any] | None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConceptTask:
    """One concept ready to be measured.

    `views` are numbers of captured rows: one array (n,) where each example is one state, two for pairs. `words` is
    what a bag of words reads; `types` (n,) the word type of every token, for the control task.
    """

    name: str
    family: str
    kind: Kind
    reading: Reading
    views: tuple[IntArray, ...]
    target: Target
    dataset: Dataset
    groups: NDArray[Any] | None = None
    types: tuple[str, ...] | None = field(default=None)

    @property
    def n(self) -> int:
        return len(self.views[0])

    @property
    def words(self) -> Sequence[str] | Sequence[tuple[str, str]]:
        """What the bag of words reads of every example."""
        if self.types is not None:
            return self.types
        texts = self.reading.texts
        if self.kind == "pairs":
            a, b = self.views
            return [(texts[i], texts[j]) for i, j in zip(a, b, strict=True)]
        return [texts[i] for i in self.views[0]]

    def shown(self) -> list[str]:
        """Every example as a reader would want to see it."""
        texts, spans = self.reading.texts, self.reading.spans
        if len(self.views) == 2:
            return [f"{texts[i]} | {texts[j]}" for i, j in zip(*self.views, strict=True)]
        if self.kind != "tokens" or spans is None:
            return [texts[i] for i in self.views[0]]
        marked = [
            f"{text[:a]}[{text[a:b]}]{text[b:]}"
            for text, row in zip(texts, spans, strict=True)
            for a, b in row
        ]
        return [marked[i] for i in self.views[0]]

    @property
    def labels(self) -> NDArray[Any]:
        """Class codes or numbers."""
        assert self.target.values is not None
        return self.target.values

    @property
    def measure(self) -> str:
        """What the curve of this concept shows."""
        return "r2" if self.kind == "numbers" else "accuracy"

    @property
    def is_binary(self) -> bool:
        """Whether it is a question with two answers asked of single texts."""
        return self.kind == "classes" and len(np.unique(self.labels)) == 2


def make_task(concept: ConceptData) -> ConceptTask:
    """The task of a concept; `InputError` for data that label nothing."""
    data = concept.dataset
    make = _MAKERS.get(data.kind)
    if make is None:
        raise InputError(
            f"concept {concept.name!r}: {data.kind} data hold no concept. Labelled texts, pairs or words, minimal "
            "pairs and texts with numbers do; choose an exit for the others with exit-layers"
        )
    task = make(data)
    return replace(task, name=concept.name, family=concept.family)


def _one_span_each(spans: NDArray[Any] | None) -> Spans | None:
    if spans is None:
        return None
    return tuple(((int(a), int(b)),) for a, b in spans)


def _of_texts(data: LabelledTexts) -> ConceptTask:
    reading = Reading(data.texts, _one_span_each(data.spans))
    target = Target(data.labels, data.label_names)
    rows = np.arange(len(data))
    return ConceptTask("", "", "classes", reading, (rows,), target, data, data.groups)


def _of_numbers(data: LabelledNumbers) -> ConceptTask:
    reading = Reading(data.texts, _one_span_each(data.spans))
    target = Target(data.targets, data.target_names)
    rows = np.arange(len(data))
    return ConceptTask("", "", "numbers", reading, (rows,), target, data, data.groups)


def _two_views(n: int) -> tuple[IntArray, IntArray]:
    return np.arange(n), np.arange(n, 2 * n)


def _of_pairs(data: LabelledPairs) -> ConceptTask:
    spans = None
    if data.spans is not None:
        spans = _one_span_each(np.concatenate([data.spans[:, 0], data.spans[:, 1]]))
    reading = Reading(data.texts_a + data.texts_b, spans)
    target = Target(data.labels, data.label_names)
    return ConceptTask("", "", "pairs", reading, _two_views(len(data)), target, data, data.groups)


def _of_scored(data: TextPairs) -> ConceptTask:
    """Pairs that came with numbers: two different ones are classes, more are a graded score."""
    grades, codes = np.unique(data.scores, return_inverse=True)
    if len(grades) != 2:
        raise DataError(
            f"pairs of {data.name!r} have {len(grades)} different scores: a concept of pairs needs classes "
            "(--columns label=COLUMN); graded similarity is what exit-layers measures"
        )
    names = tuple(f"{grade:g}" for grade in grades)
    reading = Reading(data.texts_a + data.texts_b)
    target = Target(codes.astype(np.int64), names)
    return ConceptTask("", "", "pairs", reading, _two_views(len(data)), target, data, data.groups)


def _of_minimal(data: MinimalPairs) -> ConceptTask:
    reading = Reading(data.good + data.bad, keys=data.good + data.good)
    views = _two_views(len(data))
    return ConceptTask("", "", "minimal-pairs", reading, views, Target(None), data, data.groups)


def _of_tokens(data: TokenLabels) -> ConceptTask:
    """Every word is an example; words of one text (or group) belong together."""
    from probes.capture import word_spans

    placed = [word_spans(words) for words in data.words]
    reading = Reading(tuple(text for text, _ in placed), tuple(tuple(spans) for _, spans in placed))
    sizes = [len(words) for words in data.words]
    names, codes = np.unique([tag for row in data.labels for tag in row], return_inverse=True)
    owners = np.arange(len(data)) if data.groups is None else data.groups
    types = tuple(word.lower() for words in data.words for word in words)
    target = Target(codes.astype(np.int64), tuple(str(name) for name in names))
    rows = np.arange(sum(sizes))
    return ConceptTask(
        "", "", "tokens", reading, (rows,), target, data, np.repeat(owners, sizes), types
    )


_MAKERS: Mapping[str, Any] = {
    "labelled": _of_texts,
    "numbers": _of_numbers,
    "labelled-pairs": _of_pairs,
    "pairs": _of_scored,
    "minimal-pairs": _of_minimal,
    "token-labels": _of_tokens,
}
