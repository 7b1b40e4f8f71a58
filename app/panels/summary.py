"""The table of a run's verdict, in which a row can be picked: a concept, or a layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from panels.concepts import pick, picked
from panels.state import Shown
from panels.words import small
from probes.report.study import Study
from probes.report.tables import Table


def summary(run: Shown, study: Study, table: Table) -> None:
    """The table of all concepts; a click on a row picks its concept, and the picked one is selected."""
    order = [concept.name for concept in study.by_family()]
    pickable(run, table, order, picked(order), pick, "concept")


def pickable(
    run: Shown,
    table: Table,
    order: Sequence[str],
    at: str | None,
    pick: Callable[[str | None], None],
    what: str,
    height: int = 560,
) -> None:
    """A table whose rows are named by `order`: a click on one picks it, and the picked one, `at`, is selected."""
    key = f"summary-{run.slug}"
    rows = [] if at is None or at not in order else [order.index(at)]
    st.session_state[key] = {"selection": {"rows": rows}}
    st.session_state[f"_{key}"] = rows
    frame = run.data.once("summary frame", lambda: _frame(table))
    st.dataframe(
        frame,
        hide_index=True,
        height=min(height, 38 + 35 * len(table.rows)),
        on_select=lambda: _row_clicked(key, order, pick),
        selection_mode="single-row",
        key=key,
        placeholder="–",
        column_config=_columns(frame, table),
        alt=f"Table of {len(table.rows)} {what}s; choosing a row picks its {what}",
    )
    small(table.note)


def plain(run: Shown, table: Table, what: str) -> None:
    """The table of a verdict whose rows mean nothing to other figures."""
    frame = run.data.once("summary frame", lambda: _frame(table))
    st.dataframe(
        frame,
        hide_index=True,
        height=min(420, 38 + 35 * len(table.rows)),
        key=f"summary-{run.slug}",
        placeholder="–",
        column_config=_columns(frame, table),
        alt=f"Table of {len(table.rows)} {what}s",
    )
    small(table.note)


def _frame(table: Table) -> pd.DataFrame:
    """The table with numbers where a column holds nothing else, so that it sorts."""
    frame = pd.DataFrame(table.rows, columns=list(table.columns))
    for name in [table.columns[at] for at in table.numeric]:
        plain = frame[name].str.replace(",", "").str.replace("−", "-").replace("–", None)
        values = pd.to_numeric(plain, errors="coerce")
        if (values.notna() == plain.notna()).all():
            frame[name] = values
        else:
            frame[name] = frame[name].where(plain.notna(), None)
    return frame


def _columns(frame: pd.DataFrame, table: Table) -> dict[str, Any]:
    """Numbers have the digits they came with."""
    found: dict[str, Any] = {}
    for at in table.numeric:
        name = table.columns[at]
        if pd.api.types.is_numeric_dtype(frame[name]) and any("." in row[at] for row in table.rows):
            found[name] = st.column_config.NumberColumn(format="%.2f")
    return found


def _row_clicked(key: str, order: Sequence[str], pick: Callable[[str | None], None]) -> None:
    """A click on a row. The page tells what the script itself selected as well, and late: that is no click."""
    rows = list(st.session_state[key].selection.rows)
    if rows != st.session_state.get(f"_{key}"):
        pick(order[rows[0]] if rows and rows[0] < len(order) else None)
