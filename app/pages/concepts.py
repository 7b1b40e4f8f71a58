"""Concepts: what each layer of a model knows of each concept, beside its controls."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from panels import state
from panels.all_concepts import all_concepts
from panels.concepts import ANALYSIS, COMMAND, asks_for_concepts, study_of
from panels.head import head
from panels.one_concept import one_concept
from panels.sidebar import Choice
from panels.state import Shown
from panels.summary import summary
from panels.words import heading, section, tag

from probes.report.text import sentence
from probes.report.verdict import verdict

OVERVIEW = Path(__file__).parent / "overview.py"


def page(choice: Choice) -> None:
    """The whole page for the sidebar's choice."""
    if choice.run is None:
        heading("No runs yet")
        _how_to(f"There is no run in {state.parent()}. Make one; it appears here by itself.")
        return
    shown = [run for run in (choice.run, choice.other) if run is not None]
    for run in shown:
        if run is not shown[0]:
            st.divider()
        head(run)
        if run.view.problem is None:
            _found(run)
    studied = [run for run in shown if study_of(run) is not None]
    if studied:
        one_concept(studied)
        all_concepts(studied)


def _how_to(text: str) -> None:
    st.text(text)
    st.code(COMMAND, language="bash")


def _found(run: Shown) -> None:
    """What the run found in words and one table, or what to do where it found nothing."""
    if not asks_for_concepts(run):
        _elsewhere(run)
        return
    study = study_of(run)
    if study is None:
        if run.status == "finished":
            _how_to("This run measured no concept. Make one that does:")
        elif run.status == "running":
            st.text("No concept has been measured yet; the page shows each as it comes.")
        return
    told = run.data.once("verdict", lambda: verdict(run.data))
    if run.status == "finished":  # what else there is to say stands in the head
        section(sentence(told.headline))
        st.text("\n".join(told.sentences))
    if told.table is not None:
        summary(run, study, told.table)


def _elsewhere(run: Shown) -> None:
    """A run of another analysis: where it is shown, and the newest run that belongs here."""
    name = tag(str(run.view.info.get("analysis", "")))
    st.info(f"This is a run of {name}: it measured no concepts.", icon=":material/info:")
    st.page_link(
        OVERVIEW, label="Its figures are on the page Overview", icon=":material/straighten:"
    )
    newest = next((v for v in state.runs() if v.info.get("analysis") == ANALYSIS), None)
    if newest is None:
        _how_to("No run here has measured concepts. Make one:")
    else:
        st.button(
            f"Open {tag(newest.slug)}",
            on_click=_open,
            args=(newest.slug,),
            icon=":material/open_in_new:",
            key=f"open-{run.slug}",
            help="The newest run that measured concepts.",
        )


def _open(slug: str) -> None:
    st.session_state["run"] = slug
    if st.session_state.get("with") == slug:
        st.session_state["with"] = None


page(st.session_state["choice"])
