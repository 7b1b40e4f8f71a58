"""Which layers a probe on all layers at once draws from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis
from probes.report.frames import column, names, only
from probes.report.study import plain_table
from probes.report.text import label, number, percent
from probes.report.theme import PALETTE

HOW_TO_READ = (
    "A probe on a weighted sum of all layers: bars are each layer’s share in the sum, with the sizes of the states "
    "taken into account; dots are the bare weights. The number is the accuracy of the mix, in brackets that of the "
    "best single layer. Shares tell where a probe looked, not where a concept is: neighbouring layers hold nearly the "
    "same."
)
_NUMBERS = ("layer", "weight", "share", "value", "best_layer_value")


def scalar_mix_shares(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Bars of share and dots of weight over layers, one panel per concept; None when no mix was trained."""
    needs = ("layer", "share")
    frame = plain_table(data, "scalar_mix", ("concept",), _NUMBERS, needs=needs, concepts=concepts)
    if frame is None:
        return None
    return data.once(("concept-scalar-mix", tuple(concepts or ())), lambda: _card(frame))


def _card(frame: pd.DataFrame) -> FigureCard:
    last = int(column(frame, "layer").max())
    shown = list(dict.fromkeys(names(frame, "concept")))
    panels = [_panel(only(frame, concept=name), name) for name in shown]
    top = float(np.nanmax([column(frame, "share").max(), column(frame, "weight").max()]))
    y = {"range": [0, 1.08 * top], "tickformat": ".0%"}
    sheet = Sheet({**layer_axis(last), "range": [-0.7, last + 0.7]}, y, columns=3, height=90)
    title = "Share of each layer in a mix of all"
    return FigureCard(
        "concept-scalar-mix", title, arranged(panels, sheet), HOW_TO_READ, _alt(frame, shown), frame
    )


def _panel(rows: pd.DataFrame, name: str) -> Panel:
    layers, share, weight = (column(rows, c) for c in ("layer", "share", "weight"))
    hover = [
        f"<b>layer {k:.0f}</b><br>share {percent(s)}, weight {percent(w)}"
        for k, s, w in zip(layers, share, weight, strict=True)
    ]
    common = {"x": layers, "customdata": hover, "hovertemplate": "%{customdata}<extra></extra>"}
    traces: list[Spec] = [
        {
            **common,
            "type": "bar",
            "y": share,
            "name": "share",
            "legendgroup": "share",
            "marker": {"color": PALETTE[0]},
        },
        {
            **common,
            "type": "scatter",
            "y": weight,
            "name": "bare weight",
            "legendgroup": "bare weight",
            "mode": "markers",
            "marker": {"size": 4, "color": PALETTE[1], "symbol": "diamond"},
        },
    ]
    mix, best = column(rows, "value")[0], column(rows, "best_layer_value")[0]
    return Panel(label(name, 20), traces, corner=f"{number(mix, 2)} ({number(best, 2)})")


def _alt(frame: pd.DataFrame, shown: list[str]) -> str:
    told: list[str] = []
    for name in shown:
        rows = only(frame, concept=name)
        top = int(np.argmax(column(rows, "share")))
        told.append(
            f"{name} draws most from layer {column(rows, 'layer')[top]:.0f} ({percent(column(rows, 'share')[top])})"
        )
    return f"{len(shown)} panels of bars over layers: {'; '.join(told)}."


@figure("concept-scalar-mix", 190)
def _(data: RunData) -> FigureCard | None:
    return scalar_mix_shares(data)
