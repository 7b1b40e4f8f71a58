"""Small multiples: every other measure that a run holds by layer, one panel each, sharing the layer axis."""

from __future__ import annotations

from typing import Any

import pandas as pd
from plotly.subplots import make_subplots

from probes.report.data import COST, QUALITY_ORDER, RunData
from probes.report.figures.card import Figure, FigureCard, Marks, figure, listed
from probes.report.figures.marks import add_line, mark_chance, mark_depths
from probes.report.frames import column, names, only
from probes.report.text import clean, label, significant
from probes.report.theme import layer_ticks

_PANEL = 190  # pixels of height per panel
_WARNING = "These are diagnostics and choose nothing: over tasks and model sizes they are poor predictors of quality."


def layer_metrics(data: RunData, marks: Marks | None = None) -> FigureCard | None:
    """Panels of label-free measures over layers; None when the run holds none."""
    held = [m for m in data.by_measure if m not in (*COST, *QUALITY_ORDER, data.quality)]
    if not held:
        return None
    marks = marks or Marks.of(data)
    tables = {name: data.by_layer(name) for name in held}
    tables = {name: table for name, table in tables.items() if not table.empty}
    if not tables:
        return None
    columns = 1 if len(tables) == 1 else 2
    rows = -(-len(tables) // columns)
    height = rows * _PANEL + 120
    chart = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[label(data.title(name)) for name in tables],
        horizontal_spacing=0.1,
        vertical_spacing=0 if rows == 1 else min(70 / height, 0.9 / (rows - 1)),
    )
    found = {variant for table in tables.values() for variant in names(table, "variant")}
    series = sorted(found, key=lambda name: (name != "raw", name))
    last = int(max(column(table, "layer").max() for table in tables.values()))
    for at, (name, table) in enumerate(tables.items()):
        place: dict[str, Any] = {"row": at // columns + 1, "col": at % columns + 1}
        for variant in series:
            add_line(chart, only(table, variant=variant), variant, series, **place)
        mark_chance(chart, data, name, **place)
        mark_depths(chart, marks, **place)
        title = "layer" if at + columns >= len(tables) else None
        chart.update_xaxes(range=[-0.3, last + 0.3], title_text=title, **layer_ticks(last), **place)
    _one_legend(chart, series)
    chart.update_annotations(font_size=13)
    chart.update_layout(
        height=height,
        margin={"l": 60, "r": 24, "t": 40, "b": 60 if len(series) == 1 else 84},
        legend={"orientation": "h", "x": 0, "y": -64 / height, "yanchor": "top"},
    )
    summaries = " ".join(_summary(data, name) for name in tables)
    trends = listed([_trend(data, name, table) for name, table in tables.items()])
    return FigureCard(
        "layer-metrics",
        "Label-free measures by layer",
        chart,
        f"What each layer’s states look like without any labels. {summaries} {_WARNING}",
        f"{len(tables)} panels over layers 0 to {last}: {trends}.",
        pd.concat([table.assign(measure=name) for name, table in tables.items()]),
    )


def _one_legend(chart: Figure, series: list[str]) -> None:
    """One entry per variant, not per panel, and none where there is one variant only."""
    seen: set[str] = set()
    for trace in chart.data:
        if trace.showlegend is not False:
            trace.showlegend = len(series) > 1 and trace.name not in seen
            seen.add(trace.name)


def _summary(data: RunData, name: str) -> str:
    entry = data.measure(name)
    return f"{clean(entry.get('title') or name, 80)}: {clean(entry.get('summary') or '', 300)}"


def _trend(data: RunData, name: str, table: pd.DataFrame) -> str:
    values = column(table, "value")
    return f"{data.title(name)} from {significant(values[0])} to {significant(values[-1])}"


@figure("layer-metrics", 50)
def _(data: RunData) -> FigureCard | None:
    return layer_metrics(data)
