"""Small multiples: every other measure that a run holds by layer, one panel each, sharing the layer axis."""

from __future__ import annotations

import numpy as np
import pandas as pd
from plotly.subplots import make_subplots

from probes.report.data import COST, QUALITY_ORDER, Cell, RunData
from probes.report.figures.card import FigureCard, figure, listed
from probes.report.figures.marks import add_line
from probes.report.text import clean, label, significant
from probes.report.theme import ACCENT, NEUTRAL

_PANEL = 190  # pixels of height per panel


def layer_metrics(data: RunData, *, marked: Cell | None = None) -> FigureCard | None:
    """Panels of label-free measures over layers; None when the run holds none."""
    frame = data.measurements
    held = frame.loc[frame["layer"].notna() & frame["value"].notna(), "measure"].unique().tolist()
    names = sorted(
        m for m in held if m not in COST and m != data.quality and m not in QUALITY_ORDER
    )
    if not names:
        return None
    tables = {name: data.by_layer(name) for name in names}
    columns = 1 if len(names) == 1 else 2
    rows = -(-len(names) // columns)
    height = rows * _PANEL + 120
    chart = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[label(data.title(name)) for name in names],
        horizontal_spacing=0.1,
        vertical_spacing=0 if rows == 1 else min(70 / height, 0.9 / (rows - 1)),
    )
    series = sorted(
        {v for table in tables.values() for v in table["variant"]}, key=lambda v: (v != "raw", v)
    )
    cell = marked or data.chosen
    last = max(int(table["layer"].max()) for table in tables.values())
    seen: set[str] = set()
    for at, (name, table) in enumerate(tables.items()):
        place = {"row": at // columns + 1, "col": at % columns + 1}
        for variant in series:
            add_line(chart, table[table["variant"] == variant], variant, series, **place)
        _chance(chart, data, name, place)
        if cell is not None:
            chart.add_vline(x=cell.layer, line={"color": ACCENT, "width": 1.5}, **place)
        bottom = at + columns >= len(names)
        chart.update_xaxes(
            range=[-0.3, last + 0.3], dtick=1 if last <= 12 else 5, tick0=0,
            title_text="layer" if bottom else None, **place,
        )  # fmt: skip
    for trace in chart.data:  # one legend entry per variant, not per panel
        if trace.showlegend is not False:
            trace.showlegend = len(series) > 1 and trace.name not in seen
            seen.add(trace.name)
    chart.update_layout(
        height=height,
        margin={"l": 60, "r": 24, "t": 40, "b": 60 if len(series) == 1 else 96},
        legend={"orientation": "h", "x": 0, "y": -64 / height, "yanchor": "top"},
    )
    return FigureCard(
        "layer-metrics",
        "Label-free measures by layer",
        chart,
        "What each layer's states look like without any labels: "
        + " ".join(_summary(data, name) for name in names)
        + " These are diagnostics and choose nothing: over tasks and model sizes they are poor predictors of quality.",
        f"{len(names)} panels over layers 0 to {last}: "
        + listed([_trend(data, n, t) for n, t in tables.items()])
        + ".",
        pd.concat(
            [table.assign(measure=name) for name, table in tables.items()], ignore_index=True
        ),
    )


def _chance(chart: object, data: RunData, name: str, place: dict[str, int]) -> None:
    chance = data.measure(name).get("chance")
    if isinstance(chance, int | float) and np.isfinite(chance):
        line = {"color": NEUTRAL, "width": 1, "dash": "dot"}
        chart.add_hline(y=chance, line=line, **place)  # type: ignore[attr-defined]


def _summary(data: RunData, name: str) -> str:
    entry = data.measure(name)
    return f"{clean(entry.get('title') or name, 80)}: {clean(entry.get('summary') or '', 300)}"


def _trend(data: RunData, name: str, table: pd.DataFrame) -> str:
    first, last = table.iloc[0], table.iloc[-1]
    return f"{data.title(name)} from {significant(first['value'])} to {significant(last['value'])}"


@figure("layer-metrics", 50)
def _(data: RunData) -> FigureCard | None:
    return layer_metrics(data)
