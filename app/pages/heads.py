"""Heads: which attention heads retrieve, whether the model needs them, and what one of them looks at."""

from __future__ import annotations

import streamlit as st
from panels import head_focus
from panels.heads import HEADS_COMMAND, asks_for_heads, head_figures
from panels.state import Shown
from panels.study_page import StudyPage
from panels.summary import pickable

from probes.report.head_list import ranked_names
from probes.report.head_tables import HEADS
from probes.report.tables import Table


def _heads(run: Shown, table: Table) -> None:
    order = ranked_names(run.data)
    pickable(run, table, order, head_focus.picked(), head_focus.pick, "head", 318)


StudyPage(
    analysis=HEADS,
    missed="looked for retrieval heads",
    command=HEADS_COMMAND,
    asked=asks_for_heads,
    table=_heads,
    figures=head_figures,
).draw(st.session_state["choice"])
