"""How alike the layers of a model are, and how much each block changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from probes.report.collapse_study import held, numbers_of, of_dataset
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import Focus, selected_rows, whiskers
from probes.report.figures.marks import marked
from probes.report.frames import column, only, where
from probes.report.text import count, interval, number
from probes.report.theme import ACCENT, MAGNITUDE, NEUTRAL, PALETTE, layer_ticks

CKA_HOW = (
    "How alike the states of two layers are over the same texts: linear CKA, 1 for layers that differ by a rotation "
    "and a scale at most. Bright squares along the diagonal are groups of layers that do much the same; a dark step "
    "between two of them is a layer where the states change."
)


def layer_similarity(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Heatmap of CKA between all layers; None when it was not measured."""
    frame = held(data, "cka")
    if frame is None:
        return None
    focus = focus or Focus()
    rows, title = selected_rows(frame, focus)
    card = data.once(("layer-cka", focus.dataset), lambda: _cka_card(frame, rows, title))
    if focus.layer is None:
        return card
    return replace(card, drawn=marked(card.spec, shapes=_frames(focus.layer, card)))


def _frames(layer: int, card: FigureCard) -> list[Spec]:
    """Frames around the row and the column of a layer: white on a black edge, to be seen on every colour."""
    low, high = card.spec["layout"]["xaxis"]["range"]
    column_ = {"x0": layer - 0.5, "x1": layer + 0.5, "y0": low, "y1": high}
    row = {"y0": layer - 0.5, "y1": layer + 0.5, "x0": low, "x1": high}
    return [
        {"type": "rect", "xref": "x", "yref": "y", **box, "line": line}
        for box in (column_, row)
        for line in ({"color": "#000000", "width": 3.5}, {"color": "#ffffff", "width": 1.5})
    ]


def _cka_card(frame: pd.DataFrame, rows: pd.DataFrame, title: str) -> FigureCard:
    a, b = (column(rows, name).astype(int) for name in ("layer_a", "layer_b"))
    value = column(rows, "value")
    last = int(max(a.max(), b.max()))
    z = np.full((last + 1, last + 1), np.nan)
    z[b, a] = value  # a table of one half is mirrored, one of both is as it is
    z[a, b] = value
    z[np.arange(last + 1), np.arange(last + 1)] = np.where(np.isnan(np.diag(z)), 1.0, np.diag(z))
    hover = np.array(
        [
            [f"<b>layers {i} and {j}</b><br>CKA {number(z[i, j])}" for j in range(last + 1)]
            for i in range(last + 1)
        ],
        dtype=object,
    )
    heat: Spec = {
        "type": "heatmap",
        "x": np.arange(last + 1),
        "y": np.arange(last + 1),
        "z": z,
        "coloraxis": "coloraxis",
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
    }
    side: Spec = {"range": [-0.5, last + 0.5], "showgrid": False, "zeroline": False}
    side |= layer_ticks(last)
    floor = min(0.0, float(np.nanmin(z)))
    layout: Spec = {
        "height": min(620, 300 + 12 * last),
        "margin": {"l": 56, "r": 24, "t": 12, "b": 50},
        "xaxis": {**side, "title": {"text": "layer"}, "constrain": "domain"},
        "yaxis": {**side, "title": {"text": "layer"}, "scaleanchor": "x", "constrain": "domain"},
        "coloraxis": {
            "colorscale": MAGNITUDE,
            "cmin": floor,
            "cmax": 1.0,
            "colorbar": {"thickness": 12, "tickformat": ".1f"},
        },
    }
    return FigureCard(
        "layer-cka",
        f"Similarity of layers (CKA){title}",
        {"data": [heat], "layout": layout},
        CKA_HOW,
        _cka_words(z, last),
        frame,
    )


def _cka_words(z: np.ndarray, last: int) -> str:
    steps = [z[k, k + 1] for k in range(last)]
    if not steps or np.isnan(steps).all():
        return f"Matrix of CKA between layers 0 to {last}."
    at = int(np.nanargmin(steps))
    return (
        f"Matrix of CKA between layers 0 to {last}. Neighbours differ most from layer {at} to {at + 1}: "
        f"{number(steps[at])}. First and last layer: {number(z[0, last])}."
    )


INFLUENCE_HOW = (
    "How much a block turns the states that pass through it: 1 minus the mean cosine between its input and its "
    "output (block influence, Men et al. 2024), with a 95 % interval. Block 0 leads from layer 0 to layer 1. A low "
    "bar is a block that may be left out; whether it may is seen in quality, not here. Orange: the lowest."
)


def block_influence(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Bars of block influence; None when it was not measured."""
    frame = numbers_of(data, "block_influence", "block")
    if frame.empty:
        return None
    focus = focus or Focus()
    return data.once(
        ("block-influence", focus.dataset), lambda: _influence_card(frame, focus.dataset)
    )


def _influence_card(frame: pd.DataFrame, dataset: str | None) -> FigureCard:
    rows = of_dataset(frame, dataset).drop_duplicates("block")
    block, value, low, high, n = (column(rows, c) for c in ("block", "value", "low", "high", "n"))
    lowest = int(np.argmin(value))
    colours = [PALETTE[0]] * len(rows)
    colours[lowest] = ACCENT
    bars: Spec = {
        "type": "bar",
        "x": block,
        "y": value,
        "marker": {"color": colours},
        "error_y": {**whiskers(value, low, high), "color": NEUTRAL},
        "customdata": [
            f"<b>block {b:.0f}</b><br>{number(v)} {interval(a, c)}<br>n = {count(size)}"
            for b, v, a, c, size in zip(block, value, low, high, n, strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }
    last = int(block.max())
    layout: Spec = {
        "height": 300,
        "margin": {"l": 60, "r": 24, "t": 12, "b": 50},
        "bargap": 0.25,
        "xaxis": {
            "title": {"text": "block"},
            "range": [-0.6, last + 0.6],
            "showgrid": False,
            **layer_ticks(last),
        },
        "yaxis": {"rangemode": "tozero"},
    }
    return FigureCard(
        "block-influence",
        "Influence of each block",
        {"data": [bars], "layout": layout},
        INFLUENCE_HOW,
        f"Bars for blocks 0 to {last}; least at block {block[lowest]:.0f} with {number(value[lowest])}, most at block "
        f"{block[int(np.argmax(value))]:.0f} with {number(value.max())}.",
        frame,
    )


GAIN_HOW = (
    "How much of the difference between tokens an attention pattern can let through: the largest singular value of "
    "the pattern with the mean over tokens taken out (high-frequency gain). Dark heads average their tokens away, "
    "and with many of them tokens become alike; the lowest row is the mean of all heads."
)


def frequency_gain(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Heatmap of high-frequency gain, block × head; None when it was not measured."""
    frame = numbers_of(data, "high_frequency_gain", "block")
    if frame.empty:
        return None
    focus = focus or Focus()
    return data.once(("frequency-gain", focus.dataset), lambda: _gain_card(frame, focus.dataset))


def _gain_card(frame: pd.DataFrame, dataset: str | None) -> FigureCard:
    rows = of_dataset(frame, dataset)
    mean = where(rows, np.isnan(column(rows, "head")))
    single = where(rows, np.isfinite(column(rows, "head")))
    heads = sorted({int(h) for h in column(single, "head")})
    last = int(column(rows, "block").max())
    places = [-1.5, *heads] if len(mean) else [float(h) for h in heads]
    z = np.full((len(places), last + 1), np.nan)
    hover = np.full(z.shape, "", dtype=object)
    for held_rows, row_of in ((mean, lambda _: 0), (single, lambda h: places.index(h))):
        for block, head, value, low, high in zip(
            *(column(held_rows, c) for c in ("block", "head", "value", "low", "high")), strict=True
        ):
            at = row_of(head), int(block)
            z[at] = value
            who = "mean of all heads" if head != head else f"head {head:.0f}"
            hover[at] = f"<b>block {block:.0f}, {who}</b><br>{number(value)} {interval(low, high)}"
    heat: Spec = {
        "type": "heatmap",
        "x": np.arange(last + 1),
        "y": np.arange(len(places)),
        "z": z,
        "coloraxis": "coloraxis",
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "xgap": 1,
        "ygap": 1,
    }
    words = ["mean" if p == -1.5 else f"{p:.0f}" for p in places]
    every = 1 if len(places) <= 20 else 4
    layout: Spec = {
        "height": 90 + max(130, 20 * len(places)),
        "margin": {"l": 64, "r": 24, "t": 12, "b": 50},
        "xaxis": {
            "title": {"text": "block"},
            "range": [-0.5, last + 0.5],
            "showgrid": False,
            **layer_ticks(last),
        },
        "yaxis": {
            "title": {"text": "head"},
            "tickvals": [at for at in range(len(places)) if at % every == 0],
            "ticktext": [w for at, w in enumerate(words) if at % every == 0],
            "range": [-0.5, len(places) - 0.5],
            "showgrid": False,
            "zeroline": False,
        },
        "coloraxis": {
            "colorscale": MAGNITUDE,
            "cmin": min(0.0, float(np.nanmin(z))),
            "cmax": max(1.0, float(np.nanmax(z))),
            "colorbar": {"thickness": 12, "tickformat": ".1f"},
        },
    }
    return FigureCard(
        "frequency-gain",
        "High-frequency gain of attention",
        {"data": [heat], "layout": layout},
        GAIN_HOW,
        _gain_words(mean if len(mean) else single, last, len(heads)),
        frame,
    )


def _gain_words(rows: pd.DataFrame, last: int, heads: int) -> str:
    by_block = [
        (block, float(column(only(rows, block=block), "value").mean()))
        for block in sorted({int(b) for b in column(rows, "block")})
    ]
    low, high = (pick(by_block, key=lambda pair: pair[1]) for pick in (min, max))
    return (
        f"Heatmap of blocks 0 to {last} by {heads} heads. Mean gain from {number(low[1])} at block {low[0]} to "
        f"{number(high[1])} at block {high[0]}."
    )


@figure("layer-cka", 60)
def _(data: RunData) -> FigureCard | None:
    return layer_similarity(data)


@figure("block-influence", 65)
def _(data: RunData) -> FigureCard | None:
    return block_influence(data)


@figure("frequency-gain", 75)
def _(data: RunData) -> FigureCard | None:
    return frequency_gain(data)
