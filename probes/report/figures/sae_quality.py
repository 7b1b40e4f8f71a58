"""How good autoencoders are: reconstruction against sparsity, and loss kept in the model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import ordered
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure, listed
from probes.report.figures.focus import Look, log_axis, whiskers
from probes.report.figures.marks import upright
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.figures.sae_looks import ORDER, look_of, said
from probes.report.sae_tables import Coder, SaeFocus, coder_of, coders
from probes.report.text import clean, count, counted, interval, label, number, percent
from probes.report.theme import NEUTRAL

RECONSTRUCTION_HOW = (
    "Share of the variance of states that their reconstruction from few active features explains, over how many are "
    "active; higher and further left is better. On held-out states. 100 % is the state itself, 0 what the "
    "mean alone explains. Whiskers are 95 % intervals."
)
_BASELINES = {
    "pca": "PCA",
    "neurons": "single neurons",
    "random": "an autoencoder whose random weights were never trained",
}


def _how(found: list[Coder], marked: bool) -> str:
    """How to read what is there."""
    there = [words for kind, words in _BASELINES.items() if any(c.kind == kind for c in found)]
    lines = len({(c.place, c.kind) for c in found}) < len(found)
    drawn = "Broken lines" if lines else "The other marks"
    beside = (
        f" {drawn} are baselines with as many active numbers: {listed(there)}." if there else ""
    )
    return (
        RECONSTRUCTION_HOW
        + beside
        + (" Dotted upright: the autoencoder in focus." if marked else "")
    )


def reconstruction(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """Explained variance over active features, a panel per place; None when not measured."""
    held_coders = [c for c in coders(data) if _drawable(c)]
    if not held_coders:
        return None
    sae = None if focus is None else focus.sae
    return data.once(("sae-reconstruction", sae), lambda: _reconstruction(data, held_coders, sae))


def _drawable(coder: Coder) -> bool:
    return (coder.active or 0) > 0 and coder.value("explained_variance") is not None


def _reconstruction(data: RunData, found: list[Coder], sae: str | None) -> FigureCard:
    places = list(dict.fromkeys(c.place for c in found))
    picked = coder_of(data, sae)
    marked = False
    panels: list[Panel] = []
    told: list[str] = []
    for place in places:
        own = [c for c in found if c.place == place]
        traces: list[Spec] = []
        for kind in reversed(ordered([c.kind for c in own], ORDER)):
            same = sorted((c for c in own if c.kind == kind), key=lambda c: c.active or 0)
            traces.append(_points(same, look_of(kind)))
            best = same[-1]
            value = best.numbers["explained_variance"]
            told.append(
                f"{place} {said(kind)} {number(value['value'])} with {number(best.active, 0)} active"
            )
        shapes: list[Spec] = []
        several = len({c.active for c in own}) > 1
        if picked is not None and picked.place == place and picked.active and several:
            marked = True
            shapes = [upright(picked.active, {"color": NEUTRAL, "width": 1, "dash": "dot"})]
        panels.append(Panel(label(place, 30), traces, shapes))
    x = log_axis([c.active or 1 for c in found], "active features per state")
    values = [c.value("explained_variance") or 0.0 for c in found]
    y = {"range": [min(0.0, *values) - 0.03, 1.03], "tickformat": ".0%"}
    spec = arranged(panels, Sheet(x, y, columns=3, height=250))
    spec["layout"]["legend"]["traceorder"] = "reversed"
    return FigureCard(
        "sae-reconstruction",
        "Variance explained by autoencoders and baselines, over active features",
        spec,
        _how(found, marked),
        f"{counted(len(panels), 'panel')} over active features: {'; '.join(told)}.",
        _frame(found),
    )


def _points(same: list[Coder], look: Look) -> Spec:
    rows = [c.numbers["explained_variance"] for c in same]
    value, low, high = (np.array([row[k] for row in rows]) for k in ("value", "low", "high"))
    return {
        "type": "scatter",
        "name": look.name,
        "legendgroup": look.name,
        "x": np.array([c.active for c in same], dtype=float),
        "y": value,
        "mode": "lines+markers",
        "line": {"color": look.colour, "dash": look.dash, "width": look.width},
        "marker": {"symbol": look.symbol, "size": 9, "color": look.colour},
        "error_y": {**whiskers(value, low, high), "color": look.colour},
        "customdata": [_hover(c, row) for c, row in zip(same, rows, strict=True)],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _hover(coder: Coder, row: dict[str, float]) -> str:
    span = f"{percent(row['value'])} {interval(100 * row['low'], 100 * row['high'], 1)}".strip()
    size = f"<br>n = {count(row['n'])}" if row["n"] == row["n"] else ""
    return f"<b>{label(coder.variant, 40)}</b><br>{span}<br>{number(coder.active, 1)} active{size}"


def _frame(found: list[Coder]) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "place": c.place, "coder": c.variant, "active": c.active,
            **{k: c.numbers["explained_variance"][k] for k in ("value", "low", "high", "n")},
        }
        for c in found
    ])  # fmt: skip


LOSS_HOW = (
    "Each state is replaced by its reconstruction while the model reads. Left: loss recovered, the share of what the "
    "mean state costs in loss that the reconstruction spares: 100 % is the loss of the untouched model, 0 that of the "
    "mean state in place of every state; below 0 it is worse than the mean. Right: the loss itself, lower is better. "
    "Whiskers are 95 % intervals over texts. More recovered than with PCA and random weights says that what the model "
    "uses was kept; a high explained variance alone does not."
)
_ENDS = {"clean": "untouched model", "mean": "mean state", "zero": "no state (zero)"}


def loss_kept(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """Loss recovered and cross-entropy by coder; None when not measured."""
    found = [c for c in coders(data) if c.value("cross_entropy") is not None or _share(c)]
    if not any(_share(c) for c in found):
        return None
    return data.once("sae-loss", lambda: _loss(found))


def _share(coder: Coder) -> bool:
    return coder.value("loss_recovered") is not None


def _loss(found: list[Coder]) -> FigureCard:
    spliced = [c for c in found if _share(c)]
    order = ordered([c.kind for c in spliced], ORDER)
    spliced.sort(key=lambda c: (c.place, order.index(c.kind), c.k or 0))
    ends = [c for c in found if c.variant in _ENDS and c.place in {s.place for s in spliced}]
    ends.sort(key=lambda c: (c.place, list(_ENDS).index(c.variant)))
    rows = [*spliced, *ends]
    several = len({c.place for c in rows}) > 1
    words = [(f"{c.place}, " if several else "") + _ENDS.get(c.variant, c.variant) for c in rows]
    panels = [
        Panel("loss recovered", [_dots(rows, "loss_recovered", 100.0)], [upright(0.0, _LINE), upright(100.0, _LINE)],
              axes={"x": {"ticksuffix": " %"}}),
        Panel("loss (nats per token)", [_dots(rows, "cross_entropy", 1.0)]),
    ]  # fmt: skip
    y = {
        "range": [len(rows) - 0.4, -0.6],
        "tickvals": list(range(len(rows))),
        "ticktext": [label(word, 28) for word in words],
    }
    sheet = Sheet({"title": ""}, y, columns=2, height=max(110, 24 * len(rows)), left=170)
    told = [
        f"{clean(word, 40)} {percent(c.value('loss_recovered'))} "
        f"{_hundred(c.numbers['loss_recovered'])}".strip()
        for c, word in zip(spliced, words, strict=False)
    ]
    return FigureCard(
        "sae-loss",
        "Loss of the model recovered with reconstructed states",
        arranged(panels, sheet),
        LOSS_HOW,
        f"Two panels, {len(rows)} rows. Loss recovered: {'; '.join(told)}.",
        pd.DataFrame([
            {"place": c.place, "coder": c.variant, "measure": m, **{k: row[k] for k in ("value", "low", "high", "n")}}
            for c in rows for m in ("loss_recovered", "cross_entropy") if (row := c.numbers.get(m)) is not None
        ]),
    )  # fmt: skip


_LINE = {"color": NEUTRAL, "width": 1, "dash": "dot"}


def _hundred(row: dict[str, float]) -> str:
    return interval(100 * row["low"], 100 * row["high"], 1)


def _dots(rows: list[Coder], measure: str, scale: float) -> Spec:
    known = [(at, c, c.numbers[measure]) for at, c in enumerate(rows) if measure in c.numbers]
    value, low, high = (
        scale * np.array([row[k] for _, _, row in known], dtype=float) for k in ("value", "low", "high")
    )  # fmt: skip
    digits = 1 if scale > 1 else 3
    return {
        "type": "scatter",
        "mode": "markers",
        "x": value,
        "y": [at for at, _, _ in known],
        "marker": {
            "size": 10,
            "symbol": [look_of(c.kind).symbol if c.variant not in _ENDS else "line-ns-open" for _, c, _ in known],
            "color": [look_of(c.kind).colour if c.variant not in _ENDS else NEUTRAL for _, c, _ in known],
        },
        "error_x": {**whiskers(value, low, high), "color": NEUTRAL},
        "customdata": [
            f"<b>{label(_ENDS.get(c.variant, c.variant), 40)}</b><br>{number(v, digits)} {interval(a, b, digits)}"
            for (_, c, _), v, a, b in zip(known, value, low, high, strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }  # fmt: skip


@figure("sae-reconstruction", 510)
def _(data: RunData) -> FigureCard | None:
    return reconstruction(data)


@figure("sae-loss", 512)
def _(data: RunData) -> FigureCard | None:
    return loss_kept(data)
