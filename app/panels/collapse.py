"""Figures of a study of collapse, one question at a time; and the reasons for what is not there."""

from __future__ import annotations

import streamlit as st

from panels import focus
from panels.state import Shown
from panels.words import section
from probes.report.collapse_study import COLLAPSE, QUALITY, reasons
from probes.report.figures import (
    chunking,
    collapse_slope,
    head_bottleneck,
    index_size,
    layer_spectra,
    length_collapse,
    length_rank,
    mask_deficiency,
    remedies_at_layer,
    remedies_by_layer,
    temperature_gain,
    temperature_sweep,
)
from probes.report.figures.focus import Focused
from probes.report.text import clean

COMMAND = f"fathometer run {COLLAPSE} --model minilm"
SECTIONS: dict[str, tuple[Focused, ...]] = {
    "Length": (length_collapse, collapse_slope),
    "Temperature and remedies": (
        temperature_sweep,
        temperature_gain,
        remedies_by_layer,
        remedies_at_layer,
        chunking,
    ),
    "Spectra": (length_rank, layer_spectra),
    "Index size": (index_size,),
    "Head and mask": (head_bottleneck, mask_deficiency),
}
_PARTS = {  # parts of the analysis that a section shows
    "Length": ("length",),
    "Temperature and remedies": ("temperature", "remedies", "chunking"),
    "Spectra": ("length",),
    "Index size": ("index",),
    "Head and mask": ("bottleneck", "mask"),
}


def asks_for_collapse(run: Shown) -> bool:
    """Whether the run belongs on the page of collapse, even if it has measured nothing yet."""
    return run.view.info.get("analysis") == COLLAPSE


def collapse_figures(runs: list[Shown]) -> None:
    """The figures of one section, of one run or two."""
    section("Figures")
    seen = focus.controls(runs)
    asked = focus.section_asked(SECTIONS, "part")
    found = focus.drawn(runs, SECTIONS[asked], seen)
    told = [line for run in runs for line in _reasons(run, asked)]
    if told:
        st.text("\n".join(dict.fromkeys(told)))
    elif not found:
        st.text("Nothing of this was measured (yet).")
    if asked == "Spectra" and not any("spectra" in run.data.table_names for run in runs):
        st.caption(f"Spectra of single layers are measured by the analysis {QUALITY}.")


def _reasons(run: Shown, asked: str) -> list[str]:
    """Why parts of a section are not there."""
    held = run.data.once("reasons", lambda: reasons(run.data))
    return [
        f"Not measured: {part}" + (f", because {clean(held[part], 240)}." if held[part] else ".")
        for part in _PARTS[asked]
        if part in held
    ]
