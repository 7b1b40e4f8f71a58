"""Scores of heads: the map of any measure, the ranked curve, and how soon the best ones settle."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import ZERO, Along, Look, line, log_axis
from probes.report.figures.head_grid import dots, framed, head_map, heads_in, ring
from probes.report.figures.marks import ABOVE, across, upright
from probes.report.frames import column
from probes.report.head_tables import (
    RETRIEVAL,
    THRESHOLD,
    HeadFocus,
    head_measures,
    head_name,
    head_rows,
    held,
    is_heads,
    ranking,
    run_number,
)
from probes.report.text import clean, count, interval, number, percent
from probes.report.theme import ACCENT, NEUTRAL, PALETTE

_NAMED = 6  # heads that the curve names
_WHAT = {
    RETRIEVAL: "How often the head, while a token of the answer is written, looks most at that very token in the "
    "needle: share of distinct answer tokens, mean over trials that the model answers.",
    "query_mass": "How much the question looks at the needle through this head, less what a question without content "
    "does; below zero it looks there less.",
    "copy_contribution": "What the head writes towards the answer from needle positions, less what it writes from all "
    "others; below zero it writes against the answer.",
}
_HOW = " One cell per head, block from left to right. Click a cell to follow that head through the page."


def head_scores(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Map of a measure over block × head, by default of the retrieval score; None when none was measured."""
    found = head_measures(data)
    if not found:
        return None
    focus = focus or HeadFocus()
    measure = focus.measure if focus.measure in found else found[0]
    card = data.once(("head-map", measure), lambda: _map_card(data, str(measure)))
    return framed(card, focus.head)


def _map_card(data: RunData, measure: str) -> FigureCard:
    rows = head_rows(data, measure)
    best = ranking(data, measure)[:3]
    told = "; ".join(
        f"{head_name(row['block'], row['head'])} {number(row['value'])}" for row in best
    )
    summary = clean(data.measure(measure).get("summary") or "", 400)
    what = _WHAT.get(measure) or summary or data.title(measure)
    return FigureCard(
        "head-map",
        f"{data.title(measure)} of every head",
        head_map(rows),
        what + _HOW,
        f"Heatmap of {data.title(measure)}, {count(len(rows))} heads in {column(rows, 'block').max() + 1:.0f} blocks. "
        f"Highest: {told}.",
        rows.drop(columns="dataset"),
    )


RANK_HOW = (
    "All heads by their retrieval score, the best first (rank on a logarithmic axis); bands are 95 % intervals over "
    "trials. Dotted: 0.1, above which a head is called a retrieval head. A model that finds needles with few heads "
    "has a curve that falls steeply; heads of score zero were never seen copying. A head picked because it is the "
    "highest looks better than it is."
)


def head_ranking(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Sorted retrieval scores; None when they were not measured."""
    if not is_heads(data) or not ranking(data):
        return None
    picked = None if focus is None else focus.head
    return data.once(("head-ranking", picked), lambda: _ranking_card(data, picked))


def _ranking_card(data: RunData, picked: tuple[int, int] | None) -> FigureCard:
    rows = pd.DataFrame(ranking(data))
    rows = rows.assign(rank=np.arange(1, len(rows) + 1))
    value = column(rows, "value")
    above = int((value >= THRESHOLD).sum())
    zero = int((value == 0).sum())
    strong = heads_in(rows)[:above]
    band = [
        trace
        for trace in line(rows, Along("rank", "rank"), Look("95 %", PALETTE[0]))
        if "fill" in trace
    ]
    spots = dots(rows, "heads", "rank", strong=strong, strong_colour=ACCENT)
    traces: list[Spec] = [*band, spots, *ring(rows, picked, "rank")]
    for trace in traces:
        trace["showlegend"] = False
    names = [
        {
            "x": float(np.log10(k + 1)),
            "y": value[k],
            "text": head_name(*strong[k]),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 8,
            "yshift": 8,
            "font": {"size": 12, "color": NEUTRAL},
        }
        for k in range(min(_NAMED, above))
    ]
    shapes = [across(THRESHOLD, ZERO, layer="below")]
    if 0 < zero < len(rows):
        first = len(rows) - zero + 0.5
        shapes.append(upright(first, ZERO, layer="below"))
        names.append({
            "x": float(np.log10(first)), "text": f"score 0: {zero} heads", "xanchor": "right", "xshift": -5,
            "font": {"size": 12, "color": NEUTRAL}, **ABOVE, "yshift": -18,
        })  # fmt: skip
    layout: Spec = {
        "height": 320,
        "margin": {"l": 60, "r": 24, "t": 14, "b": 50},
        "xaxis": {**log_axis(column(rows, "rank")), "title": {"text": "rank of the head"}},
        "yaxis": {"rangemode": "tozero", "title": {"text": "retrieval score"}},
        "shapes": shapes,
        "annotations": names,
    }
    return FigureCard(
        "head-ranking",
        "Heads by retrieval score",
        {"data": traces, "layout": layout},
        RANK_HOW,
        f"Scores of {count(len(rows))} heads, sorted: {above} at {THRESHOLD} or more, {zero} exactly 0. The best, "
        f"{head_name(*heads_in(rows)[0])}, scores {number(value[0])}.",
        rows.drop(columns="dataset"),
    )


OVERLAP_HOW = (
    "Share of the best 20 heads that are the same as five trials before. Once it stays high, more trials would not "
    "name other heads; dotted: 0.95, at which the run may stop by itself."
)


def head_overlap(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Running overlap of the best heads over trials; None when it was not kept."""
    frame = held(data, "running") if is_heads(data) else None
    return None if frame is None else data.once("head-overlap", lambda: _overlap_card(data, frame))


def _overlap_card(data: RunData, frame: pd.DataFrame) -> FigureCard:
    rows = frame.sort_values("trial")
    traces = line(
        rows, Along("trial", "after trial"), Look("overlap", PALETTE[0], size=4), digits=2, value="overlap"
    )  # fmt: skip
    trial, overlap = column(rows, "trial"), column(rows, "overlap")
    notes: list[Spec] = []
    shapes = [across(0.95, ZERO, layer="below")]
    ended = ""
    if "stopped" in rows.columns:
        at = np.array([v is True or v == 1 for v in list(rows["stopped"])], dtype=bool)
        if at.any():
            last = float(trial[at][-1])
            ended = f" It stopped by itself after trial {last:.0f}."
            shapes.append(upright(last, {"color": ACCENT, "width": 1.5}, layer="below"))
            notes.append(
                {
                    "x": last,
                    "text": "stopped",
                    "font": {"color": ACCENT, "size": 12},
                    "yshift": 1,
                    **ABOVE,
                }
            )
    return FigureCard(
        "head-overlap",
        "Overlap of the best 20 heads with those five trials before",
        {
            "data": [{**t, "showlegend": False} for t in traces],
            "layout": {
                "height": 280,
                "margin": {"l": 60, "r": 40, "t": 24, "b": 50},
                "xaxis": {"title": {"text": "trial"}},
                "yaxis": {"range": [0, 1.03], "tickformat": ".1f"},
                "shapes": shapes,
                "annotations": notes,
            },
        },
        OVERLAP_HOW,
        f"Line over {count(len(rows))} trials, from {number(overlap[0], 2)} to {number(overlap[-1], 2)}.{ended}"
        + _halves(data),
        rows.drop(columns="dataset"),
    )


def _halves(data: RunData) -> str:
    half = run_number(data, "split_half_overlap")
    if half is None:
        return ""
    return (
        f" Odd and even trials share {percent(half['value'], 0)} of their best heads "
        f"{interval(half['low'], half['high'], 2)}.".replace("  ", " ")
    )


@figure("head-map", 300)
def _(data: RunData) -> FigureCard | None:
    return head_scores(data)


@figure("head-ranking", 302)
def _(data: RunData) -> FigureCard | None:
    return head_ranking(data)


@figure("head-overlap", 304)
def _(data: RunData) -> FigureCard | None:
    return head_overlap(data)
