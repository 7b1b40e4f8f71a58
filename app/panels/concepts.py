"""The concept that a reader picked: one choice for the list, the table, every figure and the URL."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from panels.state import Shown
from probes.report.study import Study

KEY = "concept"
ANALYSIS = "concept-depth"
COMMAND = f"fathometer run {ANALYSIS} --model minilm"


def study_of(run: Shown) -> Study | None:
    """The concepts of a run, None when it measured none (yet)."""
    return Study.of(run.data) if run.view.problem is None else None


def asks_for_concepts(run: Shown) -> bool:
    """Whether the run belongs on the page of concepts, even if it has measured none yet."""
    return run.view.info.get("analysis") == ANALYSIS or study_of(run) is not None


def names_of(runs: Sequence[Shown]) -> list[str]:
    """Concepts of all runs shown, families together; those of the first run first."""
    found = [study.by_family() for run in runs if (study := study_of(run)) is not None]
    return list(dict.fromkeys(concept.name for concepts in found for concept in concepts))


def pick(name: str | None) -> None:
    """Make `name` the picked concept everywhere; None clears it. To be called before the list is drawn."""
    st.session_state[KEY] = name


def picked(names: Sequence[str]) -> str | None:
    """The picked concept, from the URL as long as the list has not been drawn."""
    held = st.session_state.get(KEY, st.query_params.get(KEY))
    return held if held in names else None
