"""A study of layer quality on the Overview: words, the table of diagnostics, and figures, one question at a time."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from panels import focus
from panels.state import Shown
from panels.summary import plain
from panels.words import section
from probes.report.collapse_study import QUALITY, with_dataset
from probes.report.data import RunData
from probes.report.figures import (
    FigureCard,
    Marks,
    block_influence,
    frequency_gain,
    label_agreement,
    layer_drops,
    layer_metrics,
    layer_similarity,
    layer_spectra,
    quality_over_layers,
)
from probes.report.figures.focus import Focus, Focused
from probes.report.text import clean, sentence
from probes.report.verdict import verdict


def _by_labels(data: RunData, seen: Focus) -> FigureCard | None:
    return _named(quality_over_layers(with_dataset(data, seen.dataset), Marks()), seen)


def _metrics(data: RunData, seen: Focus) -> FigureCard | None:
    return _named(layer_metrics(with_dataset(data, seen.dataset), Marks()), seen)


def _named(card: FigureCard | None, seen: Focus) -> FigureCard | None:
    """The card with the dataset in its title, where there is a choice."""
    if card is None or seen.dataset is None:
        return card
    return replace(card, title=f"{card.title}, {clean(seen.dataset, 30)}")


SECTIONS: dict[str, tuple[Focused, ...]] = {
    "Quality and diagnostics": (_by_labels, label_agreement),
    "Every diagnostic": (_metrics,),
    "Layers side by side": (layer_similarity, layer_spectra),
    "Blocks": (block_influence, layer_drops, frequency_gain),
}


def asks_for_quality(run: Shown) -> bool:
    """Whether the run studies layer quality, even if it has measured nothing yet."""
    return run.view.info.get("analysis") == QUALITY


def quality_found(run: Shown) -> None:
    """What the run found in words and one table."""
    told = run.data.once("verdict", lambda: verdict(run.data))
    if run.status == "finished":  # what else there is to say stands in the head
        section(sentence(told.headline))
        st.text("\n".join(told.sentences))
    if told.table is not None:
        with st.expander("Every diagnostic and how it goes with quality"):
            plain(run, told.table, "diagnostic")


def quality_figures(runs: list[Shown]) -> None:
    """The figures of one section, of one run or two."""
    measured = [run for run in runs if run.data.table_names or not run.data.measurements.empty]
    if not measured:
        st.text("No figure can be drawn yet.")
        return
    section("Figures")
    seen = focus.controls(measured)
    asked = focus.section_asked(SECTIONS, "view")
    if not focus.drawn(measured, SECTIONS[asked], seen):
        st.text("Nothing of this was measured (yet).")
