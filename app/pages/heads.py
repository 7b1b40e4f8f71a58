"""Heads: which attention heads retrieve, whether the model needs them, and what one of them looks at."""

from __future__ import annotations

import streamlit as st
from panels import head_focus
from panels.elsewhere import elsewhere, how_to, shown_runs
from panels.heads import HEADS_COMMAND, asks_for_heads, head_figures
from panels.sidebar import Choice
from panels.state import Shown
from panels.summary import pickable
from panels.words import section

from probes.report.head_list import ranked_names
from probes.report.head_tables import HEADS
from probes.report.text import sentence
from probes.report.verdict import verdict


def page(choice: Choice) -> None:
    """The whole page for the sidebar's choice."""
    shown = shown_runs(choice, HEADS_COMMAND, _found)
    studied = [
        run for run in shown if run.view.problem is None and asks_for_heads(run) and _measured(run)
    ]
    if studied:
        head_figures(studied)


def _measured(run: Shown) -> bool:
    return bool(run.data.table_names) or not run.data.measurements.empty


def _found(run: Shown) -> None:
    """What the run found in words and one table, or what to do where it found nothing."""
    if not asks_for_heads(run):
        elsewhere(run, HEADS, "looked for retrieval heads", HEADS_COMMAND)
        return
    if not _measured(run):
        if run.status == "finished":
            how_to("This run measured nothing. Make one that does:", HEADS_COMMAND)
        elif run.status == "running":
            st.text("Nothing has been measured yet; the page shows each part as it comes.")
        return
    told = run.data.once("verdict", lambda: verdict(run.data))
    if run.status == "finished":  # what else there is to say stands in the head
        section(sentence(told.headline))
        st.text("\n".join(told.sentences))
    if told.table is not None:
        pickable(
            run,
            told.table,
            ranked_names(run.data),
            head_focus.picked(),
            head_focus.pick,
            "head",
            318,
        )


page(st.session_state["choice"])
