"""All runs: look, open, export, import, delete."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import streamlit as st
from panels import state
from panels.sidebar import Choice
from panels.words import heading, section

from probes.errors import FathometerError
from probes.report.archive import delete_run, export_run, import_run
from probes.report.content import dataset_names, model_name
from probes.report.text import clean, size
from probes.runs import RunView

_FRESH_SECONDS = 60
OVERVIEW = Path(__file__).parent / "overview.py"


def page(choice: Choice) -> None:
    """The whole page."""
    heading("Runs", str(state.parent()))
    _say()
    views = state.runs()
    if not views:
        st.text("No runs yet. Make one, or import one below; it appears here by itself.")
        st.code("fathometer demo", language="bash")
    else:
        _table(views)
        _actions(choice)
    _import()


def _say() -> None:
    """What the last action did; kept over the redraw that it caused."""
    done = st.session_state.pop("runs_done", None)
    if done:
        st.success("Done.", icon=":material/check:")
        st.text(done)


@st.cache_resource(max_entries=4, show_spinner=False)
def _sizes(root: str, stamp: tuple[tuple[str, float], ...]) -> dict[str, int]:
    return {view.slug: view.size() for view in state.runs()}


def _table(views: list[RunView]) -> None:
    sizes = _sizes(str(state.parent()), tuple((view.slug, view.modified) for view in views))
    rows = [_row(view, sizes.get(view.slug, 0)) for view in views]
    frame = pd.DataFrame(rows)
    st.dataframe(
        frame,
        hide_index=True,
        height=min(560, 38 + 35 * len(frame)),
        column_config={
            "MB": st.column_config.NumberColumn("MB", format="%.1f"),
        },
        on_select=_row_clicked,
        selection_mode="single-row",
        key="runs_table",
        alt=f"Table of {len(frame)} runs",
    )
    st.session_state["runs_order"] = [view.slug for view in views]
    free = shutil.disk_usage(state.parent()).free
    st.text(f"{len(views)} runs use {size(sum(sizes.values()))}; {size(free)} are free.")


def _row(view: RunView, size_bytes: int) -> dict[str, object]:
    info = view.info
    return {
        "run": clean(view.slug, 80),
        "status": view.status,
        "analysis": clean(info.get("analysis", ""), 40),
        "model": model_name(info),
        "data": ", ".join(dataset_names(info)),
        "created (UTC)": _moment(info.get("created")),
        "MB": size_bytes / 1e6,
        "note": clean(view.problem or info.get("message") or "", 200),
    }


def _moment(text: object) -> str:
    """A time in UTC to the minute; it sorts as text, too."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return ""
    moment = moment.astimezone(UTC) if moment.tzinfo else moment
    return moment.strftime("%Y-%m-%d %H:%M")


def _row_clicked() -> None:
    """A click on a row is a choice in the sidebar: there is one current run everywhere."""
    rows = st.session_state["runs_table"].selection.rows
    order = st.session_state.get("runs_order", [])
    if rows and rows[0] < len(order):
        st.session_state["run"] = order[rows[0]]


def _actions(choice: Choice) -> None:
    if choice.run is None:
        return
    slug = choice.run.slug
    section("Open, export, delete")
    st.text("The run chosen in the sidebar, or by a click on its row:")
    st.code(slug, language=None)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(OVERVIEW, label="Open", icon=":material/open_in_new:")
        st.download_button(
            "Export",
            lambda: export_run(state.parent() / slug),
            file_name=f"{slug}.zip",
            mime="application/zip",
            on_click="ignore",
            icon=":material/download:",
            key="export",
        )
        st.button("Delete …", icon=":material/delete:", key="delete", on_click=_ask, args=(slug,))
    if st.session_state.get("deleting") == slug:
        _confirm(slug)


def _ask(slug: str | None) -> None:
    st.session_state["deleting"] = slug


def _is_live(slug: str) -> bool:
    view = state.load(slug).view
    now = datetime.now(UTC).timestamp()
    return view.status == "running" and now - view.modified < _FRESH_SECONDS


@st.dialog("Delete this run?", on_dismiss=lambda: _ask(None))
def _confirm(slug: str) -> None:
    st.code(slug, language=None)
    if _is_live(slug):
        st.warning("It is still running. Stop it first, then delete it.", icon=":material/warning:")
        return
    st.text("Its folder and everything in it will be gone. This cannot be undone.")
    with st.container(horizontal=True):
        if st.button("Delete for good", type="primary", key="really"):
            try:
                delete_run(state.parent(), slug)
            except FathometerError as error:
                st.error("It could not be deleted.", icon=":material/error:")
                st.text(str(error))
                return
            _ask(None)
            st.session_state["runs_done"] = f"{slug} was deleted."
            st.rerun()
        if st.button("Keep it", key="keep_it"):
            _ask(None)
            st.rerun()


def _import() -> None:
    section("Import")
    with st.form("import", clear_on_submit=True, border=True):
        held = st.file_uploader("An exported run (.zip, at most 20 MB)", type="zip")
        sent = st.form_submit_button("Import", icon=":material/upload:")
    if not sent or held is None:
        return
    try:
        slug = import_run(state.parent(), held.getvalue())
    except FathometerError as error:
        st.error("It was not imported.", icon=":material/error:")
        st.text(str(error))
        return
    st.session_state["runs_done"] = f"{slug} was imported."
    st.rerun()


page(st.session_state["choice"])
