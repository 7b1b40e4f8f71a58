"""When a concept becomes readable: after which sentence, at which layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, figure
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis
from probes.report.frames import column, names, only
from probes.report.study import plain_table
from probes.report.text import interval, label, number
from probes.report.theme import MAGNITUDE

HOW_TO_READ = (
    "A probe at the end of each sentence (up) and after each layer (across): brighter is better. Where the colour "
    "begins from below tells how much of the text the model needs, where it begins from the left how deep it is. The "
    "number beside each name is the level of a guess."
)
_NUMBERS = ("sentence", "layer", "value", "low", "high", "n", "chance")


def readable_over_time(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Heatmaps of sentence × layer, one per concept; None when no concept was followed through its text."""
    needs = ("sentence", "layer", "value")
    frame = plain_table(data, "over_time", ("concept",), _NUMBERS, needs=needs, concepts=concepts)
    if frame is None:
        return None
    return data.once(("concept-over-time", tuple(concepts or ())), lambda: _card(frame))


def _card(frame: pd.DataFrame) -> FigureCard:
    last, sentences = int(column(frame, "layer").max()), int(column(frame, "sentence").max())
    shown = list(dict.fromkeys(names(frame, "concept")))
    panels = [_panel(only(frame, concept=name), name, last, sentences) for name in shown]
    y = {"range": [0.5, sentences + 0.5], "dtick": 1, "tick0": 1, "showgrid": False}
    x = {**layer_axis(last), "range": [-0.5, last + 0.5], "showgrid": False}
    drawn = arranged(panels, Sheet(x, y, columns=2, height=max(90, 26 * sentences), right=70))
    low = float(np.nanmin([column(frame, "value").min(), *column(frame, "chance")]))
    bar = {"thickness": 12, "tickformat": ".2f"}
    drawn["layout"]["coloraxis"] = {
        "colorscale": MAGNITUDE,
        "cmin": low,
        "cmax": 1.0,
        "colorbar": bar,
    }
    side = {
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "xshift": -44,
        "y": 0.5,
        "textangle": -90,
        "showarrow": False,
    }
    drawn["layout"]["annotations"].append({**side, "text": "after sentence", "font": {"size": 13}})
    return FigureCard(
        "concept-over-time",
        "Accuracy after each sentence, by layer",
        drawn,
        HOW_TO_READ,
        _alt(frame, shown),
        frame,
    )


def _panel(rows: pd.DataFrame, name: str, last: int, sentences: int) -> Panel:
    # Of deep models some layers only were read: their cells reach to halfway between them.
    layers = sorted({int(layer) for layer in column(rows, "layer") if 0 <= layer <= last})
    z = np.full((sentences, len(layers)), np.nan)
    hover = np.full(z.shape, "", dtype=object)
    for sentence, layer, value, low, high, n, _ in zip(
        *(column(rows, c) for c in _NUMBERS), strict=True
    ):
        if sentence < 1 or layer < 0:
            continue
        spot = int(sentence) - 1, layers.index(int(layer))
        z[spot] = value
        place = f"<b>sentence {sentence:.0f}, layer {layer:.0f}</b>"
        hover[spot] = f"{place}<br>{number(value)} {interval(low, high)}<br>n = {number(n, 0)}"
    heat = {
        "type": "heatmap",
        "x": layers,
        "y": np.arange(1, sentences + 1),
        "z": z,
        "coloraxis": "coloraxis",
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "ygap": 1,
        "showlegend": False,
    }
    chance = column(rows, "chance")
    corner = f"chance {number(chance[0], 2)}" if np.isfinite(chance[0]) else ""
    return Panel(label(name, 30), [heat], corner=corner)


def _alt(frame: pd.DataFrame, shown: list[str]) -> str:
    told: list[str] = []
    for name in shown:
        rows = only(frame, concept=name)
        best = int(np.argmax(column(rows, "value")))
        at = [column(rows, c)[best] for c in ("value", "sentence", "layer")]
        told.append(
            f"{name} is best after sentence {at[1]:.0f} at layer {at[2]:.0f} with {number(at[0])}"
        )
    return f"{len(shown)} heatmaps of accuracy by sentence and layer: {'; '.join(told)}."


@figure("concept-over-time", 145)
def _(data: RunData) -> FigureCard | None:
    return readable_over_time(data)
