"""What can be done about collapse: remedies after the fact, and chunking long documents late."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import excludes_zero, held, last_layer, ordered
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure, listed
from probes.report.figures.collapse_temperature import measure_title, tested
from probes.report.figures.focus import (
    ZERO,
    Along,
    Focus,
    Look,
    line,
    selected_rows,
    whiskers,
)
from probes.report.figures.marks import across, upright
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis, padded
from probes.report.frames import column, names, only, where
from probes.report.text import clean, count, interval, label, number
from probes.report.theme import ACCENT, NEUTRAL, PALETTE

_WORDS = {
    "none": "none",
    "centred": "centred",
    "whitened": "whitened",
    "top1": "top direction removed",
    "top3": "top 3 removed",
    "top10": "top 10 removed",
    "ditto": "Ditto pooling",
}
_LAYER = Along("layer", "layer")
_ENDS = ("difference_low", "difference_high")
HOW_TO_READ = (
    "Each panel is one remedy: quality with it minus quality without any at the same layer, on the test part, "
    "paired by example. Above the dotted line it helps; where the 95 % band holds that line nothing is shown. "
    "“Removed” are the strongest directions of the states. Remedies were fitted without labels, on the fit part and on "
    "texts outside the data; in retrieval also on the corpus documents, which the queries of all parts search. In the "
    "corner the difference at the last layer read: blue lines help there, orange ones harm, grey may be chance."
)


def remedy_words(name: str) -> str:
    """A remedy as a reader should meet it.

    >>> remedy_words("top3"), remedy_words("tau=0.8")
    ('top 3 removed', 'τ = 0.8')
    """
    if name.startswith("tau="):
        return f"τ = {clean(name[4:], 40)}"
    return _WORDS.get(name, clean(name, 40))


def remedies_by_layer(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Difference to no remedy over layers, a panel per remedy; None when none was tried."""
    frame = held(data, "remedies")
    if frame is None:
        return None
    focus = focus or Focus()
    rows, title = selected_rows(frame, focus)
    rows = _treated(tested(rows) if "split" in rows.columns else rows)
    if rows.empty:
        return None
    key = ("collapse-remedies", focus.dataset)
    return data.once(key, lambda: _layers_card(data, frame, rows, title))


def _treated(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of remedies whose difference is known."""
    named = np.array([name != "none" for name in names(rows, "remedy")], dtype=bool)
    return where(rows, named & np.isfinite(column(rows, "difference")))


def _layers_card(data: RunData, frame: pd.DataFrame, rows: pd.DataFrame, title: str) -> FigureCard:
    last = last_layer(data, rows)
    shown = ordered(names(rows, "remedy"), list(_WORDS))
    by_remedy = {name: only(rows, remedy=name).sort_values("layer") for name in shown}
    panels = [_remedy_panel(name, own) for name, own in by_remedy.items()]
    ends = [v for c in ("difference", *_ENDS) for v in column(rows, c)]
    sheet = Sheet(layer_axis(last), {"range": padded([0.0, *ends], -np.inf, np.inf)})
    told: list[str] = []
    for name, own in by_remedy.items():
        at = int(np.argmax(column(own, "difference")))
        value, low, high, layer = (column(own, c)[at] for c in ("difference", *_ENDS, "layer"))
        told.append(
            f"{remedy_words(name)} at most {number(value)} {interval(low, high)} at layer {layer:.0f}"
        )
    return FigureCard(
        "collapse-remedies",
        f"What remedies change, by layer (difference in {measure_title(data, rows)}){title}",
        arranged(panels, sheet),
        HOW_TO_READ,
        f"{len(panels)} panels over layers 0 to {last}: {'; '.join(told)}.",
        frame,
    )


def _remedy_panel(name: str, own: pd.DataFrame) -> Panel:
    gain, low, high = (column(own, c) for c in ("difference", *_ENDS))
    colour = _tone(gain[-1], low[-1], high[-1])
    look = Look(label(remedy_words(name), 30), colour, size=4)
    lines = line(own, _LAYER, look, value="difference", ends=_ENDS)
    shown = _signed(gain[-1])
    # Ink, not the line's blue: small blue text cannot be read on a dark ground.
    corner = (
        f"<span style='color:{NEUTRAL}'>{shown}</span>" if colour == NEUTRAL else f"<b>{shown}</b>"
    )
    quiet = [{**trace, "showlegend": False} for trace in lines]
    return Panel(look.name, quiet, [across(0.0, ZERO)], corner=corner)


def _tone(value: float, low: float, high: float) -> str:
    """Blue for what is shown to help, orange for what is shown to harm, grey for what may be chance."""
    if not excludes_zero(low, high):
        return NEUTRAL
    return PALETTE[0] if value > 0 else ACCENT


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


LAYER_HOW = (
    "All remedies at one layer: what they change in quality (first panel, with 95 % intervals; blue where it excludes "
    "zero), and how much collapse they leave: mean cosine, and its rise per doubling of length (the dotted upright is "
    "without any remedy; bars are 95 % intervals of the change against it, paired by text). A remedy that takes the "
    "collapse away and is not shown to change quality gives no sign that the collapse hurt."
)


def remedies_at_layer(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """All remedies at the picked layer, by default the last: gain in quality, and the collapse that is left."""
    frame = held(data, "remedies")
    if frame is None:
        return None
    focus = focus or Focus()
    rows, title = selected_rows(frame, focus)
    rows = tested(rows) if "split" in rows.columns else rows
    layers = {int(k) for k in column(rows, "layer")}
    layer = focus.layer if focus.layer in layers else max(layers)
    rows = only(rows, layer=layer)
    if _treated(rows).empty:
        return None
    key = ("collapse-remedies-layer", layer, focus.dataset)
    return data.once(key, lambda: _at_layer_card(data, frame, rows, layer, title))


def _at_layer_card(
    data: RunData, frame: pd.DataFrame, rows: pd.DataFrame, layer: int | None, title: str
) -> FigureCard:
    treated = _treated(rows).sort_values("difference", ascending=False)
    order = names(treated, "remedy")
    places = list(range(len(order)))
    value, low, high = (column(treated, c) for c in ("difference", *_ENDS))
    colours = [_tone(*ends) for ends in zip(value, low, high, strict=True)]
    words = [label(remedy_words(name), 30) for name in order]
    lefts = [_left_words(treated, name, title) for name, title in _LEFT]
    hover = [
        "<br>".join(
            [f"<b>{word}</b>", f"difference {number(v)} {interval(a, b)}", *filter(None, more)]
        )
        for word, v, a, b, *more in zip(words, value, low, high, *lefts, strict=True)
    ]
    common: Spec = {
        "type": "scatter",
        "y": places,
        "mode": "markers",
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }
    bars = {**whiskers(value, low, high), "color": NEUTRAL}
    gains = {**common, "x": value, "error_x": bars, "marker": {"size": 9, "color": colours}}
    panels = [
        Panel(
            f"difference in {measure_title(data, rows)}",
            [gains],
            [upright(0.0, ZERO)],
            axes={"x": {"range": padded([0.0, *value, *low, *high], -np.inf, np.inf)}},
        )
    ]
    none = only(rows, remedy="none")
    for name, what in _LEFT:
        if np.isfinite(column(treated, name)).any():
            panels.append(_left(treated, none, name, f"{what} that is left", common))
    y = {"range": [len(order) - 0.4, -0.6], "tickvals": places, "ticktext": words}
    sheet = Sheet({"title": ""}, y, columns=2, height=max(90, 26 * len(order)), left=180)
    told = [
        f"{w} {number(v)} {interval(a, b)}"
        for w, v, a, b in zip(words, value, low, high, strict=True)
    ]
    return FigureCard(
        "collapse-remedies-layer",
        f"What remedies do at layer {layer}{title}",
        arranged(panels, sheet),
        LAYER_HOW,
        f"Dots at layer {layer}, best first: {'; '.join(told)}.",
        frame,
    )


_LEFT = (("anisotropy", "mean cosine"), ("collapse_slope", "rise per doubling"))


def _left_words(rows: pd.DataFrame, name: str, what: str) -> list[str]:
    """A measure of collapse with each remedy and its change, as hover shows it; empty where it is not known."""
    columns = (name, *(f"{name}_{end}" for end in ("difference", *_ENDS)))
    told: list[str] = []
    for value, change, low, high in zip(*(column(rows, c) for c in columns), strict=True):
        changed = f", change {_signed(change)} {interval(low, high)}" if np.isfinite(change) else ""
        told.append(f"{what} {number(value)}{changed}" if np.isfinite(value) else "")
    return told


def _left(rows: pd.DataFrame, none: pd.DataFrame, name: str, title: str, common: Spec) -> Panel:
    """What is left of a measure of collapse, with the interval of the change where that is known."""
    left = column(rows, name)
    plain = left - column(rows, f"{name}_difference")
    low, high = (plain + column(rows, f"{name}_{end}") for end in _ENDS)
    before = column(none, name)
    marks = [upright(float(before[0]), ZERO)] if len(before) and np.isfinite(before[0]) else []
    look = {"size": 9, "symbol": "square", "color": PALETTE[2]}
    bars = {**whiskers(left, low, high), "color": NEUTRAL}
    squares = {**common, "x": left, "error_x": bars, "marker": look}
    ends = padded([0.0, *left, *low, *high, *before], -np.inf, np.inf)
    return Panel(title, [squares], marks, axes={"x": {"range": ends}})


CHUNK_HOW = (
    "Long documents, cut into chunks that are searched. Late: the whole document is read by the model and its "
    "tokens are pooled chunk by chunk after; first: the text is cut first, so that no chunk knows the others; "
    "whole: one embedding for the document. Right: late minus first, paired by query, with a 95 % band; above the "
    "dotted line late chunking helps."
)
_METHODS = {
    "late": Look("late", PALETTE[0]),
    "first": Look("first", PALETTE[1], "dash", "square"),
    "whole": Look("whole document", NEUTRAL, "dot", "diamond"),
}


def chunking(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Retrieval by chunks over layers, and late minus first; None when it was not measured."""
    frame = held(data, "chunking")
    if frame is None:
        return None
    focus = focus or Focus()
    rows, title = selected_rows(frame, focus)
    key = ("collapse-chunking", focus.dataset)
    return data.once(key, lambda: _chunk_card(data, frame, rows, title))


def _chunk_card(data: RunData, frame: pd.DataFrame, rows: pd.DataFrame, title: str) -> FigureCard:
    last = last_layer(data, rows)
    quality = measure_title(data, rows)
    traces: list[Spec] = []
    for at, name in enumerate(ordered(names(rows, "method"), list(_METHODS))):
        look = _METHODS.get(name, Look(label(name, 30), PALETTE[(at + 2) % 6]))
        traces += line(only(rows, method=name).sort_values("layer"), _LAYER, look)
    panels = [Panel(quality, traces)]
    known = where(rows, np.isfinite(column(rows, "difference"))).sort_values("layer")
    late = only(known, method="late")
    told = ""
    if len(late):
        look = Look("late − first", PALETTE[2])
        lines = line(late, _LAYER, look, value="difference", ends=_ENDS)
        quiet = [{**trace, "showlegend": False} for trace in lines]
        panels.append(Panel("late − first", quiet, [across(0.0, ZERO)]))
        value, low, high = (column(late, c)[-1] for c in ("difference", *_ENDS))
        told = f" Late minus first at the last of them: {number(value)} {interval(low, high)}."
    sheet = Sheet(layer_axis(last), {}, columns=2, height=220, own_y=True)
    methods = listed(ordered(names(rows, "method"), list(_METHODS)))
    return FigureCard(
        "collapse-chunking",
        f"Late chunking against chunking first{title}",
        arranged(panels, sheet),
        CHUNK_HOW,
        f"{quality} over layers 0 to {last} for {methods}, n = {count(column(rows, 'n')[0])}.{told}",
        frame,
    )


@figure("collapse-remedies", 225)
def _(data: RunData) -> FigureCard | None:
    return remedies_by_layer(data)


@figure("collapse-remedies-layer", 227)
def _(data: RunData) -> FigureCard | None:
    return remedies_at_layer(data)


@figure("collapse-chunking", 230)
def _(data: RunData) -> FigureCard | None:
    return chunking(data)
