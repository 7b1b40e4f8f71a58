"""Quality by layer and width, one panel per variant, the chosen cell outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from probes.report.collapse_study import is_quality
from probes.report.data import RunData
from probes.report.figures.card import (
    Figure,
    FigureCard,
    Marks,
    Spec,
    figure,
    listed,
    plain,
    value_text,
)
from probes.report.figures.marks import marked, outlines
from probes.report.frames import column, names, only, points, where
from probes.report.text import label, number
from probes.report.theme import MAGNITUDE, layer_ticks

_ROOM = 27  # cells in a row that still leave room for a number in each
_ROW = 34  # pixels per row of cells
HOW_TO_READ = (
    "Each cell is one place to stop: after a layer (across), keeping the first coordinates only (up). Brighter is "
    "better. Layer 0 is the embedding output; the top right cell of “raw” is the full model. "
    "A white frame marks the chosen cell."
)


@dataclass(frozen=True)
class _Panels:
    """How the panels of the variants are laid out."""

    variants: list[str]
    layers: NDArray[np.int64]
    dims: list[int]

    @property
    def beside(self) -> bool:
        """Side by side while there is room, else one below the other."""
        return len(self.variants) * len(self.layers) <= _ROOM

    @property
    def shape(self) -> tuple[int, int]:
        return (1, len(self.variants)) if self.beside else (len(self.variants), 1)

    def place(self, at: int) -> dict[str, int]:
        return {"row": 1, "col": at + 1} if self.beside else {"row": at + 1, "col": 1}

    @property
    def height(self) -> int:
        return (92 if len(self.variants) > 1 else 68) + self.shape[0] * (len(self.dims) * _ROW + 62)

    @property
    def numbered(self) -> bool:
        return len(self.layers) * self.shape[1] <= _ROOM


def layer_dim_heatmap(
    data: RunData,
    marks: Marks | None = None,
    *,
    variants: Sequence[str] | None = None,
    limits: tuple[float, float] | None = None,
) -> FigureCard | None:
    """Heatmaps of quality, layer on x, dimensions on y, for some or all variants; None when the run has no grid.

    `limits` fixes the colours, so that two runs can be compared; by default they span the whole grid.
    """
    if data.all.empty or data.quality is None:
        return None
    marks = marks or Marks.of(data)
    shown = tuple(v for v in (variants or data.variants) if v in data.variants)
    base, rows, text = data.once(("layer-dim", shown, limits), lambda: _base(data, shown, limits))
    frames = [
        shape
        for at, variant in enumerate(shown)
        for cell, dash in ((marks.selected, "dot"), (marks.chosen, "solid"))
        if cell is not None and cell.variant == variant and cell.dim in data.dims
        for shape in outlines(cell.layer, data.dims.index(cell.dim), dash, at)
    ]
    return FigureCard(
        "layer-dim",
        f"{data.title(data.quality)} by layer and dimensions",
        marked(base, shapes=frames),
        HOW_TO_READ,
        text if marks.chosen is None else f"{text} Chosen: {marks.chosen.words()}.",
        rows,
    )


def _base(
    data: RunData, variants: Sequence[str], limits: tuple[float, float] | None
) -> tuple[Spec, pd.DataFrame, str]:
    """The cells without any mark, their table, and what they show in words."""
    shown = list(variants)
    layers = np.arange(0, int(column(data.all, "layer").max()) + 1)
    panels = _Panels(shown, layers, data.dims)
    chart = make_subplots(
        rows=panels.shape[0],
        cols=panels.shape[1],
        subplot_titles=[label(v) for v in shown] if len(shown) > 1 else None,
        shared_yaxes=True,
        horizontal_spacing=0.025,
        vertical_spacing=64 / panels.height if panels.shape[0] > 1 else 0.0,
    )
    for at, variant in enumerate(shown):
        _add_panel(chart, only(data.all, variant=variant), panels, at)
    values = column(data.all, "value")
    found = limits or (float(values.min()), float(values.max()))
    _colours(chart, panels.height, found, several=len(shown) > 1)
    chart.update_annotations(font_size=13)
    rows = where(data.all, np.isin(names(data.all, "variant"), shown))
    return plain(chart), rows, _alt(rows, data.title(data.quality or ""), shown)


def _add_panel(chart: Figure, rows: pd.DataFrame, panels: _Panels, at: int) -> None:
    place = panels.place(at)
    values, texts = _matrix(rows, panels)
    chart.add_trace(
        go.Heatmap(
            x=panels.layers,
            y=np.arange(len(panels.dims)),
            z=values,
            coloraxis="coloraxis",
            text=_numbers(values) if panels.numbered else None,
            texttemplate="%{text}" if panels.numbered else None,
            textfont={"size": 11},
            customdata=texts,
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=1,
            ygap=1,
        ),
        **place,
    )
    plain: dict[str, Any] = {"showgrid": False, "zeroline": False, **place}
    count = len(panels.layers)
    chart.update_xaxes(
        title_text="layer" if place["row"] == panels.shape[0] else None,
        range=[-0.5, count - 0.5],
        **layer_ticks(count - 1),
        **plain,
    )
    chart.update_yaxes(
        title_text="dimensions" if place["col"] == 1 else None,
        range=[-0.5, len(panels.dims) - 0.5],
        tickvals=list(range(len(panels.dims))),
        ticktext=[str(d) for d in panels.dims],
        **plain,
    )


def _matrix(rows: pd.DataFrame, panels: _Panels) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    values = np.full((len(panels.dims), len(panels.layers)), np.nan)
    texts = np.full(values.shape, "", dtype=object)
    for p in points(rows):
        spot = panels.dims.index(p.dim), p.layer
        values[spot] = p.value
        texts[spot] = f"<b>layer {p.layer} × {p.dim}</b>, {label(p.variant)}<br>{value_text(p)}"
    return values, texts


def _numbers(values: NDArray[np.float64]) -> list[list[str]]:
    return [["" if np.isnan(v) else number(v, 2) for v in row] for row in values]


def _colours(chart: Figure, height: int, limits: tuple[float, float], *, several: bool) -> None:
    chart.update_layout(
        height=height,
        margin={"l": 64, "r": 24, "t": 44 if several else 20, "b": 56},
        coloraxis={
            "colorscale": MAGNITUDE,
            "cmin": limits[0],
            "cmax": limits[1],
            "colorbar": {"thickness": 12, "len": 1.0, "tickformat": ".2f"},
        },
    )


def _alt(rows: pd.DataFrame, title: str, shown: list[str]) -> str:
    best = max(points(rows), key=lambda p: p.value)
    return (
        f"Heatmap of {title} over {rows['layer'].nunique()} layers and {rows['dim'].nunique()} widths for "
        f"{listed(shown)}. Best {number(best.value)} at layer {best.layer} with {best.dim} dimensions ({best.variant})."
    )


@figure("layer-dim", 10)
def _(data: RunData) -> FigureCard | None:
    if is_quality(data):  # one width: a single row says less than a line
        return None
    return layer_dim_heatmap(data)
