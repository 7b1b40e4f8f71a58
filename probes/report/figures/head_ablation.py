"""What ablating heads does: the best against random ones, over length and depth, and one head at a time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import ordered, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import ZERO, Along, Look, line, log_axis
from probes.report.figures.head_grid import dots, ring
from probes.report.figures.marks import across
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.frames import column, names, only, where
from probes.report.head_tables import HeadFocus, head_name, held, is_heads, run_number
from probes.report.text import clean, count, interval, label, number
from probes.report.theme import ACCENT, MAGNITUDE, NEUTRAL, PALETTE

MEASURES = {
    "needle_accuracy": "needle accuracy",
    "answer_logprob": "log-probability of the answer",
    "control_logprob": "log-probability of other text",
}
_LOOKS = {  # target and mode: name, colour, dash, marker
    ("top", "zero"): Look("best heads, set to zero", ACCENT),
    ("top", "mean"): Look("best heads, set to their mean", PALETTE[1], "dash", "square"),
    ("random", "zero"): Look("random heads, set to zero", NEUTRAL, "dot", "diamond"),
    ("random", "mean"): Look("random heads, set to their mean", PALETTE[3], "dashdot", "triangle-up"),
}  # fmt: skip
HOW_TO_READ = (
    "The k heads with the highest retrieval score are switched off (their output set to zero, or to their mean over "
    "texts), against as many random heads from the same blocks that are no retrieval heads. Dashed grey: the whole "
    "model. Bands are 95 % intervals over items and draws. If the best heads retrieve, their line falls and that of "
    "random heads does not; the log-probability of other text shows whether the model was hurt in general."
)


def measure_words(measure: str) -> str:
    """A measure of the causal check in words."""
    return MEASURES.get(measure, clean(measure, 40).replace("_", " "))


def head_ablation(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Lines over the number of ablated heads, a panel per measure; None when nothing was ablated."""
    frame = held(data, "ablation") if is_heads(data) else None
    return None if frame is None else data.once("head-ablation", lambda: _ablation_card(frame))


def _ablation_card(frame: pd.DataFrame) -> FigureCard:
    panels: list[Panel] = []
    told: list[str] = []
    for measure in ordered(names(frame, "measure"), list(MEASURES)):
        rows = only(frame, measure=measure)
        shapes: list[Spec] = []
        for whole in column(only(rows, target="none"), "value")[:1]:
            dash = {"color": NEUTRAL, "width": 1.3, "dash": "longdash"}
            shapes = [across(float(whole), dash, layer="below")]
            told.append(f"{measure_words(measure)} {number(whole)} of the whole model")
        traces: list[Spec] = []
        for (target, mode), look in reversed(_LOOKS.items()):
            own = only(rows, target=target, mode=mode)
            own = where(own, column(own, "k") > 0).sort_values("k")
            if own.empty:
                continue
            traces += line(own, Along("k", "k ="), look)
            if mode == "zero":
                last = records(own)[-1]
                told.append(f"{number(last['value'])} without {count(last['k'])} {target} heads")
        panels.append(Panel(measure_words(measure), traces, shapes))
    ks = column(frame, "k")
    sheet = Sheet(log_axis(ks[ks > 0], "heads ablated, k"), {}, columns=3, height=230, own_y=True)
    spec = arranged(panels, sheet)
    spec["layout"]["legend"]["traceorder"] = (
        "reversed"  # the best heads lie on top, and stand first
    )
    return FigureCard(
        "head-ablation",
        "What ablating the best heads does, against random heads",
        spec,
        HOW_TO_READ,
        f"{len(panels)} panels over k: {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )


GRID_HOW = (
    "Needles found, by the length of the context and the depth at which the needle lies (0: at its beginning). Left: "
    "the whole model; then without its ten best retrieval heads, and without ten random heads. All share one scale."
)
_VARIANTS = {"": "whole model"}


def grid_words(variant: str) -> str:
    """A variant of the needle grid in words.

    >>> grid_words("zero=top10"), grid_words("mean=random5"), grid_words("")
    ('without the best 10 heads', 'without 5 random heads (mean)', 'whole model')
    """
    mode, equals, what = clean(variant, 40).partition("=")
    if not equals:
        return _VARIANTS.get(variant, mode)
    how = "" if mode == "zero" else f" ({mode})"
    for kind, words in (
        ("top", "without the best {} heads"),
        ("random", "without {} random heads"),
    ):
        if what.startswith(kind) and what[len(kind) :].isdigit():
            return words.format(what[len(kind) :]) + how
    return f"{mode} {what}"


def needle_grid(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Heatmaps length × depth of the whole model and under ablation; None when not measured."""
    frame = held(data, "ablation_grid") if is_heads(data) else None
    return None if frame is None else data.once("head-grid", lambda: _grid_card(frame))


def _grid_card(frame: pd.DataFrame) -> FigureCard:
    measure = ordered(names(frame, "measure"), list(MEASURES))[0]
    rows = only(frame, measure=measure)
    tokens = sorted({float(t) for t in column(rows, "tokens")})
    depths = sorted({float(d) for d in column(rows, "depth")})
    panels: list[Panel] = []
    told: list[str] = []
    for variant in ordered(names(rows, "variant"), [""]):
        own = only(rows, variant=variant)
        panels.append(Panel(label(grid_words(variant), 40), [_grid_heat(own, tokens, depths)]))
        told.append(f"{grid_words(variant)} {number(column(own, 'value').mean(), 2)}")
    x = {
        "title": "tokens in the context",
        "range": [-0.5, len(tokens) - 0.5],
        "tickvals": list(range(len(tokens))),
        "ticktext": [count(t) for t in tokens],
        "showgrid": False,
    }
    y = {
        "range": [len(depths) - 0.5, -0.5],
        "tickvals": list(range(len(depths))),
        "ticktext": [f"{d:g}" for d in depths],
        "showgrid": False,
    }
    spec = arranged(panels, Sheet(x, y, columns=3, height=max(120, 26 * len(depths)), right=76))
    value = column(rows, "value")
    limits = (
        (0.0, 1.0) if measure == "needle_accuracy" else (float(value.min()), float(value.max()))
    )
    spec["layout"]["coloraxis"] = {
        "colorscale": MAGNITUDE,
        "cmin": limits[0],
        "cmax": limits[1],
        "colorbar": {"thickness": 12, "nticks": 6},
    }
    return FigureCard(
        "head-grid",
        f"{measure_words(measure).capitalize()} by length and depth (depth on y)",
        spec,
        GRID_HOW,
        f"{len(panels)} heatmaps of {len(tokens)} lengths by {len(depths)} depths, mean {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )


def _grid_heat(rows: pd.DataFrame, tokens: list[float], depths: list[float]) -> Spec:
    z = np.full((len(depths), len(tokens)), np.nan)
    hover = np.full(z.shape, "", dtype=object)
    for row in records(rows):
        at = depths.index(row["depth"]), tokens.index(row["tokens"])
        z[at] = row["value"]
        size = f"<br>n = {count(row['n'])}" if row["n"] == row["n"] else ""
        hover[at] = (
            f"<b>{count(row['tokens'])} tokens, depth {row['depth']:g}</b><br>{number(row['value'], 2)} "
            f"{interval(row['low'], row['high'], 2)}{size}"
        )
    text = [["" if np.isnan(v) else number(v, 2) for v in line_] for line_ in z]
    return {
        "type": "heatmap",
        "x": np.arange(len(tokens)),
        "y": np.arange(len(depths)),
        "z": z,
        "coloraxis": "coloraxis",
        "text": text if z.size <= 60 else None,
        "texttemplate": "%{text}" if z.size <= 60 else None,
        "textfont": {"size": 11},
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
        "showlegend": False,
    }


SINGLE_HOW = (
    "Each head switched off alone: what that changes (below zero: worse), against its retrieval score; whiskers are "
    "95 % intervals, paired by item. If the score names the heads that matter, dots fall to the lower right. Other "
    "heads can stand in for one that is missing, so that single effects are smaller than those of many heads "
    "together."
)


def single_effects(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Effect of every single head against its score; None when not measured."""
    frame = held(data, "single") if is_heads(data) else None
    if frame is None:
        return None
    picked = None if focus is None else focus.head
    return data.once(("head-single", picked), lambda: _single_card(data, frame, picked))


def _single_card(data: RunData, frame: pd.DataFrame, picked: tuple[int, int] | None) -> FigureCard:
    panels: list[Panel] = []
    told: list[str] = []
    for measure in ordered(names(frame, "measure"), list(MEASURES)):
        rows = only(frame, measure=measure)
        spots = dots(rows, "heads", "score", y="difference", ends=True)
        traces = [
            {**t, "showlegend": False} for t in (spots, *ring(rows, picked, "score", "difference"))
        ]
        panels.append(Panel(f"change of {measure_words(measure)}", traces, [across(0.0, ZERO)]))
        worst = min(records(rows), key=lambda row: row["difference"])
        told.append(
            f"{measure_words(measure)} changes most without {head_name(worst['block'], worst['head'])}: "
            f"{number(worst['difference'])} {interval(worst['low'], worst['high'])}"
        )
    agreement = run_number(data, "ablation_agreement", "answer_logprob")
    if agreement is not None:
        span = interval(agreement["low"], agreement["high"], 2)
        told.append(
            f"rank correlation of effect and score {number(agreement['value'], 2)} {span}".strip()
        )
    sheet = Sheet({"title": "retrieval score"}, {}, columns=2, height=230, own_y=True)
    return FigureCard(
        "head-single",
        "Effect of each single head against its retrieval score",
        arranged(panels, sheet),
        SINGLE_HOW,
        f"{len(panels)} panels of dots; {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )


@figure("head-ablation", 310)
def _(data: RunData) -> FigureCard | None:
    return head_ablation(data)


@figure("head-grid", 312)
def _(data: RunData) -> FigureCard | None:
    return needle_grid(data)


@figure("head-single", 314)
def _(data: RunData) -> FigureCard | None:
    return single_effects(data)
