"""What length does to embeddings: their mean cosine, their spread and their rank against the number of tokens."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import CONTROL, held, last_layer, numbers_of, of_dataset, ordered
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure, listed
from probes.report.figures.focus import (
    ZERO,
    Along,
    Focus,
    Look,
    layer_lines,
    line,
    log_axis,
    selected_rows,
    shade,
    standing_out,
)
from probes.report.figures.marks import across
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis, padded
from probes.report.frames import column, names, only, where
from probes.report.text import interval, label, number
from probes.report.theme import NEUTRAL, PALETTE, SELECTED, depth_colour

MODES = {
    "natural": "texts as they are",
    "cut": "the same texts, cut",
    CONTROL: "random words, cut",
}
HOW_TO_READ = (
    "The mean cosine between two texts of the same length, against that length. A line that rises says that longer "
    "texts come to lie in the same direction: the embeddings collapse. One line per layer, from blue (first) to "
    "yellow (last); a picked layer stands out with the shares of pairs between the 10 % and the 90 % quantile and "
    "the median, dotted. Left: texts that are as long as they are, which differ in content as well. Cut texts are "
    "the same documents at every length; random words are those of the documents in no order: what they show needs no "
    "content beyond single words."
)
_MEAN = "anisotropy"
_TOKENS = Along("tokens", after="tokens")


def length_collapse(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Mean cosine against tokens, a panel per mode; None when no length was measured."""
    frame = held(data, "length")
    if frame is None or _MEAN not in set(names(frame, "measure")):
        return None
    focus = focus or Focus()
    return data.once(("collapse-length", focus), lambda: _length_card(data, frame, focus))


def _length_card(data: RunData, frame: pd.DataFrame, focus: Focus) -> FigureCard:
    rows, title = selected_rows(frame, focus)
    means = only(rows, measure=_MEAN)
    last = last_layer(data, means)
    modes = ordered(names(means, "mode"), list(MODES))
    shown = standing_out(focus, [int(k) for k in column(means, "layer")])
    bands = {mode: _spread(only(rows, mode=mode), shown[-1], focus, last) for mode in modes}
    panels = [
        Panel(
            MODES.get(mode, label(mode, 30)),
            [*bands[mode], *layer_lines(only(means, mode=mode), _TOKENS, focus, last)],
        )
        for mode in modes
    ]
    ends = [v for made in bands.values() for trace in made for v in trace["y"]]
    heights = padded([*column(means, "value"), *ends], -1.0, 1.0)
    x = log_axis(column(means, "tokens"), "tokens")
    sheet = Sheet(x, {"range": heights}, columns=3, height=240)
    return FigureCard(
        "collapse-length",
        f"Mean cosine between texts, against their length{title}",
        arranged(panels, sheet),
        HOW_TO_READ,
        _length_alt(means, modes, shown),
        frame,
    )


def _spread(rows: pd.DataFrame, layer: int, focus: Focus, last: int) -> list[Spec]:
    """The band between the 10 % and the 90 % quantile of one layer's cosines, and their median."""
    own = only(rows, layer=layer).sort_values("tokens")
    low, mid, high = (only(own, measure=f"cosine_p{q}") for q in (10, 50, 90))
    if low.empty or len(low) != len(high):
        return []
    colour = SELECTED if layer == focus.layer else depth_colour(layer, last)
    name = f"layer {layer}, 10 % to 90 % of pairs"
    x = column(low, "tokens")
    band = shade(x, column(low, "value"), column(high, "value"), colour, 0.13)
    traces = [{**band, "name": name, "legendgroup": name, "showlegend": True}]
    if len(mid):
        look = Look(f"layer {layer}, median", colour, "dot", width=1.6, size=3)
        traces += line(mid, _TOKENS, look, band=False)
    return traces


def _length_alt(means: pd.DataFrame, modes: list[str], shown: list[int]) -> str:
    told: list[str] = []
    for mode in modes:
        for layer in shown:
            own = only(means, mode=mode, layer=layer).sort_values("tokens")
            if own.empty:
                continue
            ends = [(column(own, "value")[at], column(own, "tokens")[at]) for at in (0, -1)]
            told.append(
                f"{MODES.get(mode, mode)}, layer {layer}: from {number(ends[0][0])} at {number(ends[0][1], 0)} tokens "
                f"to {number(ends[1][0])} at {number(ends[1][1], 0)}"
            )
    return f"{len(modes)} panels of mean cosine by number of tokens, a line per layer. {'; '.join(told)}."


_RANK_WORDS = {
    "effective_rank": "effective rank",
    "centroid_distance": "mean distance to the centroid",
}
RANK_HOW = (
    "The same texts as above: how many directions the states of texts of one length fill (effective rank), and how "
    "far they lie from their centre on the unit sphere. Both fall when embeddings collapse. Every length has the "
    "same number of texts, because an effective rank grows with that number."
)


def length_rank(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Effective rank and distance to the centroid against tokens; None when neither was measured."""
    frame = held(data, "length")
    measures = (
        [] if frame is None else [m for m in _RANK_WORDS if m in set(names(frame, "measure"))]
    )
    if frame is None or not measures:
        return None
    focus = focus or Focus()
    return data.once(("collapse-rank", focus), lambda: _rank_card(data, frame, measures, focus))


def _rank_card(data: RunData, frame: pd.DataFrame, measures: list[str], focus: Focus) -> FigureCard:
    rows, title = selected_rows(frame, focus)
    last = last_layer(data, rows)
    modes = [m for m in ordered(names(rows, "mode"), list(MODES)) if m != CONTROL]
    panels: list[Panel] = []
    for measure in measures:
        own = only(rows, measure=measure)
        ends = padded(column(own, "value"), -np.inf, np.inf)
        for mode in modes:
            lines = layer_lines(only(own, mode=mode), _TOKENS, focus, last, digits=2)
            name = f"{_RANK_WORDS[measure]}, {MODES.get(mode, label(mode, 30))}"
            panels.append(Panel(name, lines, axes={"y": {"range": ends}}))
    sheet = Sheet(log_axis(column(rows, "tokens"), "tokens"), {}, columns=2, height=180, own_y=True)
    told = [
        f"{_RANK_WORDS[m]} between {number(column(only(rows, measure=m), 'value').min(), 2)} and "
        f"{number(column(only(rows, measure=m), 'value').max(), 2)}"
        for m in measures
    ]
    return FigureCard(
        "collapse-rank",
        f"Spread of states, against length{title}",
        arranged(panels, sheet),
        RANK_HOW,
        f"{len(panels)} panels over the number of tokens, a line per layer: {listed(told)}.",
        where(frame, np.isin(names(frame, "measure"), measures)),
    )


SLOPE_HOW = (
    "What a doubling of the number of tokens adds to the mean cosine, layer by layer, with a 95 % interval. Above "
    "zero the layer collapses with length; an interval that holds zero shows nothing. Where random words rise as "
    "much, length alone is enough; where they are not shown to rise, length alone is not shown to do it, and that says "
    "no more: their vocabulary is that of the texts, their order is not."
)
_LOOKS = {
    "cut": Look("cut texts", PALETTE[0]),
    "natural": Look("as they are", PALETTE[1], "dash", "square"),
    CONTROL: Look("random words", NEUTRAL, "dot", "diamond"),
}


def collapse_slope(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Slope of the mean cosine over layers, with the control; None when no slope was measured."""
    rows = numbers_of(data, "collapse_slope")
    if rows.empty:
        return None
    focus = focus or Focus()
    return data.once(("collapse-slope", focus.dataset), lambda: _slope_card(data, rows, focus))


def _slope_card(data: RunData, frame: pd.DataFrame, focus: Focus) -> FigureCard:
    rows = of_dataset(frame, focus.dataset)
    last = last_layer(data, rows)
    traces: list[Spec] = []
    told: list[str] = []
    variants = ordered(names(rows, "variant"), list(_LOOKS))
    for at, variant in enumerate(variants):
        own = only(rows, variant=variant).drop_duplicates("layer")
        look = _LOOKS.get(variant, Look(label(variant or "slope", 30), PALETTE[(at + 2) % 6]))
        made = line(own, Along("layer", "layer"), look)
        traces = [*({**trace, "legendrank": at + 1} for trace in made), *traces]
        top = int(np.argmax(column(own, "value")))
        value, low, high = (column(own, name)[top] for name in ("value", "low", "high"))
        told.append(
            f"{look.name} at most {number(value)} {interval(low, high)} at layer {column(own, 'layer')[top]:.0f}"
        )
    panel = Panel("", traces, [across(0, ZERO)])
    return FigureCard(
        "collapse-slope",
        "Change of mean cosine per doubling",
        arranged([panel], Sheet(layer_axis(last), {})),
        SLOPE_HOW,
        f"Lines over layers 0 to {last}: {'; '.join(told)}.",
        frame,
    )


@figure("collapse-length", 200)
def _(data: RunData) -> FigureCard | None:
    return length_collapse(data)


@figure("collapse-slope", 205)
def _(data: RunData) -> FigureCard | None:
    return collapse_slope(data)


@figure("collapse-rank", 210)
def _(data: RunData) -> FigureCard | None:
    return length_rank(data)
