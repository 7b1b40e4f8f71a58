"""Train on one concept, test on another: a matrix at one layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.frames import column, names, only, where
from probes.report.study import plain_table
from probes.report.text import interval, label, number
from probes.report.theme import MAGNITUDE

HOW_TO_READ = (
    "A probe trained on the concept of its row reads the concept of the column; on the diagonal it was "
    "cross-validated. Off the diagonal, a cell well above chance means that both lie along a common direction at this "
    "layer; in brackets: the interval holds chance. Below chance: the direction is there, but turned round. Other "
    "layers are in the CSV."
)
_NUMBERS = ("layer", "value", "low", "high", "n", "chance")


def transfer_layers(data: RunData) -> list[int]:
    """Layers at which concepts were tested on each other, ascending."""
    frame = plain_table(data, "transfer", ("train", "test"), _NUMBERS)
    return [] if frame is None else sorted({int(k) for k in column(frame, "layer") if k == k})


def transfer_matrix(
    data: RunData, layer: int | None = None, concepts: Sequence[str] | None = None
) -> FigureCard | None:
    """Heatmap of train × test at `layer`, by default the one at which concepts carry over best; None without data."""
    needs = ("layer", "value")
    frame = plain_table(
        data, "transfer", ("train", "test"), _NUMBERS, needs=needs, concepts=concepts
    )
    if frame is None:
        return None
    at = _best_layer(frame) if layer is None else layer
    rows = only(frame, layer=at)
    if rows.empty:
        return None
    key = ("concept-transfer", at, tuple(concepts or ()))
    return data.once(key, lambda: _card(frame, rows, at))


def _across(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows off the diagonal."""
    pairs = zip(names(frame, "train"), names(frame, "test"), strict=True)
    return where(frame, np.array([train != test for train, test in pairs], dtype=bool))


def _best_layer(frame: pd.DataFrame) -> int:
    """The layer with the highest mean off the diagonal (of all cells where there is nothing off it)."""
    held = _across(frame)
    held = frame if held.empty else held
    layers = sorted({int(k) for k in column(held, "layer")})
    return max(layers, key=lambda k: (column(only(held, layer=k), "value").mean(), -k))


def _card(frame: pd.DataFrame, rows: pd.DataFrame, layer: int) -> FigureCard:
    order = list(dict.fromkeys([*names(rows, "train"), *names(rows, "test")]))
    spot = {name: at for at, name in enumerate(order)}
    size = len(order)
    z = np.full((size, size), np.nan)
    hover, texts = np.full((size, size), "", dtype=object), np.full((size, size), "", dtype=object)
    cells = zip(
        names(rows, "train"),
        names(rows, "test"),
        *(column(rows, c) for c in _NUMBERS[1:]),
        strict=True,
    )
    for train, test, value, low, high, n, chance in cells:
        at = spot[train], spot[test]
        z[at] = value
        texts[at] = f"({number(value, 2)})" if low <= chance <= high else number(value, 2)
        hover[at] = (
            f"train on <b>{label(train, 40)}</b><br>test on <b>{label(test, 40)}</b><br>{number(value)} "
            f"{interval(low, high)}<br>chance {number(chance, 2)}, n = {number(n, 0)}"
        )
    side = {
        "tickvals": list(range(size)),
        "ticktext": [label(name, 24) for name in order],
        "showgrid": False,
        "zeroline": False,
    }
    trace = {
        "type": "heatmap",
        "x": list(range(size)),
        "y": list(range(size)),
        "z": z,
        "text": texts,
        "texttemplate": "%{text}",
        "textfont": {"size": 12},
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "coloraxis": "coloraxis",
        "xgap": 2,
        "ygap": 2,
    }
    low = float(np.nanmin([np.nanmin(z), *column(rows, "chance")]))
    layout: Spec = {
        "height": size * 40 + 140,
        "margin": {"l": 150, "r": 24, "t": 12, "b": 90},
        "xaxis": {
            **side,
            "title": {"text": "tested on"},
            "range": [-0.5, size - 0.5],
            "tickangle": -30,
        },
        "yaxis": {**side, "title": {"text": "trained on"}, "range": [size - 0.5, -0.5]},
        "coloraxis": {
            "colorscale": MAGNITUDE,
            "cmin": low,
            "cmax": 1.0,
            "colorbar": {"thickness": 12, "tickformat": ".2f"},
        },
    }
    off = _across(rows)
    best = "" if off.empty else _best_words(off)
    alt = f"Matrix of accuracy at layer {layer}, {size} concepts trained on by {size} tested on.{best}"
    return FigureCard(
        "concept-transfer",
        f"Train on one concept, test on another (accuracy, layer {layer})",
        {"data": [trace], "layout": layout},
        HOW_TO_READ,
        alt,
        frame,
    )


def _best_words(off: pd.DataFrame) -> str:
    top = int(np.argmax(column(off, "value")))
    value, train, test = (
        column(off, "value")[top],
        names(off, "train")[top],
        names(off, "test")[top],
    )
    return f" Carries over best from {train} to {test}: {number(value)}."


@figure("concept-transfer", 150)
def _(data: RunData) -> FigureCard | None:
    return transfer_matrix(data)
