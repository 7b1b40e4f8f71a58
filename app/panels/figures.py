"""A figure card on a page: the chart, how to read it, CSV and SVG; and the heatmap that can be clicked."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import streamlit as st
from plotly.basedatatypes import BaseFigure

from panels.words import tag
from probes.report.data import Cell, RunData
from probes.report.figures import FigureCard
from probes.report.figures.wide import READABLE, is_wide
from probes.report.html import csv_text
from probes.report.text import clean, label
from probes.report.theme import Scheme, template

_TYPES = {"float64": "f8", "float32": "f4", "int32": "i4"}  # what Plotly takes as base64
_WIDE = "wide-"
PAGE, COLUMN = 800, 330  # pixels to count on: alone on a desk, beside another also on a phone
_TITLE_LINE = 26
_TITLE = {
    "x": 0,
    "xref": "container",
    "xanchor": "left",
    "pad": {"l": 4, "t": 2},
    "y": 1,
    "yref": "container",
    "yanchor": "top",
    "font": {"size": 16},
}


def scheme() -> Scheme:
    """Light or dark, as the page is."""
    return "dark" if st.context.theme.type == "dark" else "light"


def show(
    card: FigureCard | None,
    key: str,
    empty: str,
    run: str = "",
    clicked: Callable[[Sequence[Any]], None] | None = None,
    room: int = PAGE,
) -> None:
    """A figure with its title inside (so that the SVG carries it), or one line that says why there is none.

    `run` is named beside the title where two runs stand side by side. `clicked` gets the points of a click on the
    figure; none when a click took the selection back. `room` is the width in pixels that it may count on."""
    with st.container(border=True):
        _named(run)
        if card is None:
            st.caption(empty)
            return
        spec, more = _dressed(card, room), {}
        if clicked is not None:
            spec = _selectable(spec)
            more = {
                "on_select": lambda: clicked(st.session_state[key].selection.points),
                "selection_mode": "points",
            }
        # Many panels get room to scroll sideways in, where the page is narrower than they can be read at.
        with st.container(key=f"{_WIDE}{key}" if is_wide(spec) else None):
            st.plotly_chart(
                _Ready(spec), key=key, theme=None, config=_config(card), alt=card.alt, **more
            )
        _below(card, key)


def room_to_scroll() -> None:
    """Lets figures of many panels keep their width on a narrow page; once per page."""
    st.html(
        f'<style>[class*="st-key-{_WIDE}"] {{overflow-x: auto}} '
        f'[class*="st-key-{_WIDE}"] > div {{min-width: {READABLE}px}}</style>'
    )


def _selectable(spec: dict[str, Any]) -> dict[str, Any]:
    """The figure with clicks for selection: no zoom that a click could start, and nothing fades when one was made."""
    layout = spec["layout"]
    layout |= {"dragmode": False, "clickmode": "event+select", "hovermode": "closest"}
    for name in [name for name in layout if name.startswith(("xaxis", "yaxis"))]:
        layout[name] = {**layout[name], "fixedrange": True}
    traces = [
        {"unselected": {"marker": {"opacity": 1}}, **trace}
        if trace.get("type") == "scatter" and "marker" in trace
        else trace
        for trace in spec["data"]
    ]
    return {"data": traces, "layout": layout}


def show_clickable(
    card: FigureCard,
    data: RunData,
    variant: str,
    key: str,
    pick: Callable[[str], None],
    run: str = "",
) -> None:
    """The heatmap of one variant; a click on a cell calls back with the figure's key."""
    with st.container(border=True):
        _named(run)
        spec = _dressed(card)
        heat = spec["data"][0]
        spec["data"] = [
            {k: v for k, v in heat.items() if k != "hovertemplate"} | {"hoverinfo": "skip"},
            # A heatmap alone gives no selection: squares that cannot be seen lie over its cells.
            data.once(("squares", variant), lambda: _squares(data, variant, heat["customdata"])),
        ]
        layout = spec["layout"]
        layout |= {"dragmode": False, "clickmode": "event+select"}
        for axis in ("xaxis", "yaxis"):
            layout[axis] = {**layout[axis], "fixedrange": True}
        st.plotly_chart(
            _Ready(spec),
            key=key,
            theme=None,
            config=_config(card),
            alt=card.alt,
            on_select=lambda: pick(key),
            selection_mode="points",
        )
        _below(card, key)


def _named(run: str) -> None:
    if run:
        st.caption(tag(run))


def cell_id(cell: Cell) -> str:
    """The name of a cell in the URL and in the list of cells.

    >>> cell_id(Cell("translated", 4, 256))
    'translated:4x256'
    """
    return f"{cell.variant}:{cell.layer}x{cell.dim}"


def _squares(data: RunData, variant: str, texts: Any) -> dict[str, Any]:
    """One square per cell of a variant, carrying the cell's name."""
    held = [cell for cell in data.points_by_cell() if cell.variant == variant]
    rows = [data.dims.index(cell.dim) for cell in held]
    # Where squares overlap, Plotly takes the last one, not the nearest: they stay narrower than a cell.
    size = min(26, max(4, 280 // len({cell.layer for cell in held})))
    return {
        "type": "scatter",
        "x": [cell.layer for cell in held],
        "y": rows,
        "customdata": [[cell_id(cell)] for cell in held],
        "mode": "markers",
        "marker": {"symbol": "square", "size": size, "opacity": 0},
        "selected": {"marker": {"opacity": 0}},
        "unselected": {"marker": {"opacity": 0}},
        "text": [str(texts[y][cell.layer]) for cell, y in zip(held, rows, strict=True)],
        "hovertemplate": "%{text}<extra></extra>",
        "showlegend": False,
    }


class _Ready(BaseFigure):
    """A finished figure as Streamlit takes it. A plain object it would validate part by part on every rerun."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec

    def to_dict(self) -> dict[str, Any]:
        return self._spec


def _dressed(card: FigureCard, room: int = PAGE) -> dict[str, Any]:
    """The figure as a plain object with its title inside, in the page's colours; free to be changed at the top."""
    layout = dict(card.spec["layout"])
    margin = layout.get("margin", {})
    lines = wrap(clean(card.title, 120), max(30, (room - 60) // 7)) or [""]
    above = margin.get("t", 20) + _TITLE_LINE * len(lines)
    above = max(above, _legend_height(card.spec, room) + _TITLE_LINE * len(lines))
    notes, more = _names_wrapped(layout.get("annotations", ()), room)
    below = margin.get("b", 80) + more
    # Plotly hangs the last line of a title, not the first, from its anchor.
    pad = {**_TITLE["pad"], "t": 2 + 21 * (len(lines) - 1)}
    layout |= {
        "template": template(scheme()),
        "title": {"text": "<br>".join(label(line, 120) for line in lines), **_TITLE, "pad": pad},
        "margin": {**margin, "t": above, "b": below},
        "height": layout.get("height", 400) - 6 + above - margin.get("t", 20) + more,
        "annotations": notes,
        "font": {**layout.get("font", {}), "family": '"Source Sans", sans-serif'},
    }
    return {"data": [_sendable(trace) for trace in card.spec["data"]], "layout": layout}


def _names_wrapped(notes: Sequence[Any], room: int) -> tuple[list[Any], int]:
    """Names of axes that are centred below all panels, in lines that fit; and the pixels that the new lines take."""
    made: list[Any] = []
    lines = 1
    for note in notes:
        text = str(note.get("text", ""))
        if note.get("x") == 0.5 and note.get("yanchor") == "top" and "<" not in text:
            parts = wrap(text, max(20, (room - 120) // 6)) or [""]
            lines = max(lines, len(parts))
            note = {**note, "text": "<br>".join(parts)}
        made.append(note)
    return made, 17 * (lines - 1)


def _legend_height(spec: dict[str, Any], room: int) -> int:
    """Pixels that a legend above the panels takes, 0 for any other: Plotly makes room for it but not for the title."""
    legend = spec["layout"].get("legend", {})
    if legend.get("orientation") != "h" or legend.get("yanchor") != "bottom":
        return 0
    names = [
        str(trace.get("name", "")) for trace in spec["data"] if trace.get("showlegend") is not False
    ]
    margin = spec["layout"].get("margin", {})
    free = room - margin.get("l", 80) - margin.get("r", 80)
    rows, used = 1, 0.0
    for name in names:
        wide = 42 + 5.5 * len(name)
        rows, used = (rows + 1, wide) if used and used + wide > free else (rows, used + wide)
    return 16 + 29 * rows if names else 0


def _sendable(trace: dict[str, Any]) -> dict[str, Any]:
    """A trace whose arrays of numbers are Plotly's typed arrays, and other arrays lists."""
    return {key: _typed(value) for key, value in trace.items()}


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return _sendable(value)
    if not isinstance(value, np.ndarray):
        return value
    name = _TYPES.get(str(value.dtype))
    if name is None:
        return value.tolist()
    packed = {"dtype": name, "bdata": base64.b64encode(value.tobytes()).decode()}
    return packed if value.ndim == 1 else {**packed, "shape": ", ".join(map(str, value.shape))}


def _config(card: FigureCard) -> dict[str, Any]:
    return {
        "displaylogo": False,
        "displayModeBar": True,
        "modeBarButtons": [["toImage"]],
        "toImageButtonOptions": {"format": "svg", "filename": card.id},
        "scrollZoom": False,
    }


def _below(card: FigureCard, key: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.popover("How to read this", type="tertiary"):
            st.text(card.how_to_read)
        st.download_button(
            "CSV",
            lambda: csv_text(card.data),
            file_name=f"{card.id}.csv",
            mime="text/csv",
            key=f"{key}-csv",
            on_click="ignore",
            type="tertiary",
            icon=":material/download:",
            help="The numbers of this figure. The camera above the figure saves it as SVG.",
        )
