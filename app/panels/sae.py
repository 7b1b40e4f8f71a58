"""Figures of autoencoders and their features, one question at a time; and the reasons for what is not there."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from panels import sae_focus
from panels.focus import section_asked
from panels.sae_feature import one_feature
from panels.sae_search import query_asked, results
from panels.state import Shown
from panels.words import section
from probes.report.collapse_study import reasons
from probes.report.figures import (
    best_single,
    circuit_auc,
    circuit_maps,
    density,
    feature_effects,
    loss_kept,
    reconstruction,
    sparse_codes,
    sparse_probing,
    training,
)
from probes.report.sae_tables import SAE, features_of
from probes.report.text import clean

COMMAND = f"fathometer run {SAE} --model smollm2"
SECTIONS: Mapping[str, tuple[sae_focus.Drawn, ...]] = {
    "Features": (density,),
    "Quality": (reconstruction, loss_kept, training),
    "Concepts": (best_single, sparse_probing),
    "Effects": (feature_effects,),
    "Circuits": (circuit_auc, circuit_maps),
    "Sparse codes": (sparse_codes,),
}
_PARTS = {  # parts of the analysis that a section shows
    "Features": ("features",),
    "Quality": ("train", "loss"),
    "Concepts": ("concepts",),
    "Effects": ("effects",),
    "Circuits": ("circuits",),
    "Sparse codes": ("csr",),
}


def asks_for_sae(run: Shown) -> bool:
    """Whether the run belongs on the page of features, even if it has measured nothing yet."""
    return run.view.info.get("analysis") == SAE


def sae_figures(runs: list[Shown]) -> None:
    """The picked feature, and the figures of one section, of one run or two."""
    section("Figures")
    asked = section_asked(SECTIONS, "view")
    several = len(runs) > 1
    query = query_asked() if asked == "Features" and _described(runs) else ""
    seen = sae_focus.controls(runs)
    if asked == "Features":
        for run in runs:
            results(run, seen, query, several)
        for run in runs:
            one_feature(run, seen, several)
    found = sae_focus.drawn(runs, SECTIONS[asked], seen)
    told = [line for run in runs for line in _reasons(run, asked)]
    if told:
        st.text("\n".join(dict.fromkeys(told)))
    elif not found and asked != "Features":
        st.text("Nothing of this was measured (yet).")


def _described(runs: list[Shown]) -> bool:
    return any(features_of(run.data, sae_focus.SaeFocus()) for run in runs)


def _reasons(run: Shown, asked: str) -> list[str]:
    """Why parts of a section are not there."""
    held = run.data.once("reasons", lambda: reasons(run.data))
    return [
        f"Not measured: {part}, because {clean(held[part], 240)}."
        for part in _PARTS[asked]
        if part in held
    ]
