"""Collapse: what length does to embeddings, layer by layer, and what helps."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from panels import focus, state
from panels.collapse import COMMAND, asks_for_collapse, collapse_figures
from panels.head import head
from panels.sidebar import Choice
from panels.state import Shown
from panels.summary import pickable
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
    studied = [
        run
        for run in shown
        if run.view.problem is None and asks_for_collapse(run) and _measured(run)
    ]
    if studied:
        collapse_figures(studied)


def _measured(run: Shown) -> bool:
    return bool(run.data.table_names) or not run.data.measurements.empty


def _how_to(text: str) -> None:
    st.text(text)
    st.code(COMMAND, language="bash")


def _found(run: Shown) -> None:
    """What the run found in words and one table, or what to do where it found nothing."""
    if not asks_for_collapse(run):
        _elsewhere(run)
        return
    if not _measured(run):
        if run.status == "finished":
            _how_to("This run measured nothing. Make one that does:")
        elif run.status == "running":
            st.text("Nothing has been measured yet; the page shows each part as it comes.")
        return
    told = run.data.once("verdict", lambda: verdict(run.data))
    if run.status == "finished":  # what else there is to say stands in the head
        section(sentence(told.headline))
        st.text("\n".join(told.sentences))
    if told.table is not None:
        order = [row[0] for row in told.table.rows]
        pickable(run, told.table, order, focus.picked(), focus.pick, "layer", 318)


def _elsewhere(run: Shown) -> None:
    """A run of another analysis: where it is shown, and the newest run that belongs here."""
    name = tag(str(run.view.info.get("analysis", "")))
    st.info(f"This is a run of {name}: it did not look for collapse.", icon=":material/info:")
    st.page_link(
        OVERVIEW, label="Its figures are on the page Overview", icon=":material/straighten:"
    )
    newest = next((v for v in state.runs() if v.info.get("analysis") == "embedding-collapse"), None)
    if newest is None:
        _how_to("No run here has looked for collapse. Make one:")
    else:
        st.button(
            f"Open {tag(newest.slug)}",
            on_click=_open,
            args=(newest.slug,),
            icon=":material/open_in_new:",
            key=f"open-{run.slug}",
            help="The newest run that looked for collapse.",
        )


def _open(slug: str) -> None:
    st.session_state["run"] = slug
    if st.session_state.get("with") == slug:
        st.session_state["with"] = None


page(st.session_state["choice"])
