"""Runs that have a page of their own: what they found in short, for the Overview."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from panels import figures
from panels.collapse import asks_for_collapse
from panels.concepts import asks_for_concepts, study_of
from panels.state import Shown
from panels.words import section
from probes.report.figures import FIGURES
from probes.report.text import sentence
from probes.report.verdict import verdict

_PAGES = Path(__file__).parents[1] / "pages"


def has_own_page(run: Shown) -> bool:
    """Whether all figures of the run stand on another page."""
    return asks_for_concepts(run) or asks_for_collapse(run)


def in_short(run: Shown) -> None:
    """Verdict, link and first figure of a run that has its own page; nothing where nothing was measured."""
    if run.view.problem is not None:
        return
    if asks_for_collapse(run):
        if run.data.table_names or not run.data.measurements.empty:
            _verdict(run)
            _first(
                run,
                "collapse",
                "All figures of this study",
                "What length does was not measured (yet).",
                "collapse-length",
            )
    elif study_of(run) is not None:
        _verdict(run)
        _first(
            run,
            "concepts",
            "All figures of these concepts",
            "No concept was measured layer by layer (yet).",
            "concept-depth",
        )


def _verdict(run: Shown) -> None:
    found = run.data.once("verdict", lambda: verdict(run.data))
    if run.status == "finished":
        section(sentence(found.headline))
        st.text("\n".join(found.sentences))


def _first(run: Shown, page: str, link: str, empty: str, name: str) -> None:
    icons = {"collapse": ":material/compress:", "concepts": ":material/stacked_line_chart:"}
    st.page_link(_PAGES / f"{page}.py", label=link, icon=icons[page])
    figures.show(FIGURES[name](run.data), f"{name}-{run.slug}", empty)
