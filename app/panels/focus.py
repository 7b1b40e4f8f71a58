"""The layer and the dataset that a reader picked: one choice for the lists, the table, every figure and the URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st

from panels import figures
from panels.limits import equal_limits
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
    """These figures of every run, one run's below the other's with equal axes; whether any could be drawn."""
    found = False
    for build in builders:
        held = equal_limits([build(run.data, focus) for run in runs])
        if not any(held):
            continue
        found = True
        for run, card in zip(runs, held, strict=True):
            _one(run, card, focus, run.slug if len(runs) > 1 else "", _name(held))
    return found


def _name(held: Sequence[FigureCard | None]) -> str:
    return next(card.id for card in held if card is not None)


def _one(run: Shown, card: FigureCard | None, focus: Focus, named: str, what: str) -> None:
    key = f"{what}-{run.slug}"
    if card is None:
        figures.show(None, key, "Not measured in this run (yet).", named)
        return
    if card.id in OVER_LAYERS:
        card = with_layer(card, focus.layer)
    if card.id == _MATRIX:
        card = clickable(card) or card
    linked = card.id in (*OVER_LAYERS, _MATRIX) or any("meta" in t for t in card.spec["data"])
    room = figures.PAGE if figures.is_wide(card.spec) else figures.COLUMN
    figures.show(card, key, "", named, _clicked(card) if linked else None, room)


def _clicked(card: FigureCard) -> Callable[[Sequence[Any]], None]:
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
