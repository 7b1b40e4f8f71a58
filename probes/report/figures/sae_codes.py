"""Sparse codes of embeddings (CSR): quality by active numbers, by bytes and by time, beside truncation and PCA."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import ordered, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import Along, line, log_axis
from probes.report.figures.marks import across
from probes.report.figures.panels import Panel, Sheet, arranged, entry
from probes.report.figures.sae_looks import look_of
from probes.report.frames import column, names, only, where
from probes.report.sae_tables import SaeFocus, held
from probes.report.text import clean, count, counted, interval, label, milliseconds, number, size
from probes.report.theme import PALETTE

HOW_TO_READ = (
    "Embeddings kept as a few active numbers. Left: quality over active numbers per vector, sparse codes beside "
    "vectors cut to their first numbers (Matryoshka truncation) and beside PCA. Beside it: the same over bytes per "
    "vector, where a sparse code pays for the places of its numbers too. Bands are 95 % intervals. Sparse codes are "
    "worth it where their line lies above the others at the same place."
)
TIMED_HOW = " Right: over the time of a query, for what was timed."
FULL_HOW = " Dashed: the full vectors."
_CODERS = ("csr", "matryoshka", "pca")
ALONG = {"active": "active numbers", "bytes": "bytes per vector", "query_ms": "ms per query"}
_DATASETS = 6


def coder_words(kind: str) -> str:
    """A coder of embeddings in words."""
    return look_of("matryoshka truncation" if kind == "matryoshka" else kind).name


def sparse_codes(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """Quality over size and time, three panels per dataset; None when not measured."""
    frame = held(data, "csr")
    return None if frame is None else data.once("sae-csr", lambda: _card(data, frame))


def _card(data: RunData, frame: pd.DataFrame) -> FigureCard:
    sets = list(dict.fromkeys(zip(names(frame, "dataset"), names(frame, "measure"), strict=True)))
    panels: list[Panel] = []
    told: list[str] = []
    for dataset, measure in sets[:_DATASETS]:
        rows = only(frame, dataset=dataset, measure=measure)
        group = f"{clean(dataset, 30)}, {data.title(measure)}".strip(", ")
        for along in ALONG:
            panel = _panel(rows, along, group)
            if panel is not None:
                panels.append(panel)
        told.append(f"{group}: {_told(rows)}")
    cut = f", {_DATASETS} of {len(sets)} datasets" if len(sets) > _DATASETS else ""
    columns = 3 if any(np.isfinite(column(frame, "query_ms"))) else 2
    look = look_of("full")
    drawn_as = {"color": look.colour, "width": 1.6, "dash": "dash"}
    whole = [entry(look.name, line=drawn_as)] if "full" in names(frame, "coder") else []
    sheet = Sheet({"title": ""}, {}, columns=columns, height=170, own_y=True)
    spec = arranged(panels, sheet, legend=whole)
    spec["layout"]["legend"]["traceorder"] = "reversed"
    return FigureCard(
        "sae-csr",
        f"Sparse codes of embeddings: quality by size and time{cut}",
        spec,
        HOW_TO_READ + (TIMED_HOW if columns == 3 else "") + (FULL_HOW if whole else ""),
        f"{counted(len(panels), 'panel')}. {'; '.join(told)}.",
        frame,
    )


def _panel(rows: pd.DataFrame, along: str, group: str) -> Panel | None:
    cut = np.array([kind != "full" for kind in names(rows, "coder")], dtype=bool)
    own = where(rows, (column(rows, along) > 0) & cut)
    if own.empty:
        return None
    traces: list[Spec] = []
    for kind in reversed(ordered(names(own, "coder"), _CODERS)):
        kept = only(own, coder=kind).drop_duplicates(along).sort_values(along)
        look = look_of("matryoshka truncation" if kind == "matryoshka" else kind)
        drawn = line(kept, Along(along, "", ALONG[along], 0 if along == "active" else 2), look)
        for trace in drawn:
            if "customdata" in trace:
                trace["customdata"] = [_hover(row) for row in records(kept)]
        traces += drawn
    shapes: list[Spec] = []
    for level in column(only(rows, coder="full"), "value")[:1]:
        shapes = [
            across(float(level), {"color": PALETTE[4], "width": 1.6, "dash": "dash"}, layer="below")
        ]
    values = column(own, along)
    axis = log_axis(values) if along != "query_ms" else {"rangemode": "tozero", "nticks": 5}
    return Panel(f"by {ALONG[along]}", traces, shapes, label(group, 60), axes={"x": axis})  # fmt: skip


def _hover(row: dict[str, Any]) -> str:
    told = [
        f"<b>{label(coder_words(row['coder']), 40)}</b>",
        f"{number(row['value'])} {interval(row['low'], row['high'])}",
        f"{count(row['active'])} active, {size(row['bytes'])} per vector",
    ]
    if row["query_ms"] == row["query_ms"]:
        told.append(f"{milliseconds(row['query_ms'])} per query")
    return "<br>".join(told)


def _told(rows: pd.DataFrame) -> str:
    """The sparse code nearest to 32 active numbers beside the others of its size, in words."""
    own = [row for row in records(rows) if row["coder"] == "csr" and row["active"] > 0]
    if not own:
        return "no sparse codes"
    row = min(own, key=lambda r: abs(np.log(r["active"] / 32)))
    parts = [f"{coder_words('csr')} with {count(row['active'])} active {number(row['value'])}"]
    for kind, more in (("matryoshka", row["active"]), ("pca", row["active"]), ("full", None)):
        same = [r for r in records(only(rows, coder=kind)) if more is None or r["active"] == more]
        parts += [f"{coder_words(kind)} {number(r['value'])}" for r in same[:1]]
    return ", ".join(parts)


@figure("sae-csr", 530)
def _(data: RunData) -> FigureCard | None:
    return sparse_codes(data)
