"""Retrieval data from query-document rows or from ids, texts and grades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy import sparse

from probes.datasets.columns import Choice
from probes.datasets.reading import Table
from probes.datasets.roles import by_role, not_empty
from probes.datasets.values import good_group, good_number, good_text, group_array
from probes.errors import DataError
from probes.types import Retrieval, Source


def query_table(table: Table, choice: Choice, name: str, source: Source) -> Retrieval:
    """Query-document rows: equal texts are one query or document; relevance is 1 where not given."""
    queries: dict[str, int] = {}
    documents: dict[str, int] = {}
    grades: dict[tuple[int, int], tuple[float, int]] = {}
    groups: dict[int, str] = {}
    for line, row in by_role(table, choice):
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
    not_empty(list(queries), table)
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
