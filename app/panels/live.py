"""Following a run that is not finished: progress every two seconds, the whole page when something new is there."""

from __future__ import annotations

import streamlit as st

from panels import state
from panels.state import Shown
from probes.report.text import is_number
from probes.report.verdict import progress_text

SECONDS = 2.0


@st.fragment(run_every=SECONDS)
def follow(run: Shown) -> None:
    """Progress of a live run; redraws the page once its tables or its status change."""
    now = state.load(run.slug)
    if _settled(now) != _settled(run):
        st.rerun()
    progress = now.data.part("progress")
    done, total = progress.get("done"), progress.get("total")
    share = float(done) / float(total) if is_number(done) and is_number(total) and total else 0.0
    st.info(
        "This run is not finished. Figures appear as soon as their numbers are written.",
        icon=":material/hourglass_top:",
    )
    st.progress(min(1.0, max(0.0, share)))
    st.text(progress_text(now.data))


def _settled(run: Shown) -> tuple[object, ...]:
    """What a redraw is worth for: the status and every part but run.json, which changes all the time."""
    return run.status, *(part for part in run.stamp if part[0] != "run.json")
