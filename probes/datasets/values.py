"""Single values of a table: texts, numbers, labels and groups, checked with the line in the message."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.datasets.reading import Table
from probes.errors import DataError

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


def is_number(text: str) -> bool:
    """Whether `float` reads it; infinities and NaN count.

    >>> is_number(" 1.5e3"), is_number("neutral")
    (True, False)
    """
    try:
        float(text)
    except ValueError:
        return False
    return True


def find_span(value: Any, text: str, where: str) -> tuple[int, int]:
    """Where `value` occurs in `text` as characters [start, end): first as whole words, else within a word.

    >>> find_span("art", "A party about art", "a.csv, line 2")
    (14, 17)
    """
    part = good_text(value, "span", where).strip()
    whole = re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text)
    start = whole.start() if whole else text.find(part)
    if start < 0:
        raise DataError(f"{where}: the span {part[:40]!r} does not occur in the text")
    return start, start + len(part)


def word_span(value: Any, text: str, what: str, where: str) -> tuple[int, int]:
    """Characters [start, end) of the word with this 0-based number among the words between white space.

    >>> word_span("1", "Sound  carries well", "word_b", "a.csv, line 2")
    (7, 14)
    """
    number = good_number(value, what, where)
    words = list(re.finditer(r"\S+", text))
    if number != int(number) or not 0 <= number < len(words):
        raise DataError(f"{where}: {what} is {number:g}, the text has words 0 to {len(words) - 1}")
    return words[int(number)].span()


def good_group(value: Any, where: str) -> str:
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


def good_label(value: Any, where: str) -> Any:
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


def clean_labels(labels: list[Any], lines: Sequence[int], table: Table) -> list[Any]:
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
            good_label(numbers[label], table.where(line))
