"""Runs that have a page of their own: what they found in short, for the Overview."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from panels import figures
from panels.collapse import asks_for_collapse
from panels.concepts import asks_for_concepts, study_of
from panels.elsewhere import ICONS, PAGES
from panels.heads import asks_for_circuits, asks_for_heads
from panels.sae import asks_for_sae
from panels.state import Shown
from panels.words import section
from probes.report.figures import FIGURES
from probes.report.text import sentence
from probes.report.verdict import verdict


def has_own_page(run: Shown) -> bool:
    """Whether all figures of the run stand on another page."""
    return asks_for_concepts(run) or any(kind.asked(run) for kind in _KINDS)


@dataclass(frozen=True)
class _Kind:
    """A kind of study: which runs are one, its page, the link there, and the figure that the Overview shows."""

    asked: Callable[[Shown], bool]
    page: str
    link: str
    figure: str
    empty: str


_CONCEPTS = _Kind(
    lambda run: study_of(run) is not None,
    "concepts",
    "All figures of these concepts",
    "concept-depth",
    "No concept was measured layer by layer (yet).",
)
_KINDS = (
    _Kind(
        asks_for_collapse,
        "collapse",
        "All figures of this study",
        "collapse-length",
        "What length does was not measured (yet).",
    ),
    _Kind(
        asks_for_heads,
        "heads",
        "All figures of these heads",
        "head-map",
        "No head was measured (yet).",
    ),
    _Kind(
        asks_for_circuits,
        "circuits",
        "All figures of these circuits",
        "circuit-tasks",
        "No task was measured (yet).",
    ),
    _Kind(
        asks_for_sae,
        "sae",
        "All figures of these features",
        "sae-reconstruction",
        "What the autoencoder keeps was not measured (yet).",
    ),
)


def in_short(run: Shown) -> None:
    """Verdict, link and first figure of a run that has its own page; nothing where nothing was measured."""
    if run.view.problem is not None:
        return
    kind = next((kind for kind in (*_KINDS, _CONCEPTS) if kind.asked(run)), None)
    if kind is not None and (run.data.table_names or not run.data.measurements.empty):
        _verdict(run)
        _first(run, kind)


def _verdict(run: Shown) -> None:
    found = run.data.once("verdict", lambda: verdict(run.data))
    if run.status == "finished":
        section(sentence(found.headline))
        st.text("\n".join(found.sentences))


def _first(run: Shown, kind: _Kind) -> None:
    st.page_link(PAGES / f"{kind.page}.py", label=kind.link, icon=ICONS[kind.page])
    figures.show(FIGURES[kind.figure](run.data), f"{kind.figure}-{run.slug}", kind.empty)
