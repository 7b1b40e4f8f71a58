"""Rows of a table by role, and what every builder of datasets does with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from probes.datasets.columns import Choice
from probes.datasets.reading import Table
from probes.datasets.values import clean_labels, good_group, good_label, group_array
from probes.errors import DataError

Rows = Iterator[tuple[int, dict[str, Any]]]


def by_role(table: Table, choice: Choice) -> Rows:
    """Lines with their values by role; the numbers to be told are a tuple under `target`."""
    columns = list(dict.fromkeys([*choice.columns.values(), *choice.targets]))
    for line, values in table.rows(columns):
        by_column = dict(zip(columns, values, strict=True))
        row = {role: by_column[column] for role, column in choice.columns.items()}
        if choice.targets:
            row["target"] = tuple(by_column[column] for column in choice.targets)
        yield line, row


def taken_groups(rows: list[str], choice: Choice) -> NDArray[Any] | None:
    """Group names as an array where the table has a column of them."""
    return group_array(rows) if "group" in choice.columns else None


def take_group(groups: list[str], row: dict[str, Any], where: str) -> None:
    """Keep a row's group, if groups are read at all."""
    if "group" in row:
        groups.append(good_group(row["group"], where))


class Classes:
    """Labels as they come, with their lines; `clean` makes them of one type."""

    def __init__(self, table: Table, column: str) -> None:
        self._table = table
        self._names = table.class_names.get(column)
        self._labels: list[Any] = []
        self._lines: list[int] = []

    def take(self, value: Any, line: int) -> None:
        """Keep one label; numbers that the table has names for become those."""
        where = self._table.where(line)
        label = good_label(value, where)
        if self._names is not None and isinstance(label, int):
            if not 0 <= label < len(self._names):
                raise DataError(f"{where}: the label {label} has no name: remove the row")
            label = self._names[label]
        self._labels.append(label)
        self._lines.append(line)

    def clean(self) -> list[Any]:
        """All labels, of one type; errors name the line."""
        not_empty(self._labels, self._table)
        return clean_labels(self._labels, self._lines, self._table)


def not_empty(rows: Sequence[Any], table: Table) -> None:
    """Refuses a table without rows."""
    if not rows:
        raise DataError(f"{table.origin} has columns but no rows")
