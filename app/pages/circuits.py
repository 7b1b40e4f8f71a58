"""Circuits: which parts of a model carry a task, and how few of them keep it."""

from __future__ import annotations

import streamlit as st
from panels import head_focus
from panels.heads import CIRCUITS_COMMAND, asks_for_circuits, circuit_figures
from panels.state import Shown
from panels.study_page import StudyPage
from panels.summary import pickable

from probes.report.circuits import task_names
from probes.report.head_tables import CIRCUITS
from probes.report.tables import Table


def _tasks(run: Shown, table: Table) -> None:
    order = task_names(run.data)
    picked = head_focus.picked_task(order)
    pickable(run, table, order, picked, head_focus.pick_task, "task", 318)


StudyPage(
    analysis=CIRCUITS,
    missed="traced circuits",
    command=CIRCUITS_COMMAND,
    asked=asks_for_circuits,
    table=_tasks,
    figures=circuit_figures,
).draw(st.session_state["choice"])
