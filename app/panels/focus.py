"""The layer and the dataset that a reader picked: one choice for the lists, the table, every figure and the URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from panels.drawing import Clicked, draw
from panels.linked import clickable
from panels.state import Shown
from probes.report.collapse_study import datasets
from probes.report.figures import FigureCard, with_layer
from probes.report.figures.focus import Focus, Focused

LAYER, DATASET = "at", "dataset"  # of the session and of the URL

# Figures with layers along x, in which a picked one is marked.
OVER_LAYERS = {
    "collapse-slope",
    "collapse-temperature-gain",
    "collapse-remedies",
    "collapse-chunking",
    "collapse-mask",
    "layer-metrics",
    "quality-depth",
}
_MATRIX = "layer-cka"  # layers on both sides; it marks the picked one itself


def pick(layer: str | None) -> None:
    """Make a layer the picked one everywhere; None clears it. To be called before the list is drawn."""
    st.session_state[LAYER] = layer


def picked() -> str | None:
    """The picked layer, from the URL as long as the list has not been drawn."""
    held = st.session_state.get(LAYER, st.query_params.get(LAYER))
    return held if isinstance(held, str) else None


def controls(runs: Sequence[Shown]) -> Focus:
    """The lists of layers and, where there are several, of datasets, with a way to clear the choice."""
    last = max(run.data.n_layers or 0 for run in runs)
    names = list(dict.fromkeys(name for run in runs for name in datasets(run.data)))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        layer = st.selectbox(
            "Layer",
            [str(k) for k in range(last + 1)],
            index=None,
            key=LAYER,
            bind="query-params",
            placeholder="Choose, or click a line",
            width=220,
        )
        dataset = None
        if len(names) > 1:
            dataset = st.selectbox("Dataset", names, key=DATASET, bind="query-params", width=220)
        st.button(
            "Clear selection",
            on_click=pick,
            args=(None,),
            disabled=layer is None,
            icon=":material/close:",
            key="clear-layer",
        )
    return Focus(None if layer is None else int(layer), dataset)


def section_asked(sections: Mapping[str, Sequence[Any]], key: str) -> str:
    """The section that a reader asked for, the first by default."""
    names = list(sections)
    asked = st.segmented_control(
        "Figures", names, default=names[0], required=True, key=key, bind="query-params"
    )
    return asked if asked in sections else names[0]


def drawn(runs: Sequence[Shown], builders: Sequence[Focused], focus: Focus) -> bool:
    """These figures of every run; a click on a line or point picks its layer. Whether any could be drawn."""

    def ready(card: FigureCard) -> FigureCard:
        if card.id in OVER_LAYERS:
            return with_layer(card, focus.layer)
        return (clickable(card) or card) if card.id == _MATRIX else card

    def clicked(card: FigureCard) -> Clicked | None:
        by_layer = card.id in (*OVER_LAYERS, _MATRIX)
        linked = by_layer or any("meta" in trace for trace in card.spec["data"])
        return _clicked(card) if linked else None

    made = [lambda data, build=build: build(data, focus) for build in builders]
    return draw(runs, made, clicked, ready)


def _clicked(card: FigureCard) -> Clicked:
    """What a click means: the layer of the line, or the layer at which a point lies; on nothing, none."""
    traces = card.spec["data"]

    def clicked(points: Sequence[Any]) -> None:
        if not points:
            return pick(None)
        at, x = points[0].get("curve_number"), points[0].get("x")
        meta = traces[at].get("meta", {}) if isinstance(at, int) and at < len(traces) else {}
        layer = meta.get("layer", x if card.id in (*OVER_LAYERS, _MATRIX) else None)
        return pick(str(round(layer))) if isinstance(layer, int | float) else None

    return clicked
