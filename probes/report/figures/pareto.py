"""Quality against latency: what each exit costs and what it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from probes.report.data import Cell, RunData
from probes.report.figures.card import FigureCard, figure, value_text
from probes.report.figures.marks import mark_budget
from probes.report.text import label, milliseconds, number, percent
from probes.report.theme import ACCENT, NEUTRAL, series_style


def pareto_front(cost: NDArray[Any], quality: NDArray[Any]) -> NDArray[np.intp]:
    """Indices of the points that no other point beats in both, cheapest first.

    >>> pareto_front(np.array([1.0, 2, 3]), np.array([0.5, 0.4, 0.9])).tolist()
    [0, 2]
    """
    order = np.lexsort((-quality, cost))
    best = np.maximum.accumulate(quality[order])
    better = np.concatenate([[True], quality[order][1:] > best[:-1]])
    return order[better]


def quality_latency(
    data: RunData, *, marked: Cell | None = None, budget: float | None = None
) -> FigureCard | None:
    """Every layer and variant at full width, quality on y, median time per text on x (share of full time where no
    latency was measured); None when there is no grid or no cost."""
    if data.quality is None or data.full is None:
        return None
    measure = next((m for m in ("latency_p50_ms", "relative_cost") if data.cost(m)), None)
    if measure is None:
        return None
    cell = marked or data.chosen
    points = _points(data, measure, cell)
    if points.empty:
        return None
    chart = go.Figure()
    front = points.iloc[pareto_front(points["cost"].to_numpy(), points["value"].to_numpy())]
    chart.add_trace(
        go.Scatter(
            x=front["cost"].to_numpy(), y=front["value"].to_numpy(), mode="lines", name="best at its price",
            line={"color": NEUTRAL, "width": 1.5, "shape": "hv"}, hoverinfo="skip",
        )
    )  # fmt: skip
    shown = _cost_text(measure)
    for variant in data.variants:
        _add_points(chart, points[points["variant"] == variant], variant, data.variants, shown)
    _ring(chart, points, cell)
    mark_budget(chart, data, budget)
    title, cost_title = data.title(data.quality), data.title(measure)
    chart.update_layout(
        height=430,
        margin={"l": 70, "r": 110, "t": 28, "b": 96},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
    )
    chart.update_xaxes(title_text=label(_axis_title(measure, cost_title)), rangemode="tozero")
    chart.update_yaxes(title_text=label(title))
    return FigureCard(
        "quality-latency",
        f"{title} against {cost_title[:1].lower()}{cost_title[1:]}",
        chart,
        "Each point is one layer (its number beside it); up is better, left is faster. The grey steps join the points that no other beats "
        "in both. The ring marks the chosen cell. Dimensions hardly change the time to embed a text, so points are drawn at full width.",
        _alt(front, title, shown),
        points,
    )


def _points(data: RunData, measure: str, cell: Cell | None) -> pd.DataFrame:
    assert data.full is not None
    costs = data.cost(measure)
    keep = (data.all["dim"] == data.full.dim) & data.all["layer"].isin(list(costs))
    if cell is not None:
        keep |= (
            (data.all["variant"] == cell.variant)
            & (data.all["layer"] == cell.layer)
            & (data.all["dim"] == cell.dim)
        )
    points = data.all[keep].copy()
    points["cost"] = [costs[layer] for layer in points["layer"]]
    return points.sort_values(["variant", "layer", "dim"]).reset_index(drop=True)


def _add_points(
    chart: go.Figure, rows: pd.DataFrame, name: str, names: list[str], shown: Any
) -> None:
    style = series_style(name, names)
    full = rows[rows["dim"] == rows["dim"].max()]
    many = len(full) > 14
    chart.add_trace(
        go.Scatter(
            x=full["cost"].to_numpy(),
            y=full["value"].to_numpy(),
            name=label(name),
            mode="markers+text",
            text=[str(v) if not many or v % 5 == 0 else "" for v in full["layer"]],
            textposition="top left",
            textfont={"size": 11, "color": style["color"]},
            marker={"color": style["color"], "symbol": style["symbol"], "size": 9},
            customdata=[
                f"<b>layer {row.layer} × {row.dim}</b>, {label(name)}<br>{value_text(row)}<br>{shown(row.cost)}"
                for row in full.itertuples()
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )


def _ring(chart: go.Figure, points: pd.DataFrame, cell: Cell | None) -> None:
    if cell is None:
        return
    hit = points[
        (points["variant"] == cell.variant)
        & (points["layer"] == cell.layer)
        & (points["dim"] == cell.dim)
    ]
    if hit.empty:
        return
    chart.add_trace(
        go.Scatter(
            x=hit["cost"].to_numpy(), y=hit["value"].to_numpy(), mode="markers", name="chosen",
            marker={"symbol": "circle-open", "size": 20, "color": ACCENT, "line": {"width": 3, "color": ACCENT}},
            customdata=[f"<b>chosen: layer {cell.layer} × {cell.dim}</b>, {label(cell.variant)}"],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )  # fmt: skip


def _cost_text(measure: str) -> Any:
    return milliseconds if measure.endswith("_ms") else lambda v: f"{percent(v)} of the full time"


def _axis_title(measure: str, title: str) -> str:
    return title.replace(" (ms)", " per text (ms)") if measure.endswith("_ms") else title


def _alt(front: pd.DataFrame, title: str, shown: Any) -> str:
    steps = "; ".join(
        f"layer {row.layer} {row.variant}: {number(row.value)} for {shown(row.cost)}"
        for row in front.itertuples()
    )
    return f"{title} against cost. Unbeaten, from cheap to dear: {steps}."


@figure("quality-latency", 30)
def _(data: RunData) -> FigureCard | None:
    return quality_latency(data)
