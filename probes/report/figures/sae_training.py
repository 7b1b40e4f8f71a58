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
from probes.report.text import clean, count, is_number, label, number
from probes.report.theme import NEUTRAL, PALETTE, SELECTED, style_at

TRAINING_HOW = (
    "How training went, step by step: the share of the variance left unexplained, how many features are active, and "
    "the share of features that have not fired lately. A line per autoencoder; the one in focus is the widest. A "
    "curve that still falls at the end says that more steps would help."
)
_CURVES = {
    "fvu": "variance unexplained",
    "l0": "active features",
    "dead_share": "dead features",
    "penalty": "penalty",
}


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
    for measure, words in _CURVES.items():
        rows = where(frame, np.isfinite(column(frame, measure)))
        if rows.empty:
            continue
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
    sheet = Sheet({"title": "training step"}, {}, columns=len(panels), height=200, own_y=True)
    spec = arranged(panels, sheet)
    spec["layout"]["legend"]["traceorder"] = "reversed"
    return FigureCard(
        "sae-training",
        "How training of the autoencoders went",
        spec,
        TRAINING_HOW,
        f"{len(panels)} panels over training steps for {count(len(order))} autoencoders. At the last step of "
        f"{clean(strong, 60)}: {listed(told) or 'nothing'}.",
        frame.drop(columns="dataset"),
    )


DENSITY_HOW = (
    "How often features fire: features by the share of tokens on which they are active, on a logarithmic scale. "
    "Grey line: an autoencoder with random weights, whose features fire about equally often. Features far to the "
    "right fire nearly everywhere and seldom mean one thing; those far to the left almost never. Dashed: the picked "
    "feature."
)


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
    return replace(card, drawn=marked(card.spec, shapes=[line_]))


def _density(frame: pd.DataFrame, sae: str) -> FigureCard:
    traces: list[Spec] = []
    told: list[str] = []
    for kind in ordered(names(frame, "coder"), ("sae", "random")):
        own = only(frame, coder=kind).sort_values("low")
        low, high, features = (column(own, name) for name in ("low", "high", "features"))
        look = look_of(kind)
        hover = [
            f"<b>{look.name}</b><br>{count(n)} features fire on {_power(a)} to {_power(b)} of tokens"
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
            told.append(f"{look.name}: {count(total)} features, half of them below {_power(at)}")
    ticks = np.arange(
        np.floor(column(frame, "low").min()), np.ceil(column(frame, "high").max()) + 1
    )
    layout: Spec = {
        "height": 300,
        "bargap": 0.05,
        "margin": {"l": 60, "r": 24, "t": 44, "b": 50},
        "legend": {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"},
        "xaxis": {
            "title": {"text": "share of tokens on which a feature is active"},
            "tickvals": ticks.tolist(),
            "ticktext": [_power(t) for t in ticks],
        },
        "yaxis": {"title": {"text": "features"}, "rangemode": "tozero"},
    }
    return FigureCard(
        "sae-density",
        f"How often features fire, {clean(sae, 60)}",
        {"data": traces, "layout": layout},
        DENSITY_HOW,
        f"Histogram over the share of tokens. {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )  # fmt: skip


def _power(log10: float) -> str:
    """A share from its logarithm, in per cent as short as it can be.

    >>> _power(-2).replace("\\u00a0", " "), _power(-4).replace("\\u00a0", " ")
    ('1 %', '0.01 %')
    """
    return f"{100 * 10 ** min(float(log10), 0.0):.2g}\u00a0%"


@figure("sae-training", 514)
def _(data: RunData) -> FigureCard | None:
    return training(data)


@figure("sae-density", 516)
def _(data: RunData) -> FigureCard | None:
    return density(data)
