"""From the rows of a table to a validated dataset; every complaint names the line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.datasets.columns import Choice
from probes.datasets.reading import Table
from probes.datasets.values import (
    clean_labels,
    find_span,
    good_group,
    good_label,
    good_number,
    good_text,
    group_array,
    is_number,
    word_span,
)
from probes.errors import DataError, InputError
from probes.types import (
    Dataset,
    LabelledNumbers,
    LabelledPairs,
    LabelledTexts,
    MinimalPairs,
    Retrieval,
    Source,
    TextPairs,
    TokenLabels,
)

Rows = Iterator[tuple[int, dict[str, Any]]]


def _by_role(table: Table, choice: Choice) -> Rows:
    """Lines with their values by role; the numbers to be told are a tuple under `target`."""
    columns = list(dict.fromkeys([*choice.columns.values(), *choice.targets]))
    for line, values in table.rows(columns):
        by_column = dict(zip(columns, values, strict=True))
        row = {role: by_column[column] for role, column in choice.columns.items()}
        if choice.targets:
            row["target"] = tuple(by_column[column] for column in choice.targets)
        yield line, row


def _groups(rows: list[str], choice: Choice) -> NDArray[Any] | None:
    return group_array(rows) if "group" in choice.columns else None


def _take_group(groups: list[str], row: dict[str, Any], where: str) -> None:
    if "group" in row:
        groups.append(good_group(row["group"], where))


class _Classes:
    """Labels as they come, with their lines; `clean` makes them of one type."""

    def __init__(self, table: Table, column: str) -> None:
        self._table = table
        self._names = table.class_names.get(column)
        self._labels: list[Any] = []
        self._lines: list[int] = []

    def take(self, value: Any, line: int) -> None:
        where = self._table.where(line)
        label = good_label(value, where)
        if self._names is not None and isinstance(label, int):
            if not 0 <= label < len(self._names):
                raise DataError(f"{where}: the label {label} has no name: remove the row")
            label = self._names[label]
        self._labels.append(label)
        self._lines.append(line)

    def clean(self) -> list[Any]:
        _not_empty(self._labels, self._table)
        return clean_labels(self._labels, self._lines, self._table)


def _spans(rows: list[tuple[int, int]]) -> NDArray[np.int64] | None:
    return np.asarray(rows, dtype=np.int64) if rows else None


def _labelled(table: Table, choice: Choice, name: str, source: Source) -> LabelledTexts:
    texts: list[str] = []
    classes = _Classes(table, choice.columns["label"])
    groups: list[str] = []
    spans: list[tuple[int, int]] = []
    for line, row in _by_role(table, choice):
        where = table.where(line)
        texts.append(good_text(row["text"], "text", where))
        classes.take(row["label"], line)
        _take_group(groups, row, where)
        if "span" in row:
            spans.append(find_span(row["span"], texts[-1], where))
    labels = classes.clean()
    grouped = _groups(groups, choice)
    return LabelledTexts.make(name, texts, labels, grouped, source, _spans(spans))


def _labelled_pairs(table: Table, choice: Choice, name: str, source: Source) -> LabelledPairs:
    a: list[str] = []
    b: list[str] = []
    classes = _Classes(table, choice.columns["label"])
    groups: list[str] = []
    spans: list[tuple[tuple[int, int], tuple[int, int]]] = []
    positions = [role for role in ("word_a", "word_b") if role in choice.columns]
    if len(positions) == 1:
        raise InputError(f"{positions[0]} is named alone: name both word_a and word_b")
    for line, row in _by_role(table, choice):
        where = table.where(line)
        a.append(good_text(row["text_a"], "first text", where))
        b.append(good_text(row["text_b"], "second text", where))
        classes.take(row["label"], line)
        _take_group(groups, row, where)
        if positions:
            spans.append(
                (
                    word_span(row["word_a"], a[-1], "word_a", where),
                    word_span(row["word_b"], b[-1], "word_b", where),
                )
            )
    labels = classes.clean()
    placed = np.asarray(spans, dtype=np.int64) if spans else None
    return LabelledPairs.make(name, (a, b), labels, _groups(groups, choice), source, placed)


def _numbers(table: Table, choice: Choice, name: str, source: Source) -> LabelledNumbers:
    texts: list[str] = []
    targets: list[list[float]] = []
    groups: list[str] = []
    spans: list[tuple[int, int]] = []
    for line, row in _by_role(table, choice):
        where = table.where(line)
        texts.append(good_text(row["text"], "text", where))
        values = zip(choice.targets, row["target"], strict=True)
        targets.append([good_number(value, column, where) for column, value in values])
        _take_group(groups, row, where)
        if "span" in row:
            spans.append(find_span(row["span"], texts[-1], where))
    _not_empty(texts, table)
    grouped = _groups(groups, choice)
    return LabelledNumbers(
        name, tuple(texts), np.asarray(targets), choice.targets, grouped, source, _spans(spans)
    )


def _pairs(table: Table, choice: Choice, name: str, source: Source) -> TextPairs:
    a: list[str] = []
    b: list[str] = []
    scores: list[float] = []
    groups: list[str] = []
    for line, row in _by_role(table, choice):
        where = table.where(line)
        a.append(good_text(row["text_a"], "first text", where))
        b.append(good_text(row["text_b"], "second text", where))
        scores.append(good_number(row["score"], choice.columns["score"], where))
        _take_group(groups, row, where)
    _not_empty(a, table)
    grouped = _groups(groups, choice)
    return TextPairs(name, tuple(a), tuple(b), np.asarray(scores), grouped, source)


def _minimal(table: Table, choice: Choice, name: str, source: Source) -> MinimalPairs:
    good: list[str] = []
    bad: list[str] = []
    groups: list[str] = []
    for line, row in _by_role(table, choice):
        where = table.where(line)
        good.append(good_text(row["good"], "good text", where))
        bad.append(good_text(row["bad"], "bad text", where))
        _take_group(groups, row, where)
    _not_empty(good, table)
    return MinimalPairs(name, tuple(good), tuple(bad), _groups(groups, choice), source)


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
    for line, row in _by_role(table, choice):
        where = table.where(line)
        words.append(_strings(row["words"], "words", where))
        tags.append(_strings(row["tags"], "tags", where))
        if len(words[-1]) != len(tags[-1]):
            raise DataError(f"{where}: {len(words[-1])} words but {len(tags[-1])} tags")
        _take_group(groups, row, where)
    _not_empty(words, table)
    return TokenLabels(name, tuple(words), tuple(tags), _groups(groups, choice), source)


def _not_empty(rows: Sequence[Any], table: Table) -> None:
    if not rows:
        raise DataError(f"{table.origin} has columns but no rows")


def _query_table(table: Table, choice: Choice, name: str, source: Source) -> Retrieval:
    """Query-document rows: equal texts are one query or document; relevance is 1 where not given."""
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    grades: dict[tuple[int, int], tuple[float, int]] = {}
    groups: dict[int, str] = {}
    for line, row in _by_role(table, choice):
        where = table.where(line)
        q = queries.setdefault(good_text(row["query"], "query", where), len(queries))
        d = documents.setdefault(good_text(row["document"], "document", where), len(documents))
        grade = good_number(row["relevance"], "relevance", where) if "relevance" in row else 1.0
        known, seen = grades.setdefault((q, d), (grade, line))
        if known != grade:
            raise DataError(f"{where}: relevance {grade:g}, but {known:g} on {table.unit} {seen}")
        if "group" in row:
            group = good_group(row["group"], where)
            if groups.setdefault(q, group) != group:
                raise DataError(f"{where}: the query was in group {groups[q]!r}, now {group!r}")
    _not_empty(list(queries), table)
    values = {key: grade for key, (grade, _) in grades.items()}
    ids = [str(i) for i in range(len(queries))]
    return build_retrieval(
        name,
        (ids, list(queries)),
        ([str(i) for i in range(len(documents))], list(documents)),
        values,
        source,
        [groups[q] for q in range(len(queries))] if groups else None,
    )


def build_retrieval(
    name: str,
    queries: tuple[Sequence[str], Sequence[str]],
    documents: tuple[Sequence[str], Sequence[str]],
    grades: Mapping[tuple[int, int], float],
    source: Source,
    groups: Sequence[str] | None = None,
) -> Retrieval:
    """A `Retrieval` from (ids, texts) of both sides; queries without a relevant document are left out.

    Grades at or below 0 mean "not relevant". What was left out is said in the notes of the source.
    """
    kept = sorted({q for (q, _), grade in grades.items() if grade > 0})
    if not kept:
        raise DataError(f"{source.origin or name}: no query has a relevant document")
    place = {q: i for i, q in enumerate(kept)}
    cells = [(place[q], d, grade) for (q, d), grade in grades.items() if grade > 0]
    rows, columns, values = zip(*cells, strict=True)
    shape = (len(kept), len(documents[1]))
    relevance = sparse.coo_array((values, (rows, columns)), shape=shape).tocsr()
    notes = source.notes
    if left := len(queries[1]) - len(kept):
        notes = (*notes, f"{left} queries without a relevant document are left out")
    if any(grade < 0 for grade in grades.values()):
        notes = (*notes, "negative relevance counts as not relevant")
    return Retrieval(
        name,
        tuple(queries[1][q] for q in kept),
        tuple(documents[1]),
        sparse.csr_array(relevance),
        tuple(queries[0][q] for q in kept),
        tuple(documents[0]),
        None if groups is None else group_array([groups[q] for q in kept]),
        Source(source.licence, source.origin, notes),
    )


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
    "retrieval": _query_table,
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
