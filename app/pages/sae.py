"""Features: what sparse autoencoders keep of a model's states, and what their features stand for."""

from __future__ import annotations

import streamlit as st
from panels import sae_focus
from panels.sae import COMMAND, asks_for_sae, sae_figures
from panels.state import Shown
from panels.study_page import StudyPage
from panels.summary import pickable
from panels.words import points

from probes.report.sae_list import feature_names
from probes.report.sae_tables import SAE
from probes.report.tables import Table


def _features(run: Shown, table: Table) -> None:
    order = feature_names(run.data)
    picked = sae_focus.picked()
    at = None if picked is None else str(picked)
    pickable(run, table, order, at, sae_focus.pick, "feature", 388)


StudyPage(
    analysis=SAE,
    missed="trained a sparse autoencoder",
    command=COMMAND,
    asked=asks_for_sae,
    table=_features,
    figures=sae_figures,
    words=points,
).draw(st.session_state["choice"])
