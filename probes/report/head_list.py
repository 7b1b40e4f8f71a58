"""The ranked table of heads: every score that is known of the best of them."""

from __future__ import annotations

from typing import Any

from probes.report.collapse_study import ordered
from probes.report.collapse_table import gain
from probes.report.data import RunData
from probes.report.figures.head_ablation import MEASURES, measure_words
from probes.report.frames import names, only
from probes.report.head_tables import (
    RETRIEVAL,
    head_name,
    head_rows,
    held,
    is_heads,
    ranking,
    values_of,
)
from probes.report.tables import Table
from probes.report.text import NOTHING, count, interval, number

Row = dict[str, Any]
SHOWN = 40  # heads that the table ranks
_COLUMNS = (  # measure or effect, title in the table
    (RETRIEVAL, "retrieval score"),
    ("query_mass", "question"),
    ("copy_contribution", "copies"),
    ("induction_score", "induction"),
    ("previous_token_score", "previous"),
)
_TOLD = {  # title of a column, what it is
    "question": "Question: attention from the question to the needle, less that of an empty one.",
    "copies": "Copies: logits towards the answer from the needle.",
    "induction": "Induction: score of this type.",
    "previous": "Previous: score of previous-token heads.",
}


def effects(data: RunData) -> dict[tuple[int, int], Row]:
    """The change by ablating each single head, of needle accuracy where it is known, else of the next measure."""
    frame = held(data, "single") if is_heads(data) else None
    if frame is None:
        return {}
    measure = ordered(names(frame, "measure"), ["answer_logprob", *MEASURES])[0]
    return values_of(only(frame, measure=measure))


def leading(data: RunData) -> str:
    """The measure that heads are ranked by: the retrieval score, or what an encoder has in its place."""
    return RETRIEVAL if ranking(data) else "query_mass"


def head_table(data: RunData) -> Table | None:
    """The best heads with all that is known of them; None without any score."""
    lead = leading(data)
    heads = ranking(data, lead)
    if not heads:
        return None
    known = [(m, title, values_of(head_rows(data, m))) for m, title in _COLUMNS]
    known = [entry for entry in known if entry[2]]
    single = effects(data)
    titles = [title for _, title, _ in known]
    columns = ["rank", "head", titles[0], *(["alone ablated"] if single else []), *titles[1:]]
    rows: list[tuple[str, ...]] = []
    for at, row in enumerate(heads[:SHOWN]):
        head = int(row["block"]), int(row["head"])
        cells = [_cell(values.get(head), span=m == lead) for m, _, values in known]
        alone = single.get(head)
        if single:
            size = ("difference", "low", "high")
            cells.insert(1, NOTHING if alone is None else gain(*(alone[name] for name in size)))
        rows.append((str(at + 1), head_name(*head), *cells))
    first = next(iter(single.values()), None)
    effect = (
        f" Alone ablated: change of {measure_words(first['measure'])} without this head."
        if first
        else ""
    )
    by = (
        "retrieval score (mean over answered trials"
        if lead == RETRIEVAL
        else "attention from the question (mean"
    )
    told = "".join(f" {words}" for title, words in _TOLD.items() if title in titles)
    note = (
        f"Showing {len(rows)} of {count(len(heads))} heads, named block.head, by {by}, with a 95 % interval; the "
        f"highest of many look higher than they are).{effect}{told} A dash: not measured."
    )
    return Table("", tuple(columns), tuple(rows), frozenset(range(len(columns))) - {1}, note)


def _cell(row: Row | None, *, span: bool) -> str:
    if row is None:
        return NOTHING
    return f"{number(row['value'])} {interval(row['low'], row['high']) if span else ''}".strip()


def ranked_names(data: RunData) -> list[str]:
    """Names of the heads in the table, row by row."""
    return [head_name(row["block"], row["head"]) for row in ranking(data, leading(data))[:SHOWN]]
