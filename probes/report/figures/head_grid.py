"""Block by head: the map that every number of heads is shown on, and dots by block; with the picked head marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec
from probes.report.figures.focus import whiskers
from probes.report.figures.marks import marked, outlines
from probes.report.frames import column
from probes.report.head_tables import HeadFocus, HeadId, head_name
from probes.report.text import count, interval, number
from probes.report.theme import DIFFERENCE, MAGNITUDE, NEUTRAL, PALETTE, SELECTED

HeadFocused = Callable[[RunData, HeadFocus], FigureCard | None]
_TICKS = 16  # blocks that get a tick each


def hover_of(rows: pd.DataFrame, digits: int = 3, value: str = "value") -> list[str]:
    """What hover says of each head of a table."""
    sizes = column(rows, "n") if "n" in rows.columns else np.full(len(rows), np.nan)
    ends = [column(rows, end) if end in rows.columns else sizes * np.nan for end in ("low", "high")]
    return [
        f"<b>head {head_name(b, h)}</b><br>{number(v, digits)} {interval(low, high, digits)}".strip()
        + (f"<br>n = {count(n)}" if n == n else "")
        for b, h, v, low, high, n in zip(
            *(column(rows, c) for c in ("block", "head", value)), *ends, sizes, strict=True
        )
    ]


def head_map(rows: pd.DataFrame, *, signed: bool | None = None, digits: int = 3) -> Spec:
    """A heatmap, block on x and head on y, of rows with block, head, value; empty cells where there is no row.

    `signed` chooses colours centred at zero; by default they are where a value lies clearly below it.
    """
    block, head = (column(rows, name).astype(int) for name in ("block", "head"))
    value = column(rows, "value")
    shape = int(head.max()) + 1, int(block.max()) + 1
    z = np.full(shape, np.nan)
    hover = np.full(shape, "", dtype=object)
    z[head, block] = value
    hover[head, block] = hover_of(rows, digits)
    size = float(np.abs(value).max()) or 1.0
    if signed is None:
        signed = float(value.min()) < -0.02 * size
    heat: Spec = {
        "type": "heatmap",
        "x": np.arange(shape[1]),
        "y": np.arange(shape[0]),
        "z": z,
        "coloraxis": "coloraxis",
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
        "meta": {"grid": True},
    }
    layout: Spec = {
        "height": 84 + max(120, min(22 * shape[0], 520)),
        "margin": {"l": 56, "r": 20, "t": 12, "b": 50},
        "xaxis": block_axis(shape[1] - 1),
        "yaxis": {
            "title": {"text": "head"},
            **_ticks(shape[0] - 1, 12),
            "range": [shape[0] - 0.5, -0.5],
            "showgrid": False,
            "zeroline": False,
        },
        "coloraxis": {
            "colorscale": DIFFERENCE if signed else MAGNITUDE,
            "cmin": -size if signed else min(0.0, float(value.min())),
            "cmax": size,
            "colorbar": {"thickness": 12, "nticks": 6},
        },
    }
    return {"data": [heat], "layout": layout}


def block_axis(last: int, most: int = _TICKS) -> Spec:
    """An axis over blocks 0 to `last`, each a cell wide, with at most so many ticks."""
    return {
        "title": {"text": "block"},
        "range": [-0.5, last + 0.5],
        **_ticks(last, most),
        "showgrid": False,
        "zeroline": False,
    }


def _ticks(last: int, most: int) -> Spec:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if last / s <= most or s == 100)
    shown = list(range(0, last + 1, step))
    return {"tickvals": shown, "ticktext": [str(k) for k in shown]}


def framed(card: FigureCard, head: HeadId | None) -> FigureCard:
    """The card of a map with the picked head outlined; the card itself where there is none, or no such cell."""
    if head is None:
        return card
    heat = card.spec["data"][0]
    if head[0] >= len(heat["x"]) or head[1] >= len(heat["y"]):
        return card
    return replace(card, drawn=marked(card.spec, shapes=outlines(head[0], head[1])))


def dots(
    rows: pd.DataFrame,
    name: str,
    x: str,
    *,
    colour: str = PALETTE[0],
    y: str = "value",
    size: int = 6,
    ends: bool = False,
    strong: Sequence[HeadId] = (),
    strong_colour: str = "",
) -> Spec:
    """One dot per head; those in `strong` in another colour. A click on any means its head."""
    ids = heads_in(rows)
    stands = [head in strong for head in ids]
    found: Spec = {
        "type": "scatter",
        "name": name,
        "legendgroup": name,
        "x": column(rows, x),
        "y": column(rows, y),
        "mode": "markers",
        "marker": {
            "size": [size + 3 if s else size for s in stands] if any(stands) else size,
            "color": [strong_colour if s else colour for s in stands] if any(stands) else colour,
            "opacity": 0.85,
            "line": {"width": 0},
        },
        "meta": {"heads": [list(head) for head in ids]},
        "customdata": hover_of(rows, value=y),
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    if ends:
        low, high = (column(rows, end) for end in ("low", "high"))
        found["error_y"] = {**whiskers(column(rows, y), low, high), "color": NEUTRAL}
    return found


def heads_in(rows: pd.DataFrame) -> list[HeadId]:
    """The heads of a table, row by row."""
    pairs = zip(column(rows, "block"), column(rows, "head"), strict=True)
    return [(int(block), int(head)) for block, head in pairs]


def ring(rows: pd.DataFrame, head: HeadId | None, x: str, y: str = "value") -> list[Spec]:
    """A ring around the dot of the picked head, none where it has no dot."""
    at = [k for k, found in enumerate(heads_in(rows)) if found == head]
    if not at:
        return []
    mark: dict[str, Any] = {"symbol": "circle-open", "size": 15, "color": SELECTED}
    return [
        {
            "type": "scatter",
            "x": column(rows, x)[at],
            "y": column(rows, y)[at],
            "mode": "markers",
            "marker": {**mark, "line": {"width": 3}},
            "name": "picked head",
            "legendgroup": "picked head",
            "hoverinfo": "skip",
        }
    ]
