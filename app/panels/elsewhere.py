"""Where a run belongs that was opened on another page, and how a run for this page is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from panels import state
from panels.head import head
from panels.sidebar import Choice
from panels.state import Shown
from panels.words import heading, tag

PAGES = Path(__file__).parents[1] / "pages"
ICONS = {
    "overview": ":material/straighten:",
    "collapse": ":material/compress:",
    "concepts": ":material/stacked_line_chart:",
    "heads": ":material/grid_on:",
    "circuits": ":material/account_tree:",
    "sae": ":material/scatter_plot:",
}
_OWN = {  # analyses that have a page of their own
    "concept-depth": "concepts",
    "embedding-collapse": "collapse",
    "retrieval-heads": "heads",
    "circuits": "circuits",
    "sae": "sae",
}
_TITLES = {"sae": "Features"}  # pages whose title is not their address


def how_to(text: str, command: str) -> None:
    """What is missing, and the command that makes it."""
    st.text(text)
    st.code(command, language="bash")


def shown_runs(choice: Choice, command: str, found: Callable[[Shown], None]) -> list[Shown]:
    """The runs of the sidebar's choice, each with its head and, where it can be read, with what it `found`.

    None, and how to make one by `command`, where nothing was chosen.
    """
    if choice.run is None:
        heading("No runs yet")
        how_to(
            f"There is no run in {state.parent()}. Make one; it appears here by itself.", command
        )
        return []
    shown = [run for run in (choice.run, choice.other) if run is not None]
    for run in shown:
        if run is not shown[0]:
            st.divider()
        head(run)
        if run.view.problem is None:
            found(run)
    return shown


def elsewhere(run: Shown, analysis: str, missed: str, command: str) -> None:
    """A run of another analysis: where it is shown, and the newest run of `analysis`, which belongs here.

    `missed` says what such a run does and this one did not, after "No run here has".
    """
    name = tag(str(run.view.info.get("analysis", "")))
    st.info(f"This is a run of {name}: it has not {missed}.", icon=":material/info:")
    page = _OWN.get(name, "overview")
    st.page_link(
        PAGES / f"{page}.py",
        label=f"Its figures are on the page {_TITLES.get(page, page.capitalize())}",
        icon=ICONS[page],
    )
    newest = next((v for v in state.runs() if v.info.get("analysis") == analysis), None)
    if newest is None:
        how_to(f"No run here has {missed}. Make one:", command)
    else:
        st.button(
            f"Open {tag(newest.slug)}",
            on_click=_open,
            args=(newest.slug,),
            icon=":material/open_in_new:",
            key=f"open-{run.slug}",
            help=f"The newest run that has {missed}.",
        )


def _open(slug: str) -> None:
    st.session_state["run"] = slug
    if st.session_state.get("with") == slug:
        st.session_state["with"] = None
