"""Latency per layer: the median with a whisker up to the 95th percentile."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Marks, Spec, figure, plain
from probes.report.figures.marks import depth_names, marked
from probes.report.frames import column
from probes.report.text import milliseconds, percent
from probes.report.theme import ACCENT, NEUTRAL, PALETTE, SELECTED, layer_ticks

HOW_TO_READ = (
    "Time from text to embedding when the model is cut after this layer, measured on the machine of the run. "
    "The bar is the median, the whisker ends at the 95th percentile. Layer 0 is tokenising and the embedding table."
)


def latency_per_layer(data: RunData, marks: Marks | None = None) -> FigureCard | None:
    """Bars at p50 with whiskers to p95, in milliseconds per text, from zero; None when nothing was timed."""
    median = data.cost("latency_p50_ms")
    if not median:
        return None
    marks = marks or Marks.of(data)
    base, rows, text = data.once("latency", lambda: _base(data))
    bars = {**base["data"][0], "marker": {"color": _colours(list(median), marks)}}
    return FigureCard(
        "latency",
        "Latency by exit layer (ms per text)",
        marked({**base, "data": [bars]}, notes=depth_names(marks, lift=4)),
        HOW_TO_READ,
        text,
        rows,
    )


def _base(data: RunData) -> tuple[Spec, pd.DataFrame, str]:
    """The bars in no colour yet, their table, and what they show in words."""
    median = data.cost("latency_p50_ms")
    tail, share = data.cost("latency_p95_ms"), data.cost("relative_cost")
    rows = pd.DataFrame(
        {
            "layer": list(median),
            "latency_p50_ms": list(median.values()),
            "latency_p95_ms": [tail.get(layer, np.nan) for layer in median],
            "relative_cost": [share.get(layer, np.nan) for layer in median],
        }
    )
    p50, p95 = column(rows, "latency_p50_ms"), column(rows, "latency_p95_ms")
    chart = go.Figure(
        go.Bar(
            x=column(rows, "layer"),
            y=p50,
            width=0.6,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": np.nan_to_num(np.maximum(p95 - p50, 0)),
                "arrayminus": np.zeros(len(rows)),
                "thickness": 1.5,
                "width": 5 if len(rows) <= 14 else 2,
                "color": NEUTRAL,
            },
            customdata=[
                _hover(layer, median[layer], tail.get(layer), share.get(layer)) for layer in median
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    first, last = min(median), max(median)
    chart.update_layout(
        height=360,
        margin={"l": 70, "r": 24, "t": 28, "b": 56},
        showlegend=False,
        xaxis={"title": {"text": "layer"}, "range": [-0.5, last + 0.5], **layer_ticks(last)},
        yaxis={"title": {"text": "milliseconds per text"}, "rangemode": "tozero"},
    )
    text = (
        f"Bars of median latency from {milliseconds(median[first])} at layer {first} "
        f"to {milliseconds(median[last])} at layer {last}."
    )
    return plain(chart), rows, text


def _colours(layers: list[int], marks: Marks) -> list[str]:
    special = {marks.selected.layer: SELECTED} if marks.selected is not None else {}
    if marks.chosen is not None:
        special[marks.chosen.layer] = ACCENT
    return [special.get(layer, PALETTE[0]) for layer in layers]


def _hover(layer: int, p50: float, p95: float | None, share: float | None) -> str:
    lines = [f"<b>layer {layer}</b>", f"median {milliseconds(p50)}"]
    if p95 is not None:
        lines.append(f"95th percentile {milliseconds(p95)}")
    if share is not None:
        lines.append(f"{percent(share)} of the full time")
    return "<br>".join(lines)


@figure("latency", 40)
def _(data: RunData) -> FigureCard | None:
    return latency_per_layer(data)
