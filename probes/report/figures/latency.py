"""Latency per layer: the median with a whisker up to the 95th percentile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.report.data import Cell, RunData
from probes.report.figures.card import FigureCard, figure
from probes.report.figures.marks import name_layer
from probes.report.text import milliseconds, percent
from probes.report.theme import ACCENT, NEUTRAL, PALETTE


def latency_per_layer(data: RunData, *, marked: Cell | None = None) -> FigureCard | None:
    """Markers at p50 with whiskers to p95, in milliseconds per text, from zero; None when nothing was timed."""
    median = data.cost("latency_p50_ms")
    if not median:
        return None
    tail, share = data.cost("latency_p95_ms"), data.cost("relative_cost")
    rows = pd.DataFrame(
        {
            "layer": list(median),
            "latency_p50_ms": list(median.values()),
            "latency_p95_ms": [tail.get(layer, np.nan) for layer in median],
            "relative_cost": [share.get(layer, np.nan) for layer in median],
        }
    )
    above = (rows["latency_p95_ms"] - rows["latency_p50_ms"]).clip(lower=0).fillna(0)
    cell = marked or data.chosen
    at = -1 if cell is None else cell.layer
    colours = [ACCENT if layer == at else PALETTE[0] for layer in rows["layer"]]
    chart = go.Figure(
        go.Bar(
            x=rows["layer"].to_numpy(),
            y=rows["latency_p50_ms"].to_numpy(),
            marker={"color": colours},
            width=0.6,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": above.to_numpy(),
                "arrayminus": np.zeros(len(rows)),
                "thickness": 1.5,
                "width": 5,
                "color": NEUTRAL,
            },
            customdata=[_hover(row) for row in rows.to_dict("records")],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    if at in set(rows["layer"]):
        name_layer(chart, at, "chosen", lift=4)
    chart.update_layout(height=360, margin={"l": 70, "r": 24, "t": 40, "b": 60}, showlegend=False)
    last = int(rows["layer"].max())
    chart.update_xaxes(
        title_text="layer", dtick=1 if last <= 20 else 2, tick0=0, range=[-0.5, last + 0.5]
    )
    chart.update_yaxes(title_text="milliseconds per text", rangemode="tozero")
    full = rows.iloc[-1]
    return FigureCard(
        "latency",
        "Latency by exit layer (ms per text, median and 95th percentile)",
        chart,
        "Time from text to embedding when the model is cut after this layer, measured on the machine of the run. "
        "The bar is the median, the whisker ends at the 95th percentile. Layer 0 is tokenising and the embedding table.",
        f"Bars of median latency from {milliseconds(rows['latency_p50_ms'].iloc[0])} at layer {rows['layer'].iloc[0]} "
        f"to {milliseconds(full['latency_p50_ms'])} at layer {int(full['layer'])}.",
        rows,
    )


def _hover(values: Any) -> str:
    lines = [f"<b>layer {values['layer']}</b>", f"median {milliseconds(values['latency_p50_ms'])}"]
    if np.isfinite(values["latency_p95_ms"]):
        lines.append(f"95th percentile {milliseconds(values['latency_p95_ms'])}")
    if np.isfinite(values["relative_cost"]):
        lines.append(f"{percent(values['relative_cost'])} of the full time")
    return "<br>".join(lines)


@figure("latency", 40)
def _(data: RunData) -> FigureCard | None:
    return latency_per_layer(data)
