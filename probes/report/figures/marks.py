"""Marks that several figures share: lines with bands, uprights at depths, the budget, frames around cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import Marks, Spec, value_text
from probes.report.frames import column, points
from probes.report.text import is_number, label, level, number
from probes.report.theme import ACCENT, NEUTRAL, SELECTED, faded, series_style

_FIXED = ((1 / 2, "½"), (2 / 3, "⅔"), (3 / 4, "¾"), (1.0, "last"))
ABOVE = {"y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False}


def fixed_depths(n_layers: int) -> dict[int, str]:
    """The baseline depths of an L-layer model, by layer (halves rounded up, as the decision's baselines are);
    depths that fall together share one label.

    >>> fixed_depths(6)
    {3: '½', 4: '⅔', 5: '¾', 6: 'last'}
    >>> fixed_depths(2)
    {1: '½ ⅔', 2: '¾ last'}
    """
    found: dict[int, str] = {}
    for share, name in _FIXED:
        layer = int(np.floor(share * n_layers + 0.5))
        found[layer] = f"{found[layer]} {name}" if layer in found else name
    return found


def line_traces(
    rows: pd.DataFrame, name: str, names: list[str], panel: int = 0, digits: int = 3
) -> list[Spec]:
    """One series with band, dash and marker; points are marked so that a lone one shows too."""
    size = 8 if len(rows) <= 14 else 5
    style = series_style(name, names)
    return styled_traces(rows, label(name), style, panel=panel, digits=digits, size=size)


def styled_traces(
    rows: pd.DataFrame,
    name: str,
    style: dict[str, str],
    *,
    panel: int = 0,
    digits: int = 3,
    size: int = 5,
    width: float = 2.5,
    band: bool = True,
    head: str = "layer",
) -> list[Spec]:
    """A line in a given style over its layers, with its band if asked; `name` is a finished label."""
    if rows.empty:
        return []
    x, y = column(rows, "layer"), column(rows, "value")
    axis = axis_of(panel)
    where = {"type": "scatter", "xaxis": f"x{axis}", "yaxis": f"y{axis}"}
    line = {
        **where,
        "x": x,
        "y": y,
        "name": name,
        "legendgroup": name,
        "mode": "lines+markers",
        "line": {"color": style["color"], "dash": style["dash"], "width": width},
        "marker": {"symbol": style["symbol"], "size": size, "color": style["color"]},
        "customdata": [
            f"<b>{head} {p.layer}</b>, {name}<br>{value_text(p, digits)}" for p in points(rows)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    shade = _band(rows, name, style["color"]) if band else None
    return [line] if shade is None else [{**where, **shade}, line]


def _band(rows: pd.DataFrame, name: str, colour: str) -> Spec | None:
    """The area between the ends of the intervals, None where there are none."""
    x, low, high = column(rows, "layer"), column(rows, "low"), column(rows, "high")
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return None
    return {
        "x": np.concatenate([x[known], x[known][::-1]]),
        "y": np.concatenate([high[known], low[known][::-1]]),
        "fill": "toself",
        "fillcolor": faded(colour),
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": name,
    }


def axis_of(panel: int) -> str:
    """What Plotly appends to the axes of a panel: nothing, 2, 3 …"""
    return "" if panel == 0 else str(panel + 1)


def upright(x: float, line: Spec, panel: int = 0, **more: Any) -> Spec:
    """A line over the whole height of a panel."""
    axis = axis_of(panel)
    ends = {"x0": x, "x1": x, "xref": f"x{axis}", "y0": 0, "y1": 1, "yref": f"y{axis} domain"}
    return {"type": "line", **ends, "line": line, **more}


def across(y: float, line: Spec, panel: int = 0, **more: Any) -> Spec:
    """A line over the whole width of a panel."""
    axis = axis_of(panel)
    ends = {"x0": 0, "x1": 1, "xref": f"x{axis} domain", "y0": y, "y1": y, "yref": f"y{axis}"}
    return {"type": "line", **ends, "line": line, **more}


def marked(
    base: Spec,
    *,
    shapes: list[Spec] | None = None,
    notes: list[Spec] | None = None,
    traces: list[Spec] | None = None,
) -> Spec:
    """`base` with marks on it; `base` itself is kept as it is, so that it can be drawn once and marked often."""
    layout = dict(base["layout"])
    layout["shapes"] = [*(shapes or []), *layout.get("shapes", ())]
    layout["annotations"] = [*layout.get("annotations", ()), *(notes or [])]
    return {"data": [*base["data"], *(traces or [])], "layout": layout}


def depth_lines(marks: Marks, panels: int = 1) -> list[Spec]:
    """Uprights at the chosen and the picked depth, in each panel."""
    chosen = None if marks.chosen is None else marks.chosen.layer
    picked = None if marks.selected is None else marks.selected.layer
    lines: list[tuple[int, Spec]] = []
    if chosen is not None:
        lines.append((chosen, {"color": ACCENT, "width": 2}))
    if picked is not None and picked != chosen:
        lines.append((picked, {"color": SELECTED, "width": 2, "dash": "dash"}))
    return [upright(layer, line, panel) for panel in range(panels) for layer, line in lines]


def depth_names(marks: Marks, lift: int) -> list[Spec]:
    """The words “chosen” and “picked” above their layers."""
    words: dict[int, list[str]] = {}
    for cell, word in ((marks.chosen, "chosen"), (marks.selected, "picked")):
        if cell is not None:
            words.setdefault(cell.layer, []).append(word)
    return [
        {
            "x": layer,
            "text": f"<b>{', '.join(names)}</b>",
            "font": {"color": ACCENT if "chosen" in names else SELECTED, "size": 12},
            "yshift": lift,
            **ABOVE,
        }
        for layer, names in words.items()
    ]


def fixed_lines(n_layers: int) -> tuple[list[Spec], list[Spec]]:
    """Dotted uprights at the depths one would take without measuring, and their names."""
    depths = fixed_depths(n_layers)
    line = {"color": NEUTRAL, "width": 1, "dash": "dot"}
    notes = [
        {"x": layer, "text": name, "font": {"color": NEUTRAL, "size": 12}, **ABOVE}
        for layer, name in depths.items()
    ]
    return [upright(layer, line, layer="below") for layer in depths], notes


def budget_line(data: RunData, marks: Marks) -> tuple[list[Spec], list[Spec]]:
    """A dashed line at the asked share of full quality, and its name at the left edge; neither without a budget."""
    full = data.at(data.full)
    if marks.budget is None or full is None:
        return [], []
    goal = marks.budget * full.value
    line = {"color": NEUTRAL, "width": 1.5, "dash": "longdash"}
    note = {
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "xshift": 4,
        "y": goal,
        "yanchor": "bottom",
        "showarrow": False,
        "text": f"{level(marks.budget)} of full = {number(goal)}",
        "font": {"color": NEUTRAL, "size": 12},
    }
    return [across(goal, line, layer="below")], [note]


def chance_line(data: RunData, measure: str, panel: int = 0) -> list[Spec]:
    """A dotted line at the measure's chance level, where it has one."""
    chance = data.measure(measure).get("chance")
    line = {"color": NEUTRAL, "width": 1, "dash": "dot"}
    return [across(float(str(chance)), line, panel)] if is_number(chance) else []


def outlines(x: float, y: float, dash: str = "solid", panel: int = 0) -> list[Spec]:
    """A frame around one cell: white on a black edge, so that it shows on every colour of the scale."""
    axis = axis_of(panel)
    box = {
        "type": "rect",
        "x0": x - 0.47,
        "x1": x + 0.47,
        "xref": f"x{axis}",
        "y0": y - 0.46,
        "y1": y + 0.46,
        "yref": f"y{axis}",
    }
    return [
        {**box, "line": {"color": "#000000", "width": 5.5}},
        {**box, "line": {"color": "#ffffff", "width": 2.5, "dash": dash}},
    ]
