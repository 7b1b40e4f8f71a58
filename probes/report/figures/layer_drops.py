"""Leaving out blocks: what is kept of quality by how many blocks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import held, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.collapse_temperature import measure_title
from probes.report.figures.focus import ZERO, Focus, selected_rows, whiskers
from probes.report.figures.marks import across
from probes.report.figures.panels import Panel, Sheet, arranged, padded
from probes.report.frames import column, where
from probes.report.text import number, percent
from probes.report.theme import ACCENT, NEUTRAL, PALETTE

HOW_TO_READ = (
    "A run of neighbouring blocks is left out and the rest is used as it is: the share of the full model’s quality "
    "that is kept, against the share of its blocks (time was not measured). Up and left is better. Blue: of all runs "
    "of a length the one whose blocks turn the states of tokens least, as ShortGPT chooses; orange, dashed: the last "
    "blocks, which is an early exit; grey: another one, drawn at random. Influence needs no labels; where blue lies "
    "above grey and orange it chose well."
)
_COLUMNS = ("first", "count", "influence", "share", "share_low", "share_high", "relative_cost")


def layer_drops(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Quality against blocks kept for every run of blocks that was left out; None when none was."""
    frame = held(data, "drops")
    if frame is None:
        return None
    focus = focus or Focus()
    rows, title = selected_rows(frame, focus)
    return data.once(("layer-drops", focus.dataset), lambda: _card(data, frame, rows, title))


def least_influence(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every length the run of blocks with the least influence, the full model included."""
    ranked = rows.sort_values(["count", "influence", "first"])
    return ranked.drop_duplicates("count")


def last_blocks(data: RunData, rows: pd.DataFrame) -> pd.DataFrame:
    """Runs that end with the last block, the full model included."""
    ends = column(rows, "first") + column(rows, "count")
    depth = data.n_layers if data.n_layers is not None else ends.max()
    return where(rows, (ends == depth) | (column(rows, "count") == 0)).sort_values("count")


def drop_words(first: float, count: float) -> str:
    """Which blocks are left out.

    >>> drop_words(3, 1), drop_words(3, 2), drop_words(0, 0)
    ('without block 3', 'without blocks 3 to 4', 'full model')
    """
    if count == 0:
        return "full model"
    if count == 1:
        return f"without block {first:.0f}"
    return f"without blocks {first:.0f} to {first + count - 1:.0f}"


def _card(data: RunData, frame: pd.DataFrame, rows: pd.DataFrame, title: str) -> FigureCard:
    best, ends = least_influence(rows), last_blocks(data, rows)
    named = {(r["first"], r["count"]) for part in (best, ends) for r in records(part)}
    apart = [(r["first"], r["count"]) not in named for r in records(rows)]
    others = _dots(where(rows, np.array(apart)), "drawn at random", NEUTRAL, "circle")
    others |= {"mode": "markers", "opacity": 0.8}
    traces = [
        others,
        _dots(ends, "last blocks (early exit)", ACCENT, "square", "dash"),
        _dots(best, "least influence", PALETTE[0], "circle"),
    ]
    for trace, held_rows in ((traces[1], ends), (traces[2], best)):
        share, low, high = (column(held_rows, c) for c in ("share", "share_low", "share_high"))
        trace["error_y"] = {**whiskers(share, low, high), "color": trace["line"]["color"]}
    x_ends = column(rows, "relative_cost")
    x = {
        "title": "share of the full model’s blocks",
        "range": padded([*x_ends, 1.0], 0.0, np.inf),
        "tickformat": ".0%",
    }
    heights = padded([*column(rows, "share"), 1.0, *column(best, "share_low")], -np.inf, np.inf)
    y = {"range": heights, "tickformat": ".0%"}
    panel = Panel("", traces, [across(1.0, ZERO, layer="below")])
    told = [
        f"{drop_words(a, c)}: {percent(s)} [{percent(low)}, {percent(high)}] of quality with {percent(t, 0)} of blocks"
        for a, c, _, s, low, high, t in zip(*(column(best, c) for c in _COLUMNS), strict=True)
    ]
    return FigureCard(
        "layer-drops",
        f"{measure_title(data, rows)} kept without some blocks{title}",
        arranged([panel], Sheet(x, y)),
        HOW_TO_READ,
        f"Points of quality against blocks kept. Least influence: {'; '.join(told)}.",
        frame,
    )


def _dots(rows: pd.DataFrame, name: str, colour: str, symbol: str, dash: str = "solid") -> Spec:
    hover = [
        f"<b>{drop_words(first, count)}</b><br>{percent(share)} [{percent(low)}, {percent(high)}] of quality"
        f"<br>{percent(cost, 0)} of the blocks<br>influence {number(influence)}"
        for first, count, influence, share, low, high, cost in zip(
            *(column(rows, c) for c in _COLUMNS), strict=True
        )
    ]
    return {
        "type": "scatter",
        "x": column(rows, "relative_cost"),
        "y": column(rows, "share"),
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"symbol": symbol, "size": 8, "color": colour},
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
    }


@figure("layer-drops", 70)
def _(data: RunData) -> FigureCard | None:
    return layer_drops(data)
