"""Labelled concepts in features: the best single one, and the best few, beside neurons, PCA, random weights and a
probe of all dimensions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import ordered, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import ZERO, Along, line, log_axis, whiskers
from probes.report.figures.marks import across, upright
from probes.report.figures.panels import Panel, Sheet, arranged, entry, padded
from probes.report.figures.sae_effects import with_feature
from probes.report.figures.sae_looks import ORDER, look_of, said
from probes.report.frames import column, names, only, where
from probes.report.sae_tables import SaeFocus, of_sae
from probes.report.text import clean, count, counted, interval, label, number
from probes.report.theme import faded

CONCEPTS_HOW = (
    "How well a single number tells a concept: AUROC of the best one of each kind, picked on one half of the examples "
    "and judged on the other, beside a probe that reads all dimensions where there is one. 0.5 (dotted) is a guess. "
    "Whiskers are 95 % intervals. A feature stands for a concept if it lies near the probe and clear of neurons and "
    "random weights."
)
MOST = 24  # concepts that a figure shows
PANELS = 12
CHANCE = 0.5


def concept_key(row: dict[str, Any]) -> tuple[str, str]:
    """A concept with its dataset."""
    return row["dataset"], row["concept"]


def concept_title(key: tuple[str, str], several: bool) -> str:
    """A concept's name, with its dataset where there are several."""
    return f"{clean(key[0], 20)}: {clean(key[1], 30)}" if several and key[0] else clean(key[1], 40)


def ranked_concepts(frame: pd.DataFrame, value: str) -> list[tuple[str, str]]:
    """Concepts, those first that the autoencoder tells best."""
    own: dict[tuple[str, str], float] = {}
    for row in records(frame):
        at = concept_key(row)
        size = row[value] if row["coder"] == "sae" else -1.0
        own[at] = max(own.get(at, -1.0), size)
    return sorted(own, key=lambda key: (-own[key], key))


def best_single(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """AUROC of the best single number of every coder, a row per concept; None when not measured."""
    focus = focus or SaeFocus()
    found = of_sae(data, "sae_concepts", focus)
    if found is None:
        return None
    card = data.once(("sae-concepts", found[1]), lambda: _best(*found))
    return with_feature(card, focus.feature)


def _best(frame: pd.DataFrame, sae: str) -> FigureCard:
    order = ranked_concepts(frame, "auroc")
    shown = order[:MOST]
    several = len({dataset for dataset, _ in order}) > 1
    traces: list[Spec] = []
    kinds = ordered(names(frame, "coder"), ORDER)
    for at, kind in reversed(list(enumerate(kinds))):
        rows = [row for row in records(only(frame, coder=kind)) if concept_key(row) in shown]
        if rows:
            shift = 0.09 * (at - (len(kinds) - 1) / 2)
            traces.append(_dots(rows, kind, shown, shift, several))
    ends = np.concatenate([column(frame, name) for name in ("auroc", "low")])
    least = min(0.45, float(ends[np.isfinite(ends)].min(initial=0.45)))
    x = {"title": "AUROC", "range": [max(least, 0.0) - 0.02, 1.02]}
    y = {
        "range": [len(shown) - 0.4, -0.6],
        "tickvals": list(range(len(shown))),
        "ticktext": [label(concept_title(key, several), 34) for key in shown],
    }
    panel = Panel(label(sae, 60), traces, [upright(CHANCE, ZERO)])
    spec = arranged([panel], Sheet(x, y, columns=1, height=30 * len(shown), left=190))
    spec["layout"]["legend"]["traceorder"] = "reversed"
    cut = "" if len(shown) == len(order) else f", {len(shown)} of {len(order)} concepts"
    told = [
        f"{said(kind)} {number(np.median(column(only(frame, coder=kind), 'auroc')), 2)}"
        for kind in kinds
    ]
    return FigureCard(
        "sae-concepts",
        f"How well a single number tells a concept (AUROC){cut}",
        spec,
        CONCEPTS_HOW,
        f"Dots for {counted(len(shown), 'concept')}. Median AUROC: {'; '.join(told)}. Best told: "
        f"{concept_title(order[0], several)}.",
        frame,
    )


def _dots(
    rows: list[dict[str, Any]],
    kind: str,
    shown: list[tuple[str, str]],
    shift: float,
    several: bool,
) -> Spec:
    look = look_of(kind)
    value, low, high = (np.array([row[k] for row in rows]) for k in ("auroc", "low", "high"))
    made: Spec = {
        "type": "scatter",
        "name": look.name,
        "mode": "markers",
        "x": value,
        "y": [shown.index(concept_key(row)) + shift for row in rows],
        "marker": {"size": 8, "symbol": look.symbol, "color": look.colour},
        "error_x": {**whiskers(value, low, high), "color": faded(look.colour, 0.7)},
        "customdata": [
            f"<b>{label(concept_title(concept_key(row), several), 50)}</b><br>{look.name}{_number_of(row)}: "
            f"{number(row['auroc'])} {interval(row['low'], row['high'])}<br>n = {count(row['n'])}"
            for row in rows
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    if kind == "sae":  # a click on a dot means its feature
        made["meta"] = {
            "features": [
                int(row["feature"]) if row["feature"] == row["feature"] else None for row in rows
            ]
        }
    return made


def _number_of(row: dict[str, Any]) -> str:
    return f" {row['feature']:.0f}" if row["feature"] == row["feature"] else ""


PROBING_HOW = (
    "How many features it takes to tell a concept: AUROC of a logistic probe on the best k features, chosen on one "
    "part of the examples and judged on another, over k; the same for neurons, principal components and random "
    "weights. Bands are 95 % intervals. A line that is high at k = 1 has a feature for the concept; one that rises "
    "slowly spreads it."
)
DENSE_HOW = " The dashed purple line is a probe of all dimensions."


def sparse_probing(data: RunData, focus: SaeFocus | None = None) -> FigureCard | None:
    """AUROC over the number of features, a panel per concept; None when not measured."""
    found = of_sae(data, "sae_probing", focus or SaeFocus())
    return None if found is None else data.once(("sae-probing", found[1]), lambda: _sparse(*found))


def _sparse(frame: pd.DataFrame, sae: str) -> FigureCard | None:
    plain = where(frame, np.isfinite(column(frame, "features")))
    if plain.empty:
        return None
    order = ranked_concepts(plain, "value")
    shown = order[:PANELS]
    several = len({dataset for dataset, _ in order}) > 1
    panels: list[Panel] = []
    kinds = ordered(names(frame, "coder"), ORDER)
    for key in shown:
        of_key = np.array([concept_key(row) == key for row in records(frame)], dtype=bool)
        panels.append(_curves(where(frame, of_key), kinds, label(concept_title(key, several), 30)))
    every = np.concatenate([column(frame, name) for name in ("value", "low", "high")])
    x = log_axis(column(plain, "features"), "features used")
    sheet = Sheet(x, {"range": padded(every, 0.3, 1.0)}, columns=4, height=150)
    dense = only(frame, coder="dense")
    look = look_of("dense")
    drawn_as = {"color": look.colour, "width": 1.6, "dash": "dash"}
    spec = arranged(panels, sheet, legend=[entry(look.name, line=drawn_as)] if len(dense) else [])
    spec["layout"]["legend"]["traceorder"] = "reversed"
    cut = "" if len(shown) == len(order) else f", {len(shown)} of {len(order)} concepts"
    fewest = float(column(plain, "features").min())
    told = [
        f"{said(kind)} {number(np.median(column(own, 'value')), 2)}"
        for kind in kinds
        if len(own := only(plain, coder=kind, features=fewest))
    ]
    if len(dense):
        told.append(f"{said('dense')} {number(np.median(column(dense, 'value')), 2)}")
    return FigureCard(
        "sae-probing",
        f"AUROC of a probe on the best few features, {clean(sae, 40)}{cut}",
        spec,
        PROBING_HOW + (DENSE_HOW if len(dense) else ""),
        f"{counted(len(panels), 'panel')} over features used. Median AUROC with {count(fewest)}: {'; '.join(told)}.",
        frame,
    )


def _curves(rows: pd.DataFrame, kinds: list[str], title: str) -> Panel:
    traces: list[Spec] = []
    shapes: list[Spec] = [across(CHANCE, ZERO, layer="below")]
    for kind in reversed(kinds):
        own, look = only(rows, coder=kind), look_of(kind)
        whole = column(where(own, ~np.isfinite(column(own, "features"))), "value")
        for level in whole[:1]:
            dash = {"color": look.colour, "width": 1.6, "dash": "dash"}
            shapes.append(across(float(level), dash, layer="below"))
        own = where(own, np.isfinite(column(own, "features"))).sort_values("features")
        if len(own):
            traces += line(own, Along("features", "", "features"), look)
    return Panel(title, traces, shapes)


@figure("sae-concepts", 502)
def _(data: RunData) -> FigureCard | None:
    return best_single(data)


@figure("sae-probing", 504)
def _(data: RunData) -> FigureCard | None:
    return sparse_probing(data)
