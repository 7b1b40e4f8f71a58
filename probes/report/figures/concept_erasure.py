"""Erasing a concept: what a refitted probe still reads of it, and of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure, listed
from probes.report.figures.panels import Panel, Sheet, arranged, padded
from probes.report.frames import column, names, only
from probes.report.study import plain_table
from probes.report.text import interval, label, number
from probes.report.theme import ACCENT, NEUTRAL, PALETTE

HOW_TO_READ = (
    "Each block erases one concept, each panel with another method. A line runs from the accuracy of a probe before "
    "(ring) to that of a probe refitted after (dot, with its 95 % interval); the grey tick is the majority rate, where "
    "nothing is left to read. The erased concept is red and should end at its tick; the others are blue and should not "
    "move: how far they do is the collateral damage. Random directions of the same rank are the control."
)
METHODS = {"leace": "LEACE", "inlp": "INLP", "random": "random directions"}
_SHOWN = 4  # erased concepts at a time
_NUMBERS = (
    "layer",
    "rank",
    "before",
    "before_low",
    "before_high",
    "after",
    "after_low",
    "after_high",
    "majority",
    "n",
)


def erasure_effects(
    data: RunData, concepts: Sequence[str] | None = None, layer: int | None = None
) -> FigureCard | None:
    """Dumbbells before → after, a block per erased concept (all or those given), a panel per method; at `layer`, by
    default the one with most rows. None when nothing was erased."""
    texts, needs = ("erased", "method", "measured"), ("layer", "before", "after")
    frame = plain_table(data, "erasure", texts, _NUMBERS, needs=needs, concepts=concepts)
    if frame is None:
        return None
    layers = column(frame, "layer")
    at = int(pd.Series(layers).mode().iloc[0]) if layer is None else layer
    rows = only(frame, layer=at)
    if rows.empty:
        return None
    return data.once(("concept-erasure", at, tuple(concepts or ())), lambda: _card(frame, rows, at))


def _card(frame: pd.DataFrame, rows: pd.DataFrame, layer: int) -> FigureCard:
    measured = list(dict.fromkeys(names(rows, "measured")))
    held = set(names(rows, "method"))
    methods = [m for m in METHODS if m in held] + sorted(held - set(METHODS))
    erased_ones = list(dict.fromkeys(names(rows, "erased")))
    panels = [
        _panel(only(rows, erased=erased, method=method), erased, method, measured)
        for erased in erased_ones[:_SHOWN]
        for method in methods
    ]
    ends = [
        *(
            v
            for c in ("before", "after", "after_low", "after_high", "majority")
            for v in column(rows, c)
        )
    ]
    x = {"title": "accuracy", "range": padded(ends, 0.0, 1.0), "tickformat": ".2~f", "dtick": 0.1}
    y = {
        "range": [len(measured) - 0.4, -0.6],
        "tickvals": list(range(len(measured))),
        "ticktext": [label(name, 22) for name in measured],
    }
    more = f" Showing {_SHOWN} of {len(erased_ones)} erased concepts; all are in the CSV."
    told = HOW_TO_READ + (more if len(erased_ones) > _SHOWN else "")
    sheet = Sheet(x, y, columns=len(methods), height=21 * len(measured) + 8, left=140)
    return FigureCard(
        "concept-erasure",
        f"Erasing a concept: accuracy before and after, layer {layer}",
        arranged(panels, sheet),
        told,
        _alt(rows, layer),
        frame,
    )


def _panel(rows: pd.DataFrame, erased: str, method: str, measured: list[str]) -> Panel:
    own = [name == erased for name in names(rows, "measured")]
    at = [measured.index(name) for name in names(rows, "measured")]
    before, after, majority = (column(rows, c) for c in ("before", "after", "majority"))
    colours = [ACCENT if is_own else PALETTE[0] for is_own in own]
    spans = zip(
        *(column(rows, c) for c in ("before", "after", "after_low", "after_high", "majority", "n")),
        strict=True,
    )
    hover = [
        f"<b>{label(name, 40)}</b><br>before {number(b)}, after {number(a)} {interval(low, high)}"
        f"<br>majority {number(m)}, n = {number(n, 0)}"
        for name, (b, a, low, high, m, n) in zip(names(rows, "measured"), spans, strict=True)
    ]
    common = {
        "type": "scatter",
        "showlegend": False,
        "y": at,
        "mode": "markers",
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    lines = [
        {
            "type": "line",
            "x0": b,
            "x1": a,
            "y0": y,
            "y1": y,
            "xref": "x",
            "yref": "y",
            "line": {"color": colour, "width": 2},
        }
        for b, a, y, colour in zip(before, after, at, colours, strict=True)
    ]
    error = {
        "type": "data",
        "symmetric": False,
        "width": 0,
        "thickness": 1.2,
        "color": NEUTRAL,
        "array": np.nan_to_num(np.maximum(column(rows, "after_high") - after, 0)),
        "arrayminus": np.nan_to_num(np.maximum(after - column(rows, "after_low"), 0)),
    }
    traces: list[Spec] = [
        {
            **common,
            "x": majority,
            "marker": {"symbol": "line-ns", "size": 13, "line": {"width": 2, "color": NEUTRAL}},
        },
        {
            **common,
            "x": before,
            "marker": {
                "symbol": "circle-open",
                "size": 8,
                "color": colours,
                "line": {"width": 1.6},
            },
        },
        {
            **common,
            "x": after,
            "marker": {"symbol": "circle", "size": 8, "color": colours},
            "error_x": error,
        },
    ]
    ranks = sorted({int(r) for r in column(rows, "rank") if r == r})
    rank = f", rank {ranks[0]}" if len(ranks) == 1 else ""
    title = f"{METHODS.get(method, label(method, 20))}{rank}"
    return Panel(title, traces, lines, f"erasing {erased}", note="" if len(rows) else "not done")


def _alt(rows: pd.DataFrame, layer: int) -> str:
    told: list[str] = []
    for method in dict.fromkeys(names(rows, "method")):
        held = only(rows, method=method)
        own = np.array(
            [a == b for a, b in zip(names(held, "erased"), names(held, "measured"), strict=True)]
        )
        drop = column(held, "after") - column(held, "before")
        parts = [f"the erased concept by {number(np.nanmean(drop[own]))}"] if own.any() else []
        parts += [f"others by {number(np.nanmean(drop[~own]))}"] if (~own).any() else []
        told.append(f"{METHODS.get(method, method)} changes {listed(parts)} on average")
    return f"Dumbbells of accuracy before and after erasure at layer {layer}: {'; '.join(told)}."


@figure("concept-erasure", 155)
def _(data: RunData) -> FigureCard | None:
    return erasure_effects(data)
