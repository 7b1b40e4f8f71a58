"""Quality over layers: one line per variant with its interval, fixed depths and the chosen depth marked."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from probes.report.data import Cell, RunData
from probes.report.figures.card import FigureCard, figure, listed
from probes.report.figures.marks import add_line, mark_budget, mark_chosen, mark_fixed
from probes.report.text import label, number


def quality_over_layers(
    data: RunData,
    dim: int | None = None,
    *,
    marked: Cell | None = None,
    budget: float | None = None,
) -> FigureCard | None:
    """Lines of quality over layers at one width (the chosen one, else full width).

    `budget` is the share of full quality that was asked for, drawn as a line; None when the run has no grid.
    """
    grid = data.all
    if grid.empty or data.quality is None or data.full is None:
        return None
    cell = marked or data.chosen
    dim = dim or (cell.dim if cell and cell.dim in set(grid["dim"]) else data.full.dim)
    rows = grid[grid["dim"] == dim]
    chart = go.Figure()
    for variant in data.variants:
        add_line(chart, rows[rows["variant"] == variant], variant, data.variants)
    if cell is not None:
        mark_chosen(chart, cell)
    mark_fixed(chart, data.n_layers or data.full.layer)
    mark_budget(chart, data, budget)
    title = data.title(data.quality)
    chart.update_layout(
        height=430,
        margin={"l": 70, "r": 110, "t": 52, "b": 96},
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        hovermode="closest",
    )
    last = int(grid["layer"].max())
    chart.update_xaxes(
        title_text="layer", range=[-0.3, last + 0.3], dtick=1 if last <= 20 else 2, tick0=0
    )
    chart.update_yaxes(title_text=label(title))
    return FigureCard(
        "quality-depth",
        f"{title} over layers, {dim} dimensions",
        chart,
        "Higher is better; the band is the 95 % interval. Dotted uprights are the depths one would take without measuring "
        "(half, two thirds, three quarters, the last layer). Where a line reaches the budget, the layers after it buy little.",
        _alt(rows, data.variants, title, dim),
        rows,
    )


def _alt(rows: pd.DataFrame, variants: list[str], title: str, dim: int) -> str:
    parts = []
    for variant in variants:
        line = rows[rows["variant"] == variant]
        if not line.empty:
            first, last = line.iloc[0], line.iloc[-1]
            parts.append(
                f"{variant} from {number(first['value'])} at layer {first['layer']} to {number(last['value'])} at layer {last['layer']}"
            )
    return f"Lines of {title} over layers at {dim} dimensions: {listed(parts) if parts else 'no data'}."


@figure("quality-depth", 20)
def _(data: RunData) -> FigureCard | None:
    return quality_over_layers(data)
