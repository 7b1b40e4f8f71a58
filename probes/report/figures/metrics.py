"""Small multiples: every other measure that a run holds by layer, one panel each, sharing the layer axis."""

from __future__ import annotations

import pandas as pd
from plotly.subplots import make_subplots

from probes.report.data import COST, QUALITY_ORDER, RunData
from probes.report.figures.card import (
    FigureCard,
    Marks,
    Spec,
    figure,
    listed,
    plain,
)
from probes.report.figures.marks import axis_of, chance_line, depth_lines, line_traces, marked
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
    tables = {name: data.by_layer(name) for name in held}
    tables = {name: table for name, table in tables.items() if not table.empty}
    if not tables:
        return None
    marks = marks or Marks.of(data)
    base, rows, alt, summaries = data.once("layer-metrics", lambda: _base(data, tables))
    return FigureCard(
        "layer-metrics",
        "Label-free measures by layer",
        marked(base, shapes=depth_lines(marks, len(tables))),
        f"What each layer’s states look like without any labels. {summaries} {_WARNING}",
        alt,
        rows,
    )


def _base(data: RunData, tables: dict[str, pd.DataFrame]) -> tuple[Spec, pd.DataFrame, str, str]:
    """The panels without the reader's marks, their table, what they show in words, and what the measures are."""
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
    traces: list[Spec] = []
    shapes: list[Spec] = []
    for at, (name, table) in enumerate(tables.items()):
        for variant in series:
            traces += line_traces(only(table, variant=variant), variant, series, at)
        shapes += chance_line(data, name, at)
    chart.update_annotations(font_size=13)
    chart.update_layout(
        height=height,
        margin={"l": 60, "r": 24, "t": 40, "b": 60 if len(series) == 1 else 84},
        legend={"orientation": "h", "x": 0, "y": -64 / height, "yanchor": "top"},
    )
    base = plain(chart)
    base["data"] = _one_legend(traces, series)
    layout = base["layout"]
    layout["shapes"] = shapes
    for at in range(len(tables)):
        axis = layout[f"xaxis{axis_of(at)}"]
        axis |= {"range": [-0.3, last + 0.3], **layer_ticks(last)}
        if at + columns >= len(tables):
            axis["title"] = {"text": "layer"}
    summaries = " ".join(_summary(data, name) for name in tables)
    trends = listed([_trend(data, name, table) for name, table in tables.items()])
    table = pd.concat([table.assign(measure=name) for name, table in tables.items()])
    alt = f"{len(tables)} panels over layers 0 to {last}: {trends}."
    return base, table, alt, summaries


def _one_legend(traces: list[Spec], series: list[str]) -> list[Spec]:
    """One entry per variant, not per panel, and none where there is one variant only."""
    seen: set[str] = set()
    for trace in traces:
        if "showlegend" not in trace:
            trace["showlegend"] = len(series) > 1 and trace["name"] not in seen
            seen.add(trace["name"])
    return traces


def _summary(data: RunData, name: str) -> str:
    entry = data.measure(name)
    return f"{clean(entry.get('title') or name, 80)}: {clean(entry.get('summary') or '', 300)}"


def _trend(data: RunData, name: str, table: pd.DataFrame) -> str:
    values = column(table, "value")
    return f"{data.title(name)} from {significant(values[0])} to {significant(values[-1])}"


@figure("layer-metrics", 50)
def _(data: RunData) -> FigureCard | None:
    return layer_metrics(data)
