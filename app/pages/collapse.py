"""Collapse: what length does to embeddings, layer by layer, and what helps."""

from __future__ import annotations

import streamlit as st
from panels import focus
from panels.collapse import COLLAPSE, COMMAND, asks_for_collapse, collapse_figures
from panels.state import Shown
from panels.study_page import StudyPage
from panels.summary import pickable

from probes.report.tables import Table


def _layers(run: Shown, table: Table) -> None:
    order = [row[0] for row in table.rows]
    pickable(run, table, order, focus.picked(), focus.pick, "layer", 318)


StudyPage(
    analysis=COLLAPSE,
    missed="looked for collapse",
    command=COMMAND,
    asked=asks_for_collapse,
    table=_layers,
    figures=collapse_figures,
).draw(st.session_state["choice"])
