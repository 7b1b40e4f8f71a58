"""What stands above every run: its name, its state, what is wrong with it and what to do."""

from __future__ import annotations

import streamlit as st

from panels.live import follow
from panels.state import Shown
from panels.words import heading
from probes.analysis import resume_command
from probes.report import content


def head(run: Shown) -> None:
    """Name and state of a run; for one that is not finished how far it is, or the command that continues it."""
    info = run.view.info
    created = str(info.get("created", "")).replace("T", " ").replace("+00:00", " UTC")
    below = " · ".join(p for p in (run.slug, str(info.get("analysis", "")), created) if p)
    heading(content.head(run.data, run.slug).title, below)
    if run.view.problem is not None:
        st.error(
            "This run cannot be read. Delete it on the page Runs, or run it again.",
            icon=":material/error:",
        )
        st.text(run.view.problem)
    elif run.status == "running":
        follow(run)
    elif run.status in ("failed", "interrupted"):
        st.error(f"This run was not finished ({run.status}).", icon=":material/error:")
        st.text(str(info.get("message") or "No reason was written."))
        st.code(resume_command(run.view.path), language="bash")
