"""Marks that several figures share: lines with bands, the chosen depth, fixed depths, the budget, a frame around a cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from probes.report.data import Cell, RunData
from probes.report.figures.card import value_text
from probes.report.text import label, level, number
from probes.report.theme import ACCENT, NEUTRAL, faded, series_style

_FIXED = ((1 / 2, "½"), (2 / 3, "⅔"), (3 / 4, "¾"), (1.0, "last"))


def fixed_depths(n_layers: int) -> dict[int, str]:
    """The baseline depths of an L-layer model, by layer; depths that fall together share one label.

    >>> fixed_depths(6)
    {3: '½', 4: '⅔', 5: '¾', 6: 'last'}
    >>> fixed_depths(2)
    {1: '½', 2: '⅔ ¾ last'}
    """
    found: dict[int, str] = {}
    for share, name in _FIXED:
        layer = int(np.ceil(share * n_layers - 1e-9))
        found[layer] = f"{found[layer]} {name}" if layer in found else name
    return found


def add_line(
    chart: go.Figure, rows: pd.DataFrame, name: str, names: list[str], digits: int = 3, **place: Any
) -> None:
    """One series with band, dash and marker; points are marked so that a lone one shows too."""
    if rows.empty:
        return
    style = series_style(name, names)
    x, y = rows["layer"].to_numpy(), rows["value"].to_numpy()
    low, high = rows["low"].to_numpy(), rows["high"].to_numpy()
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
                legendgroup=name,
            ),
            **place,
        )
    chart.add_trace(
        go.Scatter(
            x=x,
            y=y,
            name=label(name),
            legendgroup=name,
            mode="lines+markers",
            line={"color": style["color"], "dash": style["dash"], "width": 2.5},
            marker={"symbol": style["symbol"], "size": 8, "color": style["color"]},
            customdata=[
                f"<b>layer {row.layer}</b>, {label(name)}<br>{value_text(row, digits)}"
                for row in rows.itertuples()
            ],
            hovertemplate="%{customdata}<extra></extra>",
        ),
        **place,
    )


def mark_chosen(chart: go.Figure, cell: Cell, lift: int = 20) -> None:
    """An upright at the chosen depth, its name `lift` pixels above the plot."""
    chart.add_vline(x=cell.layer, line={"color": ACCENT, "width": 2})
    name_layer(chart, cell.layer, "chosen", lift)


def name_layer(chart: go.Figure, layer: int, name: str, lift: int) -> None:
    """A word above a layer."""
    chart.add_annotation(
        x=layer,
        y=1,
        yref="paper",
        yanchor="bottom",
        yshift=lift,
        showarrow=False,
        text=f"<b>{name}</b>",
        font={"color": ACCENT, "size": 12},
    )


def mark_fixed(chart: go.Figure, n_layers: int) -> None:
    """Dotted uprights at the depths one would take without measuring."""
    for layer, name in fixed_depths(n_layers).items():
        chart.add_vline(x=layer, line={"color": NEUTRAL, "width": 1, "dash": "dot"}, layer="below")
        chart.add_annotation(
            x=layer, y=1, yref="paper", yanchor="bottom", showarrow=False,
            text=name, font={"color": NEUTRAL, "size": 12},
        )  # fmt: skip


def mark_budget(chart: go.Figure, data: RunData, budget: float | None) -> None:
    """A dashed line at the asked share of full quality, named at the right edge."""
    budget = budget if budget is not None else data.budget
    full = data.at(data.full) if data.full else None
    if budget is None or full is None:
        return
    goal = budget * float(full["value"])
    chart.add_hline(
        y=goal, line={"color": NEUTRAL, "width": 1.5, "dash": "longdash"}, layer="below"
    )
    chart.add_annotation(
        x=1, xref="paper", xanchor="left", xshift=6, y=goal, showarrow=False, align="left",
        text=f"{level(budget)} of full<br>= {number(goal)}", font={"color": NEUTRAL, "size": 12},
    )  # fmt: skip


def outline(chart: go.Figure, x: float, y: float, *, dash: str = "solid", **place: int) -> None:
    """A frame around one cell: white on a black edge, so that it shows on every colour of the scale."""
    for colour, width in (("#000000", 5.5), ("#ffffff", 2.5)):
        chart.add_shape(
            type="rect",
            x0=x - 0.47,
            x1=x + 0.47,
            y0=y - 0.46,
            y1=y + 0.46,
            line={
                "color": colour,
                "width": width,
                "dash": dash if colour == "#ffffff" else "solid",
            },
            **place,
        )
