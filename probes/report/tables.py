"""A small table of finished strings, and the two-column tables that describe a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from probes.report.data import RunData, mapping, sequence
from probes.report.text import NOTHING, clean, count, is_number, size

_FEW = 3  # datasets that are described one by one


@dataclass(frozen=True)
class Table:
    """Finished strings by row; `numeric` columns are set flush right, the row `strong` is emphasised."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""
    strong: int | None = None


def pairs(title: str, held: Mapping[str, Any]) -> Table | None:
    """A two-column table of names and values, None when there are none."""
    rows = tuple(
        (clean(key, 60).replace("_", " "), plain_value(value, key))
        for key, value in held.items()
        if value is not None
    )
    return Table(title, ("", ""), rows) if rows else None


def plain_value(value: Any, key: str = "") -> str:
    """A setting's value in short.

    >>> plain_value(True), plain_value([1, "a"]), plain_value(2048, "memory_bytes").replace("\\u00a0", " ")
    ('yes', '1, a', '2.0 kB')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("bytes"):
        return size(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain_value(item) for item in cast("list[Any]", value)) or NOTHING
    if isinstance(value, Mapping):
        inner = cast("Mapping[str, Any]", value)
        return ", ".join(f"{clean(k, 40)} {plain_value(v)}" for k, v in inner.items()) or NOTHING
    return NOTHING if value is None or value == "" else clean(value, 400)


def provenance(data: RunData) -> list[Table]:
    """Settings, model, data, versions and hardware, as far as the run holds them."""
    tables = [pairs("Settings", data.part("options")), pairs("Model", data.part("model"))]
    tables += _datasets([mapping(entry) for entry in sequence(data.info.get("datasets"))])
    tables += [pairs("Versions", data.part("versions")), pairs("Machine", data.part("hardware"))]
    return [table for table in tables if table is not None]


def _datasets(entries: list[Mapping[str, Any]]) -> list[Table | None]:
    """A table for each dataset, or one with a line for each where there are many."""
    if len(entries) <= _FEW:
        return [pairs("Data", entry) for entry in entries]
    columns = ("dataset", "kind", "n", "hash")
    rows = tuple(
        (
            clean(entry.get("name") or NOTHING, 60),
            plain_value(entry.get("kind")),
            count(entry.get("n")),
            clean(entry.get("hash") or NOTHING, 64)[:12],
        )
        for entry in entries
    )
    return [Table(f"Data ({len(entries)} sets)", columns, rows, frozenset({2}))]


def command(data: RunData) -> str | None:
    """The command line that makes this run again, None when the run does not say."""
    analysis, options = data.info.get("analysis"), data.part("options")
    if not analysis or not options:
        return None
    words = ["fathometer", "run", clean(analysis, 64)]
    for key, value in options.items():
        flag = "--" + clean(key, 64).replace("_", "-")
        if value is True:
            words.append(flag)
        elif isinstance(value, str) and value:
            words += [flag, clean(value)]
        elif is_number(value):
            words += [flag, f"{value}"]
    return shlex.join(words)
