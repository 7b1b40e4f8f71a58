"""Quality against latency: what each exit costs and what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from probes.report.data import Cell, RunData
from probes.report.figures.card import (
    Figure,
    FigureCard,
    Marks,
    Spec,
    figure,
    plain,
    value_text,
)
from probes.report.figures.marks import budget_line, marked
from probes.report.frames import Point, column, names, only, points
from probes.report.text import label, milliseconds, number, percent
from probes.report.theme import ACCENT, NEUTRAL, SELECTED, series_style

HOW_TO_READ = (
    "Each point is one layer (its number beside it); up is better, left is faster. The grey steps join the points that "
    "no other beats in both. The ring marks the chosen cell. Keeping fewer dimensions hardly changes the time to embed "
    "a text (it makes the index smaller), so points are drawn at full width."
)


def pareto_front(cost: NDArray[Any], quality: NDArray[Any]) -> NDArray[np.intp]:
    """Indices of the points that no other point beats in both, cheapest first.

    >>> pareto_front(np.array([1.0, 2, 3]), np.array([0.5, 0.4, 0.9])).tolist()
    [0, 2]
    """
    order = np.lexsort((-quality, cost))
    best = np.maximum.accumulate(quality[order])
    better = np.concatenate([[True], quality[order][1:] > best[:-1]])
    return order[better]


def quality_latency(data: RunData, marks: Marks | None = None) -> FigureCard | None:
    """Every layer and variant at full width, quality on y, median time per text on x (share of full time where no
    latency was measured); None when there is no grid or no cost."""
    measure = next((m for m in ("latency_p50_ms", "relative_cost") if data.cost(m)), None)
    if data.quality is None or data.full is None or measure is None:
        return None
    marks = marks or Marks.of(data)
    costs = data.cost(measure)
    base, rows, text = data.once("quality-latency", lambda: _base(data, measure))
    if rows.empty:
        return None
    rings = [
        ring
        for cell, word, colour in (
            (marks.selected, "picked", SELECTED),
            (marks.chosen, "chosen", ACCENT),
        )
        for ring in _ring(data.at(cell), costs, word, colour)
    ]
    budget, budget_note = budget_line(data, marks)
    cost_title = data.title(measure)
    return FigureCard(
        "quality-latency",
        f"{data.title(data.quality)} against {cost_title[:1].lower()}{cost_title[1:]}",
        marked(base, shapes=budget, notes=budget_note, traces=rings),
        HOW_TO_READ,
        text,
        rows,
    )


def _base(data: RunData, measure: str) -> tuple[Spec, pd.DataFrame, str]:
    """Points and steps without the reader's marks, their table, and what they show in words."""
    shown = _cost_text(measure)
    dim = data.dims[-1]
    rows = _with_cost(only(data.all, dim=dim), data.cost(measure))
    if rows.empty:
        return {}, rows, ""
    front = rows.iloc[pareto_front(column(rows, "cost"), column(rows, "value"))]
    title = data.title(data.quality or "")
    chart = go.Figure(_steps(front))
    for variant in data.variants:
        _add_points(chart, only(rows, variant=variant), variant, data.variants, shown)
    cost_title = label(_axis_title(measure, data.title(measure)))
    chart.update_layout(
        height=410,
        margin={"l": 70, "r": 24, "t": 20, "b": 76},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        xaxis={"title": {"text": cost_title}, "rangemode": "tozero"},
        yaxis={"title": {"text": label(title)}, "tickformat": ".2f"},
    )
    return plain(chart), rows, _alt(front, title, shown)


def _with_cost(rows: pd.DataFrame, costs: Mapping[int, float]) -> pd.DataFrame:
    timed = rows.assign(cost=[costs.get(int(k), np.nan) for k in column(rows, "layer")])
    return timed.dropna(subset=["cost"]).reset_index(drop=True)


def _steps(front: pd.DataFrame) -> Any:
    return go.Scatter(
        x=column(front, "cost"),
        y=column(front, "value"),
        mode="lines",
        showlegend=False,
        line={"color": NEUTRAL, "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
    )


def _add_points(
    chart: Figure, rows: pd.DataFrame, name: str, series: list[str], shown: Callable[[Any], str]
) -> None:
    style = series_style(name, series)
    layers = column(rows, "layer").astype(int)
    every = 5 if len(rows) > 14 else 1
    costs = column(rows, "cost")
    hover = [
        f"<b>layer {p.layer} × {p.dim}</b>, {label(name)}<br>{value_text(p)}<br>{shown(cost)}"
        for p, cost in zip(points(rows), costs, strict=True)
    ]
    chart.add_trace(
        go.Scatter(
            x=costs,
            y=column(rows, "value"),
            name=label(name),
            mode="markers+text",
            text=[str(layer) if layer % every == 0 else "" for layer in layers],
            textposition="top left",
            textfont={"size": 11, "color": style["color"]},
            marker={
                "color": style["color"],
                "symbol": style["symbol"],
                "size": 9 if every == 1 else 6,
            },
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
        )
    )


def _ring(point: Point | None, costs: Mapping[int, float], word: str, colour: str) -> list[Spec]:
    if point is None or point.layer not in costs:
        return []
    cell = Cell(point.variant, point.layer, point.dim)
    ring = {
        "type": "scatter",
        "x": [costs[point.layer]],
        "y": [point.value],
        "mode": "markers",
        "showlegend": False,
        "marker": {
            "symbol": "circle-open",
            "size": 20 if word == "chosen" else 15,
            "color": colour,
            "line": {"width": 3, "color": colour},
        },
        "customdata": [f"<b>{word}</b>: {label(cell.words())}<br>{value_text(point)}"],
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    return [ring]


def _cost_text(measure: str) -> Callable[[Any], str]:
    return milliseconds if measure.endswith("_ms") else lambda v: f"{percent(v)} of the full time"


def _axis_title(measure: str, title: str) -> str:
    return title.replace(" (ms)", " per text (ms)") if measure.endswith("_ms") else title


def _alt(front: pd.DataFrame, title: str, shown: Callable[[Any], str]) -> str:
    entries = zip(
        names(front, "variant"),
        column(front, "layer"),
        column(front, "value"),
        column(front, "cost"),
        strict=True,
    )
    steps = "; ".join(f"layer {k:.0f} {v}: {number(q)} for {shown(c)}" for v, k, q, c in entries)
    return f"{title} against cost. Unbeaten, from cheap to dear: {steps}."


@figure("quality-latency", 30)
def _(data: RunData) -> FigureCard | None:
    return quality_latency(data)
