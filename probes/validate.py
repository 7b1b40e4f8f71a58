"""Checks and hashes that the dataset types share; what is wrong raises `DataError` with the row (0-based) at fault."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError
from probes.files import sha256_texts

IntArray = NDArray[np.integer[Any]]


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


def check_length(name: str, values: NDArray[Any], n: int) -> None:
    if values.ndim != 1 or len(values) != n:
        raise DataError(f"{name} has shape {values.shape}, ({n},) is needed: one per row")


def check_groups(groups: NDArray[Any] | None, n: int) -> None:
    if groups is not None:
        check_length("groups", groups, n)


def array_hash(values: NDArray[Any] | None) -> str:
    if values is None:
        return "-"
    if values.dtype == object or values.dtype.kind in "US":
        return sha256_texts([str(v) for v in values])
    plain = np.ascontiguousarray(values)
    return hashlib.sha256(plain.dtype.str.encode() + plain.tobytes()).hexdigest()


def joint_hash(*parts: str) -> str:
    return sha256_texts(list(parts))


def check_codes(labels: IntArray, names: Sequence[str], n: int, owner: str) -> None:
    """Refuses labels (n,) that are no integer codes into `names`, or of one class only."""
    check_length("labels", labels, n)
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels must be integer codes into label_names: use {owner}.make")
    present = np.unique(labels)
    if present[0] < 0 or present[-1] >= len(names):
        raise DataError(f"label code {present[0] if present[0] < 0 else present[-1]} has no name")
    if len(present) < 2:
        only = names[int(present[0])]
        raise DataError(f"all {n} rows have the label {only!r}: two classes are needed")


def class_codes(labels: Sequence[Any] | NDArray[Any]) -> tuple[IntArray, tuple[str, ...]]:
    """Integer codes (n,) and the class names in sorted order, from labels of one type (str, bool or int).

    >>> class_codes(["b", "a", "b"])
    (array([1, 0, 1]), ('a', 'b'))
    """
    values = list(labels)
    for row, value in enumerate(values):
        if value is None or value == "" or (isinstance(value, float) and value != value):
            raise DataError(f"label of row {row} is missing: remove the row or label it")
    types = {_type_of(value) for value in values}
    if len(types) > 1:
        raise DataError(
            f"labels of mixed types ({', '.join(sorted(types))}): make them all one type"
        )
    for row, value in enumerate(values):
        if isinstance(value, (float, np.floating)) and not float(value).is_integer():
            raise DataError(
                f"label of row {row} is {value}: classes must be whole numbers or strings; "
                "a score for a pair of texts goes with text_a,text_b"
            )
    plain = [int(v) if isinstance(v, (float, np.floating)) else v for v in values]
    names = sorted(set(plain))
    code = {label: index for index, label in enumerate(names)}
    codes = np.asarray([code[label] for label in plain], dtype=np.int64)
    return codes, tuple(str(name) for name in names)


def _type_of(value: Any) -> str:
    if isinstance(value, str):
        return "str"
    if isinstance(value, (bool, np.bool_)):
        return "bool"
    if isinstance(value, (int, np.integer, float, np.floating)):
        return "number"
    return type(value).__name__


def check_spans(spans: Any, *texts: Sequence[str]) -> IntArray | None:
    """Character spans as int64: (n, 2) for one sequence of texts, (n, views, 2) for several of equal length.

    Each is [start, end) within its own text and holds more than white space.
    """
    if spans is None:
        return None
    placed = np.asarray(spans)
    n = len(texts[0])
    shape = (n, 2) if len(texts) == 1 else (n, len(texts), 2)
    if placed.shape != shape or placed.dtype.kind not in "iu":
        raise DataError(
            f"spans are {placed.dtype} of shape {placed.shape}, integers of shape {shape} are needed"
        )
    placed = placed.astype(np.int64)
    views = placed.reshape(n, len(texts), 2)
    for view, column in enumerate(texts):
        for row, (text, (start, end)) in enumerate(
            zip(column, views[:, view].tolist(), strict=True)
        ):
            if not 0 <= start < end <= len(text):
                raise DataError(
                    f"span {start}:{end} of row {row} lies outside its text of {len(text)} characters"
                )
            if not text[start:end].strip():
                raise DataError(f"span {start}:{end} of row {row} holds only white space")
    return placed
