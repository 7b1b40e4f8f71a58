"""Search among the features of a run: words in what they promote, in the texts they fire on, and in concepts."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from panels import sae_focus
from panels.sae_examples import search_index
from panels.state import Shown
from panels.words import small, tag
from probes.report.sae_search import Found
from probes.report.sae_tables import SaeFocus, features_of
from probes.report.text import clean, count, counted

MOST = 50  # features that are listed
_ROWS = 6  # of these that are seen at a time
_WHERE = {"text": "its texts"}


def query_asked() -> str:
    """The search box."""
    held = st.text_input(
        "Search features",
        key=sae_focus.FIND,
        bind="query-params",
        max_chars=80,
        placeholder="A word that a feature promotes or fires on, or a concept",
        icon=":material/search:",
    )
    return (held or "").strip()


def results(run: Shown, focus: SaeFocus, query: str, named: bool) -> None:
    """What a query finds in a run; a click on a row picks its feature."""
    sae = next(iter(row["sae"] for row in features_of(run.data, focus).values()), None)
    if not query or sae is None:
        return
    found, total = search_index(run, sae).search(query, MOST)
    of_run = f" of {tag(run.slug)}" if named else ""
    if not found:
        small(f"No feature{of_run} promotes, fires on or is labelled with {clean(query, 80)}.")
        return
    order = [each.feature for each in found]
    key = f"found-{run.slug}"
    rows = [order.index(focus.feature)] if focus.feature in order else []
    st.session_state[key] = {"selection": {"rows": rows}}
    st.session_state[f"_{key}"] = rows
    st.dataframe(
        _frame(found),
        hide_index=True,
        height=38 + 35 * min(_ROWS, len(found)),
        on_select=lambda: _clicked(key, order),
        selection_mode="single-row",
        key=key,
        column_config={
            "feature": st.column_config.NumberColumn(width="small", format="%d"),
            "found in": st.column_config.TextColumn(width="small"),
            "token or text": st.column_config.TextColumn(width="large"),
        },
        alt=f"Table of {counted(len(found), 'feature')}; choosing a row picks its feature",
    )
    cut = (
        "" if total == len(found) else f"; the {count(len(found))} that fit best stand in the list"
    )
    scrolls = ", which scrolls" if cut and len(found) > _ROWS else ""
    words = "every word" if len(query.split()) > 1 else "this word"
    small(
        f"{counted(total, 'feature')}{of_run} with {words}{cut}{scrolls}. The strongest token stands between « and »."
    )


def _frame(found: list[Found]) -> pd.DataFrame:
    return pd.DataFrame({
        "feature": [each.feature for each in found],
        "found in": [_WHERE.get(each.where, each.where) for each in found],
        "token or text": [each.shown for each in found],
    })  # fmt: skip


def _clicked(key: str, order: list[int]) -> None:
    """A click on a row. The page tells what the script itself selected as well, and late: that is no click."""
    rows = list(st.session_state[key].selection.rows)
    if rows != st.session_state.get(f"_{key}"):
        sae_focus.pick(order[rows[0]] if rows and rows[0] < len(order) else None)
