"""How training of autoencoders went, and how often their features fire."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from probes.report.collapse_study import ordered
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure, listed
from probes.report.figures.focus import ZERO, Along, Look, line
from probes.report.figures.marks import across, marked, upright
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.figures.sae_looks import look_of
from probes.report.frames import column, names, only, where
from probes.report.sae_tables import SaeFocus, features_of, held, saes_of
from probes.report.text import clean, counted, is_number, label, number
from probes.report.theme import NEUTRAL, PALETTE, SELECTED, style_at

_CURVES = {  # panel title, and what it shows
    "fvu": ("variance unexplained", "the share of the variance left unexplained"),
    "l0": ("active features", "how many features are active"),
    "dead_share": ("dead features", "the share of features that have not fired lately"),
    "penalty": ("penalty", "the weight of the penalty on activations"),
}
_STILL = 1e-9  # of its size: a curve that moves less is flat


def training(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """Curves over training steps, a panel per number; None when none were written."""
    frame = held(data, "sae_history")
    if frame is None:
        return None
    sae = None if focus is None else focus.sae
    return data.once(("sae-training", sae), lambda: _training(data, frame, sae))


def _training(data: RunData, frame: pd.DataFrame, picked: str | None) -> FigureCard | None:
    order = [name for name in saes_of(data) if name in set(names(frame, "sae"))]
    strong = picked if picked in order else order[0]
    panels: list[Panel] = []
    told: list[str] = []
    shown: list[str] = []
    flat: list[str] = []
    for measure, (words, what) in _CURVES.items():
        rows = where(frame, np.isfinite(column(frame, measure)))
        if rows.empty:
            continue
        if measure != "fvu" and not _moves(rows, measure):
            flat.append(words)
            continue
        shown.append(what)
        traces: list[Spec] = []
        for at in reversed(range(len(order))):
            own = only(rows, sae=order[at]).sort_values("step")
            style = style_at(at)
            look = Look(
                label(order[at], 40), style["color"], style["dash"], style["symbol"],
                3.0 if order[at] == strong else 1.4, 4,
            )  # fmt: skip
            if len(own):
                traces += line(own, Along("step", "step"), look, value=measure, ends=("", ""))
        own = only(rows, sae=strong).sort_values("step")
        if len(own):
            told.append(f"{words} {number(column(own, measure)[-1])}")
        shapes = [across(0.0, ZERO, layer="below")] if measure != "penalty" else []
        panels.append(Panel(words, traces, shapes))
    if not panels:
        return None
    sheet = Sheet(
        {"title": "training step", "nticks": 6},
        {"nticks": 6},
        columns=len(panels),
        height=200,
        own_y=True,
    )
    spec = arranged(panels, sheet)
    spec["layout"]["legend"]["traceorder"] = "reversed"
    return FigureCard(
        "sae-training",
        "How training of the autoencoders went",
        spec,
        _how(shown, flat, len(order) > 1),
        f"{counted(len(panels), 'panel')} over training steps for {counted(len(order), 'autoencoder')}. At the last "
        "step of "
        f"{clean(strong, 60)}: {listed(told) or 'nothing'}.",
        frame.drop(columns="dataset"),
    )


def _moves(rows: pd.DataFrame, measure: str) -> bool:
    """Whether any autoencoder's curve is more than a flat line."""
    for _, own in rows.groupby("sae"):
        values = column(own, measure)
        if np.ptp(values) > _STILL * max(1.0, float(np.abs(values).max())):
            return True
    return False


def _how(shown: list[str], flat: list[str], several: bool) -> str:
    """How to read the panels that are there, and which are not."""
    lines = " A line per autoencoder; the one in focus is the widest." if several else ""
    still = f" Left out, because it never changed: {listed(flat)}." if flat else ""
    return (
        f"How training went, step by step: {listed(shown)}.{lines} A curve that still falls at the end says that more "
        f"steps would help.{still}"
    )


DENSITY_HOW = (
    "How often features fire: features by the share of tokens on which they are active, on a logarithmic scale. "
    "Features far to the right fire nearly everywhere and seldom mean one thing; those far to the left almost never."
)
RANDOM_HOW = " Grey line: an autoencoder with random weights."
_TICKS = 4  # more would need more room than a phone has


def density(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """Histogram of feature densities, trained against random; None when not measured."""
    frame = held(data, "sae_density")
    if frame is None:
        return None
    asked = None if focus is None else focus.sae
    order = [name for name in saes_of(data) if name in set(names(frame, "sae"))]
    sae = asked if asked in order else order[0]
    card = data.once(("sae-density", sae), lambda: _density(only(frame, sae=sae), str(sae)))
    picked = None if focus is None or focus.feature is None else focus.feature
    row = {} if picked is None else features_of(data, SaeFocus(sae)).get(picked, {})
    share = row.get("density")
    if not (row.get("sae") == sae and is_number(share) and float(str(share)) > 0):
        return card
    line_ = upright(
        float(np.log10(float(str(share)))), {"color": SELECTED, "width": 2, "dash": "dash"}
    )
    how = f"{card.how_to_read} Dashed: the picked feature."
    return replace(card, drawn=marked(card.spec, shapes=[line_]), how_to_read=how)


def _density(frame: pd.DataFrame, sae: str) -> FigureCard:
    traces: list[Spec] = []
    told: list[str] = []
    kinds = ordered(names(frame, "coder"), ("sae", "random"))
    drawn_bins = _filled(frame)
    for kind in kinds:
        own = only(drawn_bins, coder=kind).sort_values("low")
        low, high, features = (column(own, name) for name in ("low", "high", "features"))
        look = look_of(kind)
        hover = [
            f"<b>{look.name}</b><br>{counted(n, 'feature')} on {_power(a)} to {_power(b)} of tokens"
            for a, b, n in zip(low, high, features, strict=True)
        ]
        common: Spec = {
            "name": look.name, "customdata": hover, "hovertemplate": "%{customdata}<extra></extra>",
        }  # fmt: skip
        middle = (low + high) / 2
        if kind == "random":
            drawn: Spec = {
                "type": "scatter",
                "mode": "lines",
                "line": {"color": NEUTRAL, "shape": "hvh", "width": 2},
            }
        else:
            drawn = {
                "type": "bar",
                "width": high - low,
                "marker": {"color": PALETTE[0], "line": {"width": 0}},
            }
        traces.append({**drawn, **common, "x": middle, "y": features})
        total = features.sum()
        if total > 0:
            at = float(middle[int(np.searchsorted(np.cumsum(features), total / 2))])
            told.append(
                f"{look.name}: {counted(total, 'feature')}, half of them below {_power(at)}"
            )
    low, high = float(column(drawn_bins, "low").min()), float(column(drawn_bins, "high").max())
    ticks = round_shares(low, high)
    layout: Spec = {
        "height": 300,
        "bargap": 0.05,
        "margin": {"l": 60, "r": 24, "t": 44, "b": 50},
        "legend": {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"},
        "xaxis": {
            "title": {"text": "share of tokens on which a feature is active"},
            "range": [low, high],
            "tickvals": ticks,
            "ticktext": [_power(t) for t in ticks],
        },
        "yaxis": {"title": {"text": "features"}, "rangemode": "tozero"},
    }
    return FigureCard(
        "sae-density",
        f"How often features fire, {clean(sae, 60)}",
        {"data": traces, "layout": layout},
        DENSITY_HOW + (RANDOM_HOW if "random" in kinds else ""),
        f"Histogram over the share of tokens. {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )  # fmt: skip


def _filled(frame: pd.DataFrame) -> pd.DataFrame:
    """The bins from the first to the last that hold a feature of any coder, and one more at either end."""
    full = where(frame, column(frame, "features") > 0)
    if full.empty:
        return frame
    low, high = column(frame, "low"), column(frame, "high")
    air = 1.01 * float(np.median(high - low))
    first, last = float(column(full, "low").min()), float(column(full, "high").max())
    return where(frame, (low >= first - air) & (high <= last + air))


def round_shares(low: float, high: float) -> list[float]:
    """Logarithms of up to four round shares between two others.

    >>> [round(float(10**t), 9) for t in round_shares(-2.6, -0.8)], round_shares(-8.0, 0.0)
    ([0.003, 0.01, 0.03, 0.1], [-8.0, -5.0, -2.0])
    """
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    found: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [float(p + np.log10(s)) for p in powers for s in steps]
        found = [at for at in found if low <= at <= high]
        if len(found) <= _TICKS:
            return found
    return found[:: -(-len(found) // _TICKS)]


def _power(log10: float) -> str:
    """A share from its logarithm, in per cent as short as it can be.

    >>> [_power(t).replace("\\u00a0", " ") for t in (-2, -4, -8, -0.0)]
    ['1 %', '0.01 %', '0.000001 %', '100 %']
    """
    share = 100 * 10 ** min(float(log10), 0.0)
    return f"{np.format_float_positional(share, precision=2, fractional=False, trim='-')}\u00a0%"


@figure("sae-training", 514)
def _(data: RunData) -> FigureCard | None:
    return training(data)


@figure("sae-density", 516)
def _(data: RunData) -> FigureCard | None:
    return density(data)
