"""Concepts: what each layer of a model knows of each concept, beside its controls."""

from __future__ import annotations

import streamlit as st
from panels.all_concepts import all_concepts
from panels.concepts import ANALYSIS, COMMAND, asks_for_concepts, study_of
from panels.elsewhere import elsewhere, how_to, shown_runs
from panels.one_concept import one_concept
from panels.sidebar import Choice
from panels.state import Shown
from panels.summary import summary
from panels.words import section

from probes.report.text import sentence
from probes.report.verdict import verdict


def page(choice: Choice) -> None:
    """The whole page for the sidebar's choice."""
    shown = shown_runs(choice, COMMAND, _found)
    studied = [run for run in shown if study_of(run) is not None]
    if studied:
        one_concept(studied)
        all_concepts(studied)


def _found(run: Shown) -> None:
    """What the run found in words and one table, or what to do where it found nothing."""
    if not asks_for_concepts(run):
        elsewhere(run, ANALYSIS, "measured concepts", COMMAND)
        return
    study = study_of(run)
    if study is None:
        if run.status == "finished":
            how_to("This run measured no concept. Make one that does:", COMMAND)
        elif run.status == "running":
            st.text("No concept has been measured yet; the page shows each as it comes.")
        return
    told = run.data.once("verdict", lambda: verdict(run.data))
    if run.status == "finished":  # what else there is to say stands in the head
        section(sentence(told.headline))
        st.text("\n".join(told.sentences))
    if told.table is not None:
        summary(run, study, told.table)


page(st.session_state["choice"])
