"""Rows of a table by the values of other columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from probes.datasets.reading import Row, Table
from probes.errors import DataError, unknown_name

Where = Mapping[str, Any]


def filtered(table: Table, where: Where) -> Table:
    """`table` without the rows in which a column of `where` holds another value than is given there.

    A value may be a list of allowed ones. Values are compared as they would be written in a CSV file: 1 is "1", true is
    "true". Raises `InputError` for an unknown column and, once it is read, `DataError` if no row is left.
    """
    for column in where:
        if column not in table.columns:
            raise unknown_name("column", column, table.columns)
    allowed = {
        column: {_written(v) for v in (value if isinstance(value, list) else [value])}
        for column, value in where.items()
    }

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        columns = list(dict.fromkeys([*wanted, *allowed]))
        places = [columns.index(column) for column in wanted]
        tests = [(columns.index(column), values) for column, values in allowed.items()]
        found = False
        for line, values in table.rows(columns):
            if all(_written(values[place]) in ok for place, ok in tests):
                found = True
                yield line, tuple(values[place] for place in places)
        if not found:
            told = ", ".join(f"{column} = {value!r}" for column, value in where.items())
            raise DataError(f"{table.origin}: no row has {told}")

    return replace(table, rows=rows)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    return text.lower() if text in ("True", "False") else text
