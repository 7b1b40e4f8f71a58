"""Reading tables from files, row by row, with the line that every row starts on.

A `Table` knows its columns and streams the wanted ones; a file of 1 GB passes through in bounded
memory. Whatever is wrong with the bytes raises `DataError` with the 1-based line (Parquet: row).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from probes.errors import DataError

MAX_LINE = 1 << 28  # bytes: longer "lines" are files with other line ends, or no text at all
MAX_FIELD = 1 << 26  # characters: a longer field is nearly always a quote that was left open
PEEK = 100  # JSON objects looked at to learn which keys there are
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
MAGIC = {
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"\x1f\x8b": "compressed with gzip: decompress it first",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: unpack it or save it as CSV",
    b"PAR1": "Parquet: name it .parquet",
}

Row = tuple[int, tuple[Any, ...]]


@dataclass(frozen=True)
class Table:
    """Columns of a source and a way to stream the wanted ones as (line, values)."""

    origin: str
    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[Row]]
    unit: str = "line"  # what the number of a row counts: "line" or "row"
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    def where(self, line: int) -> str:
        return f"{self.origin}, {self.unit} {line}"


def decoded_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their ends; a byte order mark is dropped.

    Raises `DataError` naming the line for invalid UTF-8, NUL and endless lines.
    """
    with open_file(path) as handle:
        head = handle.read(4)
        for magic, meaning in MAGIC.items():
            if head.startswith(magic):
                raise DataError(f"{path} is {meaning}")
        handle.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)
        number = 0
        while raw := handle.readline(MAX_LINE):
            number += 1
            if len(raw) == MAX_LINE:
                raise DataError(f"{path}, line {number} is longer than {MAX_LINE >> 20} MB")
            yield _decode(raw, path, number)


def open_file(path: Path) -> BinaryIO:
    """`path` opened for reading bytes; a clear error when it is missing or not readable."""
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be opened: {reason}") from None


def _decode(raw: bytes, path: Path, number: int) -> str:
    if b"\0" in raw:
        raise DataError(f"{path}, line {number} holds a NUL byte: is it a text file?")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number} is not UTF-8 (byte 0x{raw[error.start]:02x} at position "
            f"{error.start}): save the file as UTF-8"
        ) from None


def check_columns(names: Iterable[str], origin: str) -> tuple[str, ...]:
    """Column names, stripped; unnamed ones get their place as a name; repeats are refused."""
    columns: list[str] = []
    for place, name in enumerate(names, start=1):
        name = name.strip() or f"(column {place})"
        if name in columns:
            raise DataError(f"{origin}, line 1: the column {name!r} comes twice: rename one")
        columns.append(name)
    return tuple(columns)


def _check_delimiter(header: Sequence[str], delimiter: str, path: Path) -> None:
    if len(header) > 1:
        return
    found = [other for other in DELIMITERS if other != delimiter and other in header[0]]
    if found:
        raise DataError(
            f"{path}, line 1: the columns are separated by {DELIMITERS[found[0]]}, "
            f"{DELIMITERS[delimiter]} are expected: save it as CSV with commas or as TSV with tabs"
        )


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Records of a CSV file with the line that each starts on; quoted line breaks count as lines."""
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(decoded_lines(path), delimiter=delimiter, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}, line {start}: {_csv_problem(str(error))}") from None
        if record:
            yield start, record


def _csv_problem(message: str) -> str:
    if "expected after" in message:
        return 'a quote inside a quoted field is not doubled: write "" for a quote'
    if "unexpected end of data" in message or "field limit" in message:
        return "a quote opens here and is never closed"
    if "new-line" in message:
        return "a carriage return stands alone: save the file with line ends LF or CRLF"
    return message


def csv_table(path: Path, delimiter: str = ",") -> Table:
    """A CSV or TSV file with a header line."""
    first = next(_records(path, delimiter), None)
    if first is None:
        raise DataError(f"{path} is empty: a header line and rows are needed")
    header = first[1]
    _check_delimiter(header, delimiter, path)
    columns = check_columns(header, str(path))

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        places = [columns.index(name) for name in wanted]
        for line, record in islice(_records(path, delimiter), 1, None):
            if len(record) != len(columns):
                raise DataError(
                    f"{path}, line {line} has {len(record)} fields, the header has "
                    f"{len(columns)}: quote fields that hold {DELIMITERS[delimiter]}"
                )
            yield line, tuple(record[place] for place in places)

    return Table(str(path), columns, rows)


def json_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON-lines file with their lines; blank lines are skipped."""
    for line, text in enumerate(decoded_lines(path), start=1):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{path}, line {line} is not JSON ({reason})") from None
        if not isinstance(value, dict):
            kind = "array" if isinstance(value, list) else type(value).__name__
            raise DataError(f"{path}, line {line} is a JSON {kind}: one object per line is needed")
        yield line, value


def jsonl_table(path: Path) -> Table:
    """A JSON-lines file; its columns are the keys of the first objects."""
    columns: dict[str, None] = {}
    for _, record in islice(json_records(path), PEEK):
        columns.update(dict.fromkeys(record))
    if not columns:
        raise DataError(f"{path} is empty: one JSON object per line is needed")

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for line, record in json_records(path):
            yield line, tuple(record.get(name) for name in wanted)

    return Table(str(path), tuple(columns), rows)


def parquet_table(path: Path) -> Table:
    """A Parquet file, read batch by batch with checksums verified where the file has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def opened() -> Any:
        open_file(path).close()
        try:
            return pq.ParquetFile(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path} is not a readable Parquet file: {error}") from None

    with opened() as file:
        columns = check_columns(file.schema_arrow.names, str(path))

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        number = 0
        with opened() as file:
            batches = file.iter_batches(batch_size=4096, columns=list(wanted))
            while True:
                try:
                    batch = next(batches, None)
                except (pa.ArrowException, OSError) as error:
                    raise DataError(f"{path}, after row {number}: {error}") from None
                if batch is None:
                    return
                values = [batch.column(name).to_pylist() for name in wanted]
                for row in zip(*values, strict=True):
                    number += 1
                    yield number, row

    return Table(str(path), columns, rows, unit="row")


SUFFIXES: dict[str, Callable[[Path], Table]] = {
    ".csv": csv_table,
    ".tsv": lambda path: csv_table(path, "\t"),
    ".jsonl": jsonl_table,
    ".ndjson": jsonl_table,
    ".json": jsonl_table,
    ".parquet": parquet_table,
}


def open_table(path: Path) -> Table:
    """The table in `path`, by its suffix."""
    reader = SUFFIXES.get(path.suffix.lower())
    if reader is None:
        raise DataError(
            f"{path} ends with {path.suffix or 'nothing'!r}: "
            f"{', '.join(SUFFIXES)} are allowed for datasets"
        )
    return reader(path)
