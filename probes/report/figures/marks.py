"""Marks that several figures share: lines with bands, uprights at depths, the budget, frames around cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.report.data import RunData
from probes.report.figures.card import Figure, Marks, value_text
from probes.report.frames import column, points
from probes.report.text import is_number, label, level, number
from probes.report.theme import ACCENT, NEUTRAL, SELECTED, faded, series_style

_FIXED = ((1 / 2, "½"), (2 / 3, "⅔"), (3 / 4, "¾"), (1.0, "last"))
ABOVE = {"y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}


def fixed_depths(n_layers: int) -> dict[int, str]:
    """The baseline depths of an L-layer model, by layer (halves rounded up, as the decision's baselines are);
    depths that fall together share one label.

    >>> fixed_depths(6)
    {3: '½', 4: '⅔', 5: '¾', 6: 'last'}
    >>> fixed_depths(2)
    {1: '½ ⅔', 2: '¾ last'}
    """
    found: dict[int, str] = {}
    for share, name in _FIXED:
        layer = int(np.floor(share * n_layers + 0.5))
        found[layer] = f"{found[layer]} {name}" if layer in found else name
    return found


def add_line(
    chart: Figure, rows: pd.DataFrame, name: str, names: list[str], digits: int = 3, **place: Any
) -> None:
    """One series with band, dash and marker; points are marked so that a lone one shows too."""
    if rows.empty:
        return
    style = series_style(name, names)
    x, y = column(rows, "layer"), column(rows, "value")
    low, high = column(rows, "low"), column(rows, "high")
    known = np.isfinite(low) & np.isfinite(high)
    if known.any():
        chart.add_trace(
            go.Scatter(
                x=np.concatenate([x[known], x[known][::-1]]),
                y=np.concatenate([high[known], low[known][::-1]]),
                fill="toself",
                fillcolor=faded(style["color"]),
                mode="lines",
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=label(name),
            ),
            **place,
        )
    hover = [
        f"<b>layer {p.layer}</b>, {label(name)}<br>{value_text(p, digits)}" for p in points(rows)
    ]
    chart.add_trace(
        go.Scatter(
            x=x,
            y=y,
            name=label(name),
            legendgroup=label(name),
            mode="lines+markers",
            line={"color": style["color"], "dash": style["dash"], "width": 2.5},
            marker={
                "symbol": style["symbol"],
                "size": 8 if len(rows) <= 14 else 5,
                "color": style["color"],
            },
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
        ),
        **place,
    )


def mark_depths(chart: Figure, marks: Marks, lift: int | None = None, **place: Any) -> None:
    """Uprights at the chosen and the picked depth; with `lift`, their names that many pixels above the plot."""
    chosen = None if marks.chosen is None else marks.chosen.layer
    picked = None if marks.selected is None else marks.selected.layer
    if chosen is not None:
        chart.add_vline(x=chosen, line={"color": ACCENT, "width": 2}, **place)
    if picked is not None and picked != chosen:
        chart.add_vline(x=picked, line={"color": SELECTED, "width": 2, "dash": "dash"}, **place)
    if lift is not None:
        name_depths(chart, marks, lift)


def name_depths(chart: Figure, marks: Marks, lift: int) -> None:
    """The words “chosen” and “picked” above their layers."""
    words: dict[int, list[str]] = {}
    for cell, word in ((marks.chosen, "chosen"), (marks.selected, "picked")):
        if cell is not None:
            words.setdefault(cell.layer, []).append(word)
    for layer, names in words.items():
        font = {"color": ACCENT if "chosen" in names else SELECTED, "size": 12}
        text = f"<b>{', '.join(names)}</b>"
        chart.add_annotation(x=layer, text=text, font=font, yshift=lift, **ABOVE)


def mark_fixed(chart: Figure, n_layers: int) -> None:
    """Dotted uprights at the depths one would take without measuring."""
    for layer, name in fixed_depths(n_layers).items():
        chart.add_vline(x=layer, line={"color": NEUTRAL, "width": 1, "dash": "dot"}, layer="below")
        chart.add_annotation(x=layer, text=name, font={"color": NEUTRAL, "size": 12}, **ABOVE)


def mark_budget(chart: Figure, data: RunData, marks: Marks) -> None:
    """A dashed line at the asked share of full quality, named at the right edge."""
    full = data.at(data.full)
    if marks.budget is None or full is None:
        return
    goal = marks.budget * full.value
    line = {"color": NEUTRAL, "width": 1.5, "dash": "longdash"}
    chart.add_hline(y=goal, line=line, layer="below")
    chart.add_annotation(
        x=0,
        xref="paper",
        xanchor="left",
        xshift=4,
        y=goal,
        yanchor="bottom",
        showarrow=False,
        text=f"{level(marks.budget)} of full = {number(goal)}",
        font={"color": NEUTRAL, "size": 12},
    )


def mark_chance(chart: Figure, data: RunData, measure: str, **place: Any) -> None:
    """A dotted line at the measure's chance level, where it has one."""
    chance = data.measure(measure).get("chance")
    if is_number(chance):
        line = {"color": NEUTRAL, "width": 1, "dash": "dot"}
        chart.add_hline(y=chance, line=line, **place)


def outline(chart: Figure, x: float, y: float, *, dash: str = "solid", **place: int) -> None:
    """A frame around one cell: white on a black edge, so that it shows on every colour of the scale."""
    box = {"type": "rect", "x0": x - 0.47, "x1": x + 0.47, "y0": y - 0.46, "y1": y + 0.46}
    chart.add_shape(**box, line={"color": "#000000", "width": 5.5}, **place)
    chart.add_shape(**box, line={"color": "#ffffff", "width": 2.5, "dash": dash}, **place)
