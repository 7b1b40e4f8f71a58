"""Small multiples: many panels on one page that share their axes, in groups with a heading each."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from probes.report.figures.card import FigureCard, Spec
from probes.report.figures.marks import axis_of, marked, upright
from probes.report.text import label
from probes.report.theme import NEUTRAL, SELECTED, layer_ticks

_TITLE = 21  # pixels above a panel for its title
_TICKS = 30  # and below it for its ticks
_HEADING = 27  # above the first row of a group
_LEGEND, _BOTTOM = 44, 50  # of the whole figure: legend, name of the axis
_WASTE = 1.7  # panels there is room for, per panel: more is a waste of paper
_GAP = 0.022  # between columns, as a share of the width


@dataclass(frozen=True)
class Panel:
    """One panel, drawn as if it were the only one; texts are finished labels.

    `corner` stands at the right end of its title, `note` in its middle.
    """

    title: str
    traces: list[Spec]
    shapes: list[Spec] = field(default_factory=list[Spec])
    group: str = ""
    corner: str = ""
    note: str = ""
    axes: Spec = field(default_factory=dict[str, Any])  # of this panel only: {"x": …, "y": …}


@dataclass(frozen=True)
class Sheet:
    """What all panels share: their axes, how many stand side by side and how high they are, in pixels."""

    x: Spec
    y: Spec
    columns: int = 4
    height: int = 112
    left: int = 56
    right: int = 16
    own_y: bool = False  # whether every panel shows its own ticks on y

    def fitted(self, panels: Sequence[Panel]) -> Sheet:
        """As many columns as the panels need: one more where that saves a row and titles have room, fewer (and higher)
        for few panels, and even rows where there are no groups."""
        if len(panels) < self.columns:
            height = {1: 300, 2: 220}.get(len(panels), 160)
            return replace(self, columns=len(panels), height=max(self.height, height))
        closer = self.columns + 1
        room = max(len(_seen(panel.title)) for panel in panels) + 4 <= _room(closer)
        saves = len(_rows(panels, closer)) < len(_rows(panels, self.columns))
        if self.columns >= 4 and room and saves:
            return replace(self, columns=closer)
        if any(panel.group for panel in panels):
            return self
        rows = -(-len(panels) // self.columns)
        return replace(self, columns=-(-len(panels) // rows))


def _room(columns: int) -> int:
    """Characters that fit above a panel on a narrow page."""
    return 84 // columns


def _seen(title: str) -> str:
    """What a reader sees of a title."""
    return html.unescape(re.sub("<[^>]*>", "", title))


def layer_axis(last: int) -> Spec:
    """An axis over layers 0 to `last` for a small panel."""
    ticks = layer_ticks(last)
    wide = {**ticks, "dtick": 10} if last > 20 else ticks
    return {"title": "layer", "range": [-0.4, last + 0.4], **wide}


def arranged(panels: Sequence[Panel], sheet: Sheet, *, legend: Sequence[Spec] = ()) -> Spec:
    """All panels in one figure. `legend` holds entries for what the panels draw as shapes."""
    panels = _flowing(panels, sheet.columns)
    sheet = sheet.fitted(panels)
    rows = _rows(panels, sheet.columns)
    shown = {t.get("name") for p in panels for t in p.traces if t.get("showlegend") is not False}
    above = _LEGEND if legend or len(shown) > 1 else 8
    named = any(panel.group for panel in panels)
    tops, height = _tops(rows, sheet, named=named)
    layout: Spec = {
        "height": int(height + above + _BOTTOM),
        "margin": {"l": sheet.left, "r": sheet.right, "t": above, "b": _BOTTOM},
        "legend": {"orientation": "h", "x": 0, "y": 1 + 12 / height, "yanchor": "bottom"},
        "shapes": [],
        "annotations": [],
    }
    traces: list[Spec] = []
    at = 0
    group: str | None = None
    for row, top in zip(rows, tops, strict=True):
        if named and row[0].group != group:
            group = row[0].group
            layout["annotations"].append(_heading(group, 1 - (top - _TITLE) / height))
        for spot, panel in enumerate(row):
            across = _across(spot, sheet)
            up = (1 - (top + sheet.height) / height, 1 - top / height)
            _place(layout, panel, at, sheet, across, up, first=spot == 0)
            traces += [_moved(trace, at) for trace in panel.traces]
            at += 1
    layout["annotations"].append(_axis_name(str(sheet.x.get("title", ""))))
    return {"data": one_legend([*legend, *traces]), "layout": layout}


def one_legend(traces: list[Spec]) -> list[Spec]:
    """One entry per name, not per panel, and none where there is one name only."""
    shown = [trace for trace in traces if trace.get("showlegend") is not False]
    several = len({trace.get("name") for trace in shown}) > 1
    seen: set[object] = set()
    made: list[Spec] = []
    for trace in traces:
        name = trace.get("name")
        first = trace.get("showlegend") is not False and name not in seen
        if first:
            seen.add(name)
        made.append({**trace, "showlegend": several and first})
    return made


def entry(name: str, **looks: Any) -> Spec:
    """A legend entry for something that is drawn as a shape."""
    mode = "+".join(kind + "s" for kind in ("line", "marker") if kind in looks)
    place = {"type": "scatter", "x": [None], "y": [None]}
    return {**place, "name": name, "legendgroup": name, "mode": mode, **looks}


def with_layer(card: FigureCard, layer: int | None) -> FigureCard:
    """The card with a picked layer marked in every panel; the card itself without one."""
    if layer is None:
        return card
    panels = sum(1 for name in card.spec["layout"] if name.startswith("xaxis"))
    line = {"color": SELECTED, "width": 2, "dash": "dash"}
    shapes = [upright(layer, line, panel) for panel in range(panels)]
    return replace(card, drawn=marked(card.spec, shapes=shapes))


def _flowing(panels: Sequence[Panel], columns: int) -> Sequence[Panel]:
    """The panels without headings, the group beside each title, where headings would leave much of the page empty."""
    if len(panels) > 1 and len(_rows(panels, columns)) * columns < _WASTE * len(panels):
        return panels
    room = _room(min(columns, len(panels)))
    return [replace(panel, group="", title=_with_group(panel, room)) for panel in panels]


def _with_group(panel: Panel, room: int) -> str:
    group = label(panel.group, 16)
    if not group or len(_seen(panel.title + group + panel.corner)) + 2 > room:
        return panel.title
    return f"{panel.title} <span style='color:{NEUTRAL}'>{group}</span>"


def _rows(panels: Sequence[Panel], columns: int) -> list[list[Panel]]:
    """Panels in rows; a group begins a new row. The order of panels is kept."""
    rows: list[list[Panel]] = []
    for panel in panels:
        if not rows or len(rows[-1]) == columns or rows[-1][0].group != panel.group:
            rows.append([])
        rows[-1].append(panel)
    return rows


def _tops(rows: list[list[Panel]], sheet: Sheet, *, named: bool) -> tuple[list[float], float]:
    """Where the panels of each row begin, in pixels from the top, and the height of all."""
    tops: list[float] = []
    y = 0.0
    group: str | None = None
    for row in rows:
        if named and row[0].group != group:
            y += _HEADING
            group = row[0].group
        y += _TITLE
        tops.append(y)
        y += sheet.height + _TICKS
    return tops, y - _TICKS


def _across(spot: int, sheet: Sheet) -> tuple[float, float]:
    gap = _GAP * (2.2 if sheet.own_y else 1)
    wide = (1 - gap * (sheet.columns - 1)) / sheet.columns
    left = spot * (wide + gap)
    return left, min(1.0, left + wide)


def _place(
    layout: Spec,
    panel: Panel,
    at: int,
    sheet: Sheet,
    across: tuple[float, float],
    up: tuple[float, float],
    *,
    first: bool,
) -> None:
    """Axes, shapes and title of one panel."""
    axis = axis_of(at)
    small = {"automargin": False, "tickfont": {"size": 11}, "zeroline": False, "ticks": ""}
    x = {k: v for k, v in sheet.x.items() if k != "title"}
    y = {
        "showticklabels": first or sheet.own_y,
        **{k: v for k, v in sheet.y.items() if k != "title"},
    }
    layout[f"xaxis{axis}"] = {
        **small,
        **x,
        **panel.axes.get("x", {}),
        "domain": list(across),
        "anchor": f"y{axis}",
    }
    layout[f"yaxis{axis}"] = {
        **small,
        **y,
        **panel.axes.get("y", {}),
        "domain": list(up),
        "anchor": f"x{axis}",
    }
    layout["shapes"] += [_moved_shape(shape, at) for shape in panel.shapes]
    above = {"yref": "paper", "y": up[1], "xref": "paper", "showarrow": False, "yanchor": "bottom"}
    layout["annotations"].append(
        {**above, "x": across[0], "xanchor": "left", "text": panel.title, "font": {"size": 12.5}}
    )
    if panel.corner:
        layout["annotations"].append(
            {
                **above,
                "x": across[1],
                "xanchor": "right",
                "text": panel.corner,
                "font": {"size": 12},
            }
        )
    if panel.note:
        middle = {
            "x": sum(across) / 2,
            "y": sum(up) / 2,
            "yanchor": "middle",
            "font": {"size": 12, "color": NEUTRAL},
        }
        layout["annotations"].append({**above, **middle, "text": panel.note})


def _moved(trace: Spec, at: int) -> Spec:
    axis = axis_of(at)
    return {**trace, "xaxis": f"x{axis}", "yaxis": f"y{axis}"}


def _moved_shape(shape: Spec, at: int) -> Spec:
    axis = axis_of(at)
    refs: Mapping[str, Any] = {
        ref: str(shape[ref]).replace(ref[0], f"{ref[0]}{axis}", 1) for ref in ("xref", "yref")
    }
    return {**shape, **refs}


def _heading(group: str, y: float) -> Spec:
    return {
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "y": y,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "text": f"<b>{label(group, 40)}</b>",
        "font": {"size": 13, "color": NEUTRAL},
    }


def _axis_name(name: str) -> Spec:
    return {
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0,
        "yshift": -22,
        "yanchor": "top",
        "showarrow": False,
        "text": name,
        "font": {"size": 13},
    }


def padded(values: Sequence[float] | np.ndarray, floor: float, ceiling: float) -> list[float]:
    """A range that holds all finite values within [floor, ceiling], with a little air."""
    known = np.asarray(values, dtype=float)
    known = np.clip(known[np.isfinite(known)], floor, ceiling)
    if not len(known):
        return [floor, ceiling]
    air = 0.04 * max(float(known.max() - known.min()), 0.1)
    return [float(known.min()) - air, float(known.max()) + air]
