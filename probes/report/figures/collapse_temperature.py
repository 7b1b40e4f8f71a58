"""Attention temperature: quality and collapse against τ, and what the τ that was chosen gives on the test part."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import held, last_layer
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import (
    ZERO,
    Along,
    Focus,
    Look,
    layer_lines,
    line,
    selected_rows,
    standing_out,
)
from probes.report.figures.marks import across, upright
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis
from probes.report.frames import column, names, only, where
from probes.report.text import clean, interval, number
from probes.report.theme import ACCENT, NEUTRAL, PALETTE

HOW_TO_READ = (
    "Attention logits divided by τ while the model runs: below 1 every head looks at fewer tokens, above 1 at more; "
    "the dotted upright is the model as it is. One line per layer, from blue (first) to yellow (last). Quality is "
    "that of the test part; rings mark the τ that the calibrate part chose for a layer. Collapse is the mean cosine "
    "of the texts, and its rise per doubling of length; bands there are 95 % intervals of the change against τ = 1, "
    "paired by text, so that they have no width at τ = 1."
)
_TAU = Along("tau", "τ =", digits=2)
_PANELS = (("anisotropy", "mean cosine"), ("collapse_slope", "rise per doubling of length"))
_ONE = {"color": NEUTRAL, "width": 1, "dash": "dot"}


def temperature_sweep(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Quality and collapse against τ, a line per layer; None when no temperature was tried."""
    frame = held(data, "temperature")
    if frame is None:
        return None
    focus = focus or Focus()
    return data.once(("collapse-temperature", focus), lambda: _sweep_card(data, frame, focus))


def tested(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the test part; all where the table knows no parts."""
    rows = only(frame, split="test")
    return frame if rows.empty else rows


def chosen(frame: pd.DataFrame) -> pd.DataFrame:
    """Per layer the row of the test part at the τ that was chosen."""
    if "chosen" not in frame.columns:
        return frame.iloc[:0]
    flags = np.array([v is True or v == 1 for v in list(frame["chosen"])], dtype=bool)
    marked = where(frame, flags)
    picked = {
        (int(layer), float(tau))
        for layer, tau in zip(column(marked, "layer"), column(marked, "tau"), strict=True)
    }
    rows = tested(frame)
    keep = [
        (int(layer), float(tau)) in picked
        for layer, tau in zip(column(rows, "layer"), column(rows, "tau"), strict=True)
    ]
    return where(rows, np.array(keep, dtype=bool)).drop_duplicates("layer").sort_values("layer")


def measure_title(data: RunData, frame: pd.DataFrame) -> str:
    """The quality of a table in words."""
    return data.title(clean(names(frame, "measure")[0], 60))


def _sweep_card(data: RunData, frame: pd.DataFrame, focus: Focus) -> FigureCard:
    all_rows, where_ = selected_rows(frame, focus)
    rows, best = tested(all_rows), chosen(all_rows)
    last = last_layer(data, rows)
    strong = standing_out(focus, [int(k) for k in column(rows, "layer")])
    quality = measure_title(data, rows)
    lines = layer_lines(rows, _TAU, focus, last, value="quality")
    rings = _rings(best, strong)
    shapes = [upright(1.0, _ONE, layer="below")]
    panels = [Panel(quality, [*lines, *rings], shapes)]
    for name, title in _PANELS:
        known = where(rows, np.isfinite(column(rows, name)))
        if len(known):
            change = _of_change(known, name)
            panels.append(Panel(title, layer_lines(change, _TAU, focus, last, value=name), shapes))
    taus = column(rows, "tau")
    air = 0.04 * max(taus.max() - taus.min(), 0.1)
    x = {
        "title": "temperature τ",
        "range": [taus.min() - air, taus.max() + air],
        "tickformat": ".1f",
    }
    return FigureCard(
        "collapse-temperature",
        f"Quality and collapse against attention temperature{where_}",
        arranged(panels, Sheet(x, {}, columns=3, height=220, own_y=True)),
        HOW_TO_READ,
        f"{len(panels)} panels over τ, a line per layer: {_tau_words(best, quality)}",
        frame,
    )


def _of_change(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows whose interval is that of the change against τ = 1, put where τ = 1 is."""
    plain = column(rows, name) - column(rows, f"{name}_difference")
    ends = {end: plain + column(rows, f"{name}_difference_{end}") for end in ("low", "high")}
    return rows.assign(**ends)


def _rings(best: pd.DataFrame, strong: list[int]) -> list[Spec]:
    """A ring where a layer that stands out has its chosen τ."""
    rows = where(best, np.isin(column(best, "layer"), strong))
    if rows.empty:
        return []
    ring = {"symbol": "circle-open", "size": 12, "color": ACCENT, "line": {"width": 2.2}}
    return [
        {
            "type": "scatter",
            "x": column(rows, "tau"),
            "y": column(rows, "quality"),
            "mode": "markers",
            "marker": ring,
            "name": "chosen τ",
            "legendgroup": "chosen τ",
            "hoverinfo": "skip",
        }
    ]


def _tau_words(best: pd.DataFrame, quality: str) -> str:
    if best.empty:
        return "no τ was chosen."
    told = [
        f"layer {layer:.0f} τ = {number(tau, 2)} with {number(value)}"
        for layer, tau, value in zip(
            *(column(best, c) for c in ("layer", "tau", "quality")), strict=True
        )
    ]
    return f"chosen by {quality}: {'; '.join(told)}."


GAIN_HOW = (
    "For every layer the τ with the best quality on the calibrate part (left), and what it gives on the test part, "
    "which chose nothing: quality at that τ minus quality at τ = 1, paired by example, with a 95 % interval "
    "(right). An interval that holds zero shows no gain."
)


def temperature_gain(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """The chosen τ and its difference on the test part, by layer; None when none was chosen."""
    frame = held(data, "temperature")
    if frame is None:
        return None
    focus = focus or Focus()
    rows, where_ = selected_rows(frame, focus)
    best = chosen(rows)
    if best.empty or not np.isfinite(column(best, "difference")).any():
        return None
    key = ("collapse-temperature-gain", focus.dataset)
    return data.once(key, lambda: _gain_card(data, frame, best, where_))


def _gain_card(data: RunData, frame: pd.DataFrame, best: pd.DataFrame, where_: str) -> FigureCard:
    last = last_layer(data, best)
    by_layer = Along("layer", "layer")
    dots = line(best, by_layer, Look("chosen τ", ACCENT, "dot"), value="tau", band=False, digits=2)
    ends = ("difference_low", "difference_high")
    gain = Look("difference", PALETTE[0])
    lines = line(best, by_layer, gain, value="difference", ends=ends)
    taus = column(tested(frame), "tau")
    limits = [float(taus.min()) - 0.05, float(taus.max()) + 0.05]
    one = [across(1.0, ZERO, layer="below")]
    zero = [across(0.0, ZERO, layer="below")]
    panels = [
        Panel("chosen τ", _unnamed(dots), one, axes={"y": {"range": limits}}),
        Panel(f"difference in {measure_title(data, best)}", _unnamed(lines), zero),
    ]
    told = [
        f"layer {k:.0f} τ = {number(t, 2)}: {number(d)} {interval(low, high)}"
        for k, t, d, low, high in zip(
            *(column(best, c) for c in ("layer", "tau", "difference", *ends)), strict=True
        )
    ]
    return FigureCard(
        "collapse-temperature-gain",
        f"Chosen τ and its gain on the test part{where_}",
        arranged(panels, Sheet(layer_axis(last), {}, columns=2, height=190, own_y=True)),
        GAIN_HOW,
        f"Two panels over layers 0 to {last}. {'; '.join(told)}.",
        best,
    )


def _unnamed(traces: list[Spec]) -> list[Spec]:
    """Lines that the title of their panel names."""
    return [{**trace, "showlegend": False} for trace in traces]


@figure("collapse-temperature", 220)
def _(data: RunData) -> FigureCard | None:
    return temperature_sweep(data)


@figure("collapse-temperature-gain", 222)
def _(data: RunData) -> FigureCard | None:
    return temperature_gain(data)
