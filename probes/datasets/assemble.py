"""From the rows of a table to a validated dataset; every complaint names the line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.datasets.columns import Choice
from probes.datasets.reading import Table
from probes.datasets.relevance import query_table
from probes.datasets.roles import Classes, by_role, not_empty, take_group, taken_groups
from probes.datasets.values import find_span, good_number, good_text, is_number, word_span
from probes.errors import DataError, InputError
from probes.types import (
    Dataset,
    LabelledNumbers,
    LabelledPairs,
    LabelledTexts,
    MinimalPairs,
    Source,
    TextPairs,
    TokenLabels,
)


def _spans(rows: list[tuple[int, int]]) -> NDArray[np.int64] | None:
    return np.asarray(rows, dtype=np.int64) if rows else None


def _labelled(table: Table, choice: Choice, name: str, source: Source) -> LabelledTexts:
    texts: list[str] = []
    classes = Classes(table, choice.columns["label"])
    groups: list[str] = []
    spans: list[tuple[int, int]] = []
    for line, row in by_role(table, choice):
        where = table.where(line)
        texts.append(good_text(row["text"], "text", where))
        classes.take(row["label"], line)
        take_group(groups, row, where)
        if "span" in row:
            spans.append(find_span(row["span"], texts[-1], where))
    labels = classes.clean()
    grouped = taken_groups(groups, choice)
    return LabelledTexts.make(name, texts, labels, grouped, source, _spans(spans))


def _labelled_pairs(table: Table, choice: Choice, name: str, source: Source) -> LabelledPairs:
    a: list[str] = []
    b: list[str] = []
    classes = Classes(table, choice.columns["label"])
    groups: list[str] = []
    spans: list[tuple[tuple[int, int], tuple[int, int]]] = []
    positions = [role for role in ("word_a", "word_b") if role in choice.columns]
    if len(positions) == 1:
        raise InputError(f"{positions[0]} is named alone: name both word_a and word_b")
    for line, row in by_role(table, choice):
        where = table.where(line)
        a.append(good_text(row["text_a"], "first text", where))
        b.append(good_text(row["text_b"], "second text", where))
        classes.take(row["label"], line)
        take_group(groups, row, where)
        if positions:
            spans.append(
                (
                    word_span(row["word_a"], a[-1], "word_a", where),
                    word_span(row["word_b"], b[-1], "word_b", where),
                )
            )
    labels = classes.clean()
    placed = np.asarray(spans, dtype=np.int64) if spans else None
    return LabelledPairs.make(name, (a, b), labels, taken_groups(groups, choice), source, placed)


def _numbers(table: Table, choice: Choice, name: str, source: Source) -> LabelledNumbers:
    texts: list[str] = []
    targets: list[list[float]] = []
    groups: list[str] = []
    spans: list[tuple[int, int]] = []
    for line, row in by_role(table, choice):
        where = table.where(line)
        texts.append(good_text(row["text"], "text", where))
        values = zip(choice.targets, row["target"], strict=True)
        targets.append([good_number(value, column, where) for column, value in values])
        take_group(groups, row, where)
        if "span" in row:
            spans.append(find_span(row["span"], texts[-1], where))
    not_empty(texts, table)
    grouped = taken_groups(groups, choice)
    return LabelledNumbers(
        name, tuple(texts), np.asarray(targets), choice.targets, grouped, source, _spans(spans)
    )


def _pairs(table: Table, choice: Choice, name: str, source: Source) -> TextPairs:
    a: list[str] = []
    b: list[str] = []
    scores: list[float] = []
    groups: list[str] = []
    for line, row in by_role(table, choice):
        where = table.where(line)
        a.append(good_text(row["text_a"], "first text", where))
        b.append(good_text(row["text_b"], "second text", where))
        scores.append(good_number(row["score"], choice.columns["score"], where))
        take_group(groups, row, where)
    not_empty(a, table)
    grouped = taken_groups(groups, choice)
    return TextPairs(name, tuple(a), tuple(b), np.asarray(scores), grouped, source)


def _minimal(table: Table, choice: Choice, name: str, source: Source) -> MinimalPairs:
    good: list[str] = []
    bad: list[str] = []
    groups: list[str] = []
    for line, row in by_role(table, choice):
        where = table.where(line)
        good.append(good_text(row["good"], "good text", where))
        bad.append(good_text(row["bad"], "bad text", where))
        take_group(groups, row, where)
    not_empty(good, table)
    return MinimalPairs(name, tuple(good), tuple(bad), taken_groups(groups, choice), source)


def _strings(value: Any, what: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise DataError(f"{where}: the {what} are {type(value).__name__}, a list is needed")
    return tuple(
        good_text(item if isinstance(item, str) else str(item), what, where) for item in value
    )


def _token_labels(table: Table, choice: Choice, name: str, source: Source) -> TokenLabels:
    words: list[tuple[str, ...]] = []
    tags: list[tuple[str, ...]] = []
    groups: list[str] = []
    for line, row in by_role(table, choice):
        where = table.where(line)
        words.append(_strings(row["words"], "words", where))
        tags.append(_strings(row["tags"], "tags", where))
        if len(words[-1]) != len(tags[-1]):
            raise DataError(f"{where}: {len(words[-1])} words but {len(tags[-1])} tags")
        take_group(groups, row, where)
    not_empty(words, table)
    return TokenLabels(name, tuple(words), tuple(tags), taken_groups(groups, choice), source)


def classes_not_scores(table: Table, choice: Choice) -> Choice:
    """Pairs whose `label` holds words (in its first row) are classes; numbers stay scores."""
    column = choice.columns.get("score", "")
    if choice.kind != "pairs" or column.strip().lower() != "label":
        return choice
    _, (first,) = next(table.rows([column]), (0, ("",)))
    if not isinstance(first, str) or not first.strip() or is_number(first):
        return choice
    columns = {"label" if role == "score" else role: c for role, c in choice.columns.items()}
    return Choice("labelled-pairs", columns)


_BUILDERS: dict[str, Callable[[Table, Choice, str, Source], Dataset]] = {
    "labelled": _labelled,
    "labelled-pairs": _labelled_pairs,
    "numbers": _numbers,
    "pairs": _pairs,
    "retrieval": query_table,
    "minimal-pairs": _minimal,
    "token-labels": _token_labels,
}


def assemble(table: Table, choice: Choice, name: str, source: Source) -> Dataset:
    """The dataset that `choice` says the table holds."""
    try:
        return _BUILDERS[choice.kind](table, choice, name, source)
    except DataError as error:
        if str(error).startswith(table.origin):
            raise
        raise DataError(f"{table.origin}: {error}") from None
