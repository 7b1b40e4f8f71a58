"""Quality by layer and width, one panel per variant, the chosen cell outlined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from probes.report.data import Cell, RunData
from probes.report.figures.card import FigureCard, figure, listed, value_text
from probes.report.figures.marks import outline
from probes.report.text import label, number
from probes.report.theme import MAGNITUDE

_CELLS_WITH_NUMBERS = (
    27  # columns of cells in a row of panels that still leave room for a number each
)
_ROW = 34  # pixels per row of cells


def layer_dim_heatmap(
    data: RunData,
    variants: Sequence[str] | None = None,
    *,
    outlined: Cell | None = None,
    limits: tuple[float, float] | None = None,
) -> FigureCard | None:
    """Heatmaps of quality, layer on x, dimensions on y; `outlined` defaults to the decision's cell.

    `limits` fixes the colours, so that two runs can be compared; None when the run has no grid.
    """
    grid = data.all
    if grid.empty or data.quality is None:
        return None
    shown = [v for v in (variants or data.variants) if v in data.variants]
    layers = np.arange(0, int(grid["layer"].max()) + 1)
    dims = sorted(int(d) for d in grid["dim"].unique())
    side_by_side = len(shown) * len(layers) <= _CELLS_WITH_NUMBERS
    rows, columns = (1, len(shown)) if side_by_side else (len(shown), 1)
    height = 92 + rows * (len(dims) * _ROW + 62)
    chart = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[label(v) for v in shown] if len(shown) > 1 else None,
        shared_yaxes=True,
        horizontal_spacing=0.025,
        vertical_spacing=64 / height if rows > 1 else 0.0,
    )
    cell = outlined or data.chosen
    for at, variant in enumerate(shown):
        row, column = (1, at + 1) if side_by_side else (at + 1, 1)
        panel = grid[grid["variant"] == variant]
        values, texts = _matrix(panel, layers, dims)
        numbers = len(layers) * columns <= _CELLS_WITH_NUMBERS
        chart.add_trace(
            go.Heatmap(
                x=layers,
                y=np.arange(len(dims)),
                z=values,
                coloraxis="coloraxis",
                text=_numbers(values) if numbers else None,
                texttemplate="%{text}" if numbers else None,
                textfont={"size": 11},
                customdata=texts,
                hovertemplate="%{customdata}<extra></extra>",
                hoverongaps=False,
                xgap=1,
                ygap=1,
            ),
            row=row,
            col=column,
        )
        _axes(chart, layers, dims, row, column, last_row=row == rows)
        if cell is not None and cell.variant == variant and cell.dim in dims:
            outline(chart, cell.layer, dims.index(cell.dim), row=row, col=column)
    low, high = limits or (float(grid["value"].min()), float(grid["value"].max()))
    chart.update_layout(
        height=height,
        margin={"l": 64, "r": 24, "t": 44, "b": 56},
        coloraxis={
            "colorscale": MAGNITUDE,
            "cmin": low,
            "cmax": high,
            "colorbar": {"thickness": 12, "len": 1.0, "tickformat": ".2f"},
        },
    )
    title = data.title(data.quality)
    return FigureCard(
        "layer-dim",
        f"{title} by layer and dimensions",
        chart,
        "Each cell is one place to stop: after a layer (across), keeping the first coordinates only (up). Brighter is better. "
        "Layer 0 is the embedding output, the top right cell of “raw” is the full model. "
        "A white frame marks the chosen cell.",
        _alt(data, title, shown),
        grid[grid["variant"].isin(shown)],
    )


def _matrix(
    panel: Any, layers: NDArray[Any], dims: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    values = np.full((len(dims), len(layers)), np.nan)
    texts = np.full((len(dims), len(layers)), "", dtype=object)
    for row in panel.itertuples():
        place = dims.index(row.dim), row.layer
        values[place] = row.value
        texts[place] = (
            f"<b>layer {row.layer} × {row.dim}</b>, {label(row.variant)}<br>{value_text(row)}"
        )
    return values, texts


def _numbers(values: NDArray[np.float64]) -> list[list[str]]:
    return [["" if np.isnan(v) else number(v, 2) for v in row] for row in values]


def _axes(
    chart: go.Figure,
    layers: NDArray[Any],
    dims: list[int],
    row: int,
    column: int,
    *,
    last_row: bool,
) -> None:
    step = 1 if len(layers) <= 20 else 2 if len(layers) <= 40 else 5
    chart.update_xaxes(
        title_text="layer" if last_row else None,
        range=[-0.5, len(layers) - 0.5],
        dtick=step,
        tick0=0,
        showgrid=False,
        zeroline=False,
        row=row,
        col=column,
    )
    chart.update_yaxes(
        title_text="dimensions" if column == 1 else None,
        range=[-0.5, len(dims) - 0.5],
        tickvals=list(range(len(dims))),
        ticktext=[str(d) for d in dims],
        showgrid=False,
        zeroline=False,
        row=row,
        col=column,
    )


def _alt(data: RunData, title: str, shown: list[str]) -> str:
    grid = data.all[data.all["variant"].isin(shown)]
    best = grid.loc[grid["value"].idxmax()]
    text = (
        f"Heatmap of {title} over {grid['layer'].nunique()} layers and {grid['dim'].nunique()} widths for "
        f"{listed(shown)}. Best {number(best['value'])} at layer {best['layer']} with {best['dim']} dimensions ({best['variant']})."
    )
    if data.chosen is not None:
        text += f" Chosen: {data.chosen.words()}."
    return text


@figure("layer-dim", 10)
def _(data: RunData) -> FigureCard | None:
    return layer_dim_heatmap(data)
