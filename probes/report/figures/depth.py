"""Quality over layers: one line per variant with its interval, fixed depths and the chosen depth marked."""

from __future__ import annotations

import pandas as pd

from probes.report.collapse_study import of_first
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Marks, Spec, figure, listed
from probes.report.figures.marks import (
    budget_line,
    chance_line,
    depth_lines,
    depth_names,
    fixed_lines,
    line_traces,
    marked,
)
from probes.report.frames import column, only, points
from probes.report.text import label, number
from probes.report.theme import layer_ticks

HOW_TO_READ = (
    "Higher is better; the band is the 95 % interval. Dotted uprights are the depths one would take without measuring "
    "(half, two thirds, three quarters, the last layer). Where a line reaches the budget, later layers buy little."
)


def quality_over_layers(
    data: RunData, marks: Marks | None = None, dim: int | None = None
) -> FigureCard | None:
    """Lines of quality over layers at one width (the picked or chosen one, else full); None without a grid."""
    if data.all.empty or data.quality is None or data.full is None:
        return None
    marks = marks or Marks.of(data)
    dim = dim or _width(data, marks)
    width = dim
    base, rows, text = data.once(("quality-depth", width), lambda: _base(data, width))
    budget, budget_note = budget_line(data, marks)
    return FigureCard(
        "quality-depth",
        f"{data.title(data.quality)} over layers, {dim} dimensions{of_first(data)}",
        marked(
            base,
            shapes=[*depth_lines(marks), *budget],
            notes=[*depth_names(marks, lift=20), *budget_note],
        ),
        HOW_TO_READ,
        text,
        rows,
    )


def _base(data: RunData, dim: int) -> tuple[Spec, pd.DataFrame, str]:
    """The lines at one width without the reader's marks, their table, and what they show in words."""
    rows = only(data.all, dim=dim)
    title = data.title(data.quality or "")
    last = int(column(data.all, "layer").max())
    shapes, notes = fixed_lines(data.n_layers or last)
    layout = {
        "height": 410,
        "margin": {"l": 70, "r": 24, "t": 48, "b": 76},
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        "xaxis": {"title": {"text": "layer"}, "range": [-0.3, last + 0.3], **layer_ticks(last)},
        "yaxis": {"title": {"text": label(title)}, "tickformat": ".2f"},
        "shapes": [*shapes, *chance_line(data, data.quality or "")],
        "annotations": notes,
    }
    traces = [
        trace
        for variant in data.variants
        for trace in line_traces(only(rows, variant=variant), variant, data.variants)
    ]
    return {"data": traces, "layout": layout}, rows, _alt(rows, data.variants, title, dim)


def _width(data: RunData, marks: Marks) -> int:
    for cell in (marks.selected, marks.chosen):
        if cell is not None and cell.dim in data.dims:
            return cell.dim
    return data.dims[-1]


def _alt(rows: pd.DataFrame, variants: list[str], title: str, dim: int) -> str:
    parts: list[str] = []
    for variant in variants:
        line = points(only(rows, variant=variant))
        if line:
            first, last = line[0], line[-1]
            parts.append(
                f"{variant} from {number(first.value)} at layer {first.layer} "
                f"to {number(last.value)} at layer {last.layer}"
            )
    return f"Lines of {title} over layers at {dim} dimensions: {listed(parts) or 'no data'}."


@figure("quality-depth", 20)
def _(data: RunData) -> FigureCard | None:
    return quality_over_layers(data)
