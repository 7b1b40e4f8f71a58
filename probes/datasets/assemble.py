"""From the rows of a table to a validated dataset; every complaint names the line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.datasets.columns import Choice
from probes.datasets.reading import Table
from probes.errors import DataError
from probes.types import (
    Dataset,
    LabelledTexts,
    MinimalPairs,
    Retrieval,
    Source,
    TextPairs,
    TokenLabels,
)

_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)(\.0*)?")
_MISSING = {"nan", "na", "n/a", "null", "none", "?"}
LONG_GROUP = 64  # characters: longer names stay Python strings, a fixed-width array would be vast


def good_text(value: Any, what: str, where: str) -> str:
    """`value` if it is a text that can be encoded and holds more than white space."""
    if value is None:
        raise DataError(f"{where}: the {what} is missing: give it or remove the row")
    if not isinstance(value, str):
        raise DataError(f"{where}: the {what} is {type(value).__name__}, a string is needed")
    if not value.strip():
        raise DataError(f"{where}: the {what} is empty: give it or remove the row")
    if "\0" in value:
        raise DataError(f"{where}: the {what} holds a NUL character: remove it")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}: the {what} holds a lone surrogate at character {error.start}"
            ) from None
    return value


def good_number(value: Any, what: str, where: str) -> float:
    """`value` as a finite number."""
    if value is None or value == "":
        raise DataError(f"{where}: the {what} is missing: give it or remove the row")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "..."
        raise DataError(f"{where}: the {what} is {shown}, a number is needed") from None
    if not math.isfinite(number):
        raise DataError(f"{where}: the {what} is {number}, a finite number is needed")
    return number


def _good_group(value: Any, where: str) -> str:
    if value is None or str(value).strip() == "":
        raise DataError(f"{where}: the group is missing: give it or leave the column out")
    return good_text(str(value), "group", where)


def group_array(groups: Sequence[str]) -> NDArray[Any]:
    """Group names (n,) as an array."""
    longest = max(map(len, groups), default=0)
    return np.asarray(groups, dtype=object if longest > LONG_GROUP else None)


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, (int, float)):
        return "number"
    return "string" if isinstance(value, str) else type(value).__name__


def _check_label(value: Any, where: str) -> Any:
    missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
    if missing or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where}: the label is missing: give it or remove the row")
    if not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: the label is {_type_of(value)}, a string or number is needed")
    if isinstance(value, float) and value != int(value if math.isfinite(value) else 0):
        raise DataError(
            f"{where}: the label is {value}: classes are whole numbers or strings "
            "(a score for two texts goes with text_a,text_b)"
        )
    return value


def _clean_labels(labels: list[Any], lines: Sequence[int], table: Table) -> list[Any]:
    """Labels of one type: numbers that came as text become integers, mixtures are refused."""
    first = _type_of(labels[0])
    for label, line in zip(labels, lines, strict=True):
        if _type_of(label) != first:
            raise DataError(
                f"{table.where(line)}: the label {label!r} is a {_type_of(label)}, the labels "
                f"above are of type {first}: make them all one type"
            )
    if first != "string":
        return labels
    plain = {label: label.strip() for label in dict.fromkeys(labels)}
    odd = {label for label, text in plain.items() if not _WHOLE.fullmatch(text)}
    if not odd:
        return [int(float(plain[label])) for label in labels]
    if len(odd) < len(plain):
        for label, line in zip(labels, lines, strict=True):
            if label in odd and plain[label].lower() in _MISSING:
                raise DataError(
                    f"{table.where(line)}: the label is {label!r} among numbers: give it or "
                    "remove the row"
                )
    _refuse_fractions(labels, plain, lines, table)
    return [plain[label] for label in labels]


def _refuse_fractions(
    labels: list[Any], plain: Mapping[str, str], lines: Sequence[int], table: Table
) -> None:
    """Text labels that are all numbers, some of them broken, are scores and no classes."""
    try:
        numbers = {label: float(text) for label, text in plain.items()}
    except ValueError:
        return
    for label, line in zip(labels, lines, strict=True):
        if math.isfinite(numbers[label]) and numbers[label] != int(numbers[label]):
            _check_label(numbers[label], table.where(line))


Rows = Iterator[tuple[int, dict[str, Any]]]


def _by_role(table: Table, choice: Choice) -> Rows:
    roles = list(choice.columns)
    for line, values in table.rows([choice.columns[role] for role in roles]):
        yield line, dict(zip(roles, values, strict=True))


def _groups(rows: list[str], choice: Choice) -> NDArray[Any] | None:
    return group_array(rows) if "group" in choice.columns else None


def _take_group(groups: list[str], row: dict[str, Any], where: str) -> None:
    if "group" in row:
        groups.append(_good_group(row["group"], where))


def _labelled(table: Table, choice: Choice, name: str, source: Source) -> LabelledTexts:
    texts: list[str] = []
    labels: list[Any] = []
    groups: list[str] = []
    lines: list[int] = []
    names = table.class_names.get(choice.columns["label"])
    for line, row in _by_role(table, choice):
        where = table.where(line)
        texts.append(good_text(row["text"], "text", where))
        label = _check_label(row["label"], where)
        if names is not None and isinstance(label, int):
            if not 0 <= label < len(names):
                raise DataError(f"{where}: the label {label} has no name: remove the row")
            label = names[label]
        labels.append(label)
        _take_group(groups, row, where)
        lines.append(line)
    _not_empty(texts, table)
    clean = _clean_labels(labels, lines, table)
    return LabelledTexts.make(name, texts, clean, _groups(groups, choice), source)


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
            group = _good_group(row["group"], where)
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


_BUILDERS: dict[str, Callable[[Table, Choice, str, Source], Dataset]] = {
    "labelled": _labelled,
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
