"""Retrieval folders: `corpus.jsonl`, `queries.jsonl` and relevance judgements.

Judgements are `qrels.csv` or `qrels.tsv` with a header (`query_id,doc_id,score` or BEIR's
`query-id corpus-id score`), BEIR's `qrels/test.tsv`, or TREC's four columns without a header.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from probes.datasets.reading import decoded_lines, json_records
from probes.datasets.relevance import build_retrieval
from probes.datasets.values import good_number, good_text
from probes.errors import DataError
from probes.types import Retrieval, Source

ROOT_QRELS = ("qrels.csv", "qrels.tsv", "qrels.txt")
SPLIT_QRELS = ("test", "dev", "validation", "train")
QUERY_KEYS = {"query_id", "query-id", "qid", "queryid"}
DOC_KEYS = {"doc_id", "corpus-id", "corpus_id", "docid", "document_id", "did"}
GRADE_KEYS = {"score", "relevance", "rel", "grade", "label"}


def is_retrieval_folder(path: Path) -> bool:
    return (path / "corpus.jsonl").is_file() or (path / "queries.jsonl").is_file()


def load_folder(path: Path, name: str, group: str | None = None) -> Retrieval:
    """The retrieval dataset in `path`; `group` names a key of the queries that keeps them together."""
    for needed in ("corpus.jsonl", "queries.jsonl"):
        if not (path / needed).is_file():
            raise DataError(
                f"{path} has no {needed}: a retrieval folder holds corpus.jsonl, queries.jsonl "
                "and qrels.csv, qrels.tsv or qrels/test.tsv"
            )
    qrels = find_qrels(path)
    document_ids, documents, _ = _read_texts(path / "corpus.jsonl", "document", None)
    query_ids, queries, groups = _read_texts(path / "queries.jsonl", "query", group)
    grades = _read_grades(
        qrels, {q: i for i, q in enumerate(query_ids)}, {d: i for i, d in enumerate(document_ids)}
    )
    source = Source(origin=str(path), notes=(f"judgements from {qrels.relative_to(path)}",))
    sides = (query_ids, queries), (document_ids, documents)
    return build_retrieval(name, *sides, grades, source, groups)


def find_qrels(path: Path) -> Path:
    """The file of judgements; several of equal standing are refused."""
    found = [path / name for name in ROOT_QRELS if (path / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{path} has {' and '.join(f.name for f in found)}: leave only one")
    if found:
        return found[0]
    for split in SPLIT_QRELS:
        for suffix in (".tsv", ".csv", ".txt"):
            candidate = path / "qrels" / f"{split}{suffix}"
            if candidate.is_file():
                return candidate
    raise DataError(f"{path} has no judgements: qrels.csv, qrels.tsv or qrels/test.tsv is needed")


def _read_texts(
    path: Path, what: str, group: str | None
) -> tuple[list[str], list[str], list[str] | None]:
    """Ids, texts (title and text joined by a space, as BEIR does) and groups of a JSON-lines file."""
    ids: dict[str, int] = {}
    texts: list[str] = []
    groups: list[str] = []
    for line, record in json_records(path):
        where = f"{path}, line {line}"
        key = _identifier(record.get("id", record.get("_id")), where)
        if key in ids:
            raise DataError(f"{where}: the id {key!r} was on line {ids[key]} already")
        ids[key] = line
        title, text = record.get("title") or "", record.get("text")
        if title and not isinstance(title, str):
            raise DataError(f"{where}: the title is {type(title).__name__}, a string is needed")
        if title.strip() and isinstance(text, str):
            text = f"{title} {text}".strip()
        texts.append(good_text(text, what, where))
        if group is not None:
            groups.append(_identifier(record.get(group), where, group))
    if not texts:
        raise DataError(f"{path} is empty: one JSON object per line is needed")
    return list(ids), texts, groups if group is not None else None


def _identifier(value: Any, where: str, what: str = "id") -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DataError(f"{where}: no {what}: a string or whole number is needed")
    return good_text(str(value), what, where)


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines of a judgement file as fields; the first line decides how they are separated."""
    lines = decoded_lines(path)
    first = next(lines, "").strip()
    if not first:
        raise DataError(f"{path} is empty or starts with an empty line")
    delimiter = next((d for d in ("\t", ",") if d in first), None)

    def all_lines() -> Iterator[str]:
        yield first
        yield from lines

    if delimiter is None:
        for line, text in enumerate(all_lines(), start=1):
            if text.strip():
                yield line, text.split()
        return
    reader = csv.reader(all_lines(), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, [field.strip() for field in fields]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None


def _layout(first: list[str], path: Path) -> tuple[tuple[int, int, int | None], bool]:
    """Places of query, document and grade, and whether the first line is a header."""
    names = [field.lower() for field in first]

    def place(keys: set[str]) -> int | None:
        hits = [i for i, name in enumerate(names) if name in keys]
        return hits[0] if len(hits) == 1 else None

    query, document = place(QUERY_KEYS), place(DOC_KEYS)
    if query is not None and document is not None:
        return (query, document, place(GRADE_KEYS)), True
    if len(first) == 4:
        return (0, 2, 3), False
    if len(first) == 3:
        return (0, 1, 2), False
    raise DataError(
        f"{path}, line 1: {len(first)} columns ({', '.join(first)[:80]}): query_id,doc_id,score with "
        "a header, or TREC's four columns, are needed"
    )


def _read_grades(
    path: Path, queries: dict[str, int], documents: dict[str, int]
) -> dict[tuple[int, int], float]:
    grades: dict[tuple[int, int], float] = {}
    fields = _fields(path)
    line, first = next(fields)
    places, header = _layout(first, path)
    rows = fields if header else _chain((line, first), fields)
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != len(first):
            raise DataError(f"{where} has {len(row)} fields, the first line has {len(first)}")
        for key, known, file in (
            (row[places[0]], queries, "queries"),
            (row[places[1]], documents, "corpus"),
        ):
            if key not in known:
                raise DataError(f"{where}: {file}.jsonl has no id {key!r}")
        grade = 1.0 if places[2] is None else good_number(row[places[2]], "score", where)
        cell = queries[row[places[0]]], documents[row[places[1]]]
        if grades.setdefault(cell, grade) != grade:
            raise DataError(f"{where}: a second, different score for the same query and document")
    if not grades:
        raise DataError(f"{path} holds no judgements")
    return grades


def _chain(
    first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest
