"""Pairs from a user's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.datasets.reading import open_table
from probes.datasets.values import good_text
from probes.errors import DataError
from probes.heads.circuits.pairs import Pair

_SINGULAR, _PLURAL = (" is", " was", " has"), (" are", " were", " have")
_SHAPES = (("answer", "wrong"), ("io", "s"), ("number",), ("start_year_2digits",))
_NEED = "columns clean, corrupted, answer and wrong are needed (several words of one kind separated by |)"


def read_pairs(path: str | Path) -> list[Pair]:
    """Pairs from a CSV, TSV, JSONL or Parquet file with columns clean, corrupted, answer, wrong.

    Several answers or wrong answers are separated by `|`. A space is put between prompt and answer. In place of answer
    and wrong stand also, as in public files of these tasks, `io` and `s` (names), `number` (singular or plural: forms
    of be and have), `start_year_2digits` (years after it against years up to it).

    Raises `DataError` that names file and line.
    """
    table = open_table(Path(path))
    shape = next((s for s in _SHAPES if {"clean", "corrupted", *s} <= set(table.columns)), None)
    if shape is None:
        raise DataError(f"{table.origin} has the columns {', '.join(table.columns)[:200]}: {_NEED}")
    found: list[Pair] = []
    for line, (clean, corrupted, *rest) in table.rows(["clean", "corrupted", *shape]):
        where = table.where(line)
        prompts = [
            good_text(value, what, where).rstrip()
            for value, what in ((clean, "clean prompt"), (corrupted, "corrupted prompt"))
        ]
        values = [
            good_text(str(value) if isinstance(value, int | float) else value, what, where)
            for value, what in zip(rest, shape, strict=True)
        ]
        answers, wrongs = _completions(shape, values, where)
        found.append(Pair(prompts[0], prompts[1], answers, wrongs))
    if not found:
        raise DataError(f"{table.origin} holds no rows: {_NEED}")
    return found


def _completions(
    shape: tuple[str, ...], values: list[Any], where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if shape == ("number",):
        word = values[0].strip().lower()
        if word not in ("singular", "plural"):
            raise DataError(f"{where}: number {word!r}: singular or plural is needed")
        return (_SINGULAR, _PLURAL) if word == "singular" else (_PLURAL, _SINGULAR)
    if shape == ("start_year_2digits",):
        if not values[0].strip().isdigit() or not 0 <= int(values[0]) < 99:
            raise DataError(f"{where}: start_year_2digits {values[0]!r}: 0 to 98 is needed")
        year = int(values[0])
        later = tuple(f"{other:02d}" for other in range(year + 1, 100))
        return later, tuple(f"{other:02d}" for other in range(year + 1))
    listed = [tuple(f" {w.strip()}" for w in value.split("|") if w.strip()) for value in values]
    if not all(listed):
        raise DataError(f"{where}: an answer and a wrong answer are needed")
    return listed[0], listed[1]
