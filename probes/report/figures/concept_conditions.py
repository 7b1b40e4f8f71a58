"""What noise, quantisation, another prompt or pooling do to a concept: as differences by layer, and as curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.concept_depth import concept_title, few_markers, level_lines
from probes.report.figures.marks import styled_traces, upright
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis, padded
from probes.report.frames import column, names, only, points
from probes.report.study import PROBE, Concept, Study, variant_words
from probes.report.text import clean, label, number
from probes.report.theme import ACCENT, DIFFERENCE, NEUTRAL, series_style

HOW_TO_READ = (
    "Each row is a condition, each cell a layer: the probe’s value under the condition minus its value without. Grey: "
    "no change; red: the layer reads the concept worse. Ticks mark the robust depth under the condition; the dotted "
    "upright is the depth without it, so a tick to its right means that the concept becomes readable later."
)
CURVES_TO_READ = (
    "The concept’s curve under each condition beside the plain one, with 95 % intervals. Dotted: chance; dashed: bag "
    "of words. A click on a name in the legend hides its line."
)


def condition_changes(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Heatmaps of the change by condition and layer, one per concept; None when no condition was measured."""
    study = Study.of(data)
    if study is None:
        return None
    # a change needs the plain curve beside the condition's
    shown = [c for c in study.by_family(concepts) if study.conditions(c) and len(study.curve(c))]
    if not shown:
        return None
    key = tuple(concept.name for concept in shown)
    return data.once(("concept-conditions", key), lambda: _card(study, shown))


def _card(study: Study, shown: list[Concept]) -> FigureCard:
    held = {name for concept in shown for name in study.conditions(concept)}
    conditions = sorted(held, key=lambda name: (name.split("=")[0], name))
    changes = {concept.name: _changes(study, concept) for concept in shown}
    rows = pd.concat(changes.values(), ignore_index=True)
    limit = max(0.05, float(np.nanmax(np.abs(column(rows, "change")))))
    panels = [_panel(study, concept, changes[concept.name], conditions) for concept in shown]
    y = {
        "range": [len(conditions) - 0.5, -0.5],
        "tickvals": list(range(len(conditions))),
        "ticktext": [label(variant_words(name), 24) for name in conditions],
        "showgrid": False,
    }
    height = max(60, 15 * len(conditions))
    sheet = Sheet(
        {**layer_axis(study.n_layers), "range": [-0.5, study.n_layers + 0.5], "showgrid": False},
        y,
        columns=3,
        height=height,
        left=150,
        right=70,
    )
    drawn = arranged(panels, sheet)
    drawn["layout"]["coloraxis"] = {
        "colorscale": DIFFERENCE,
        "cmin": -limit,
        "cmax": limit,
        "colorbar": {"thickness": 12, "lenmode": "pixels", "len": 170, "tickformat": "+.2~f"},
    }
    return FigureCard(
        "concept-conditions",
        "What conditions change (value minus plain value), by layer",
        drawn,
        HOW_TO_READ,
        _alt(rows, len(shown)),
        rows,
    )


def _changes(study: Study, concept: Concept) -> pd.DataFrame:
    """Condition by layer with the change against the plain curve, columns concept, condition, layer, change …"""
    plain = {p.layer: p.value for p in points(study.curve(concept))}
    rows = [
        {
            "concept": concept.name,
            "condition": name,
            "layer": p.layer,
            "change": p.value - plain[p.layer],
            "value": p.value,
            "low": p.low,
            "high": p.high,
            "plain": plain[p.layer],
        }
        for name in study.conditions(concept)
        for p in points(study.curve(concept, variant=name))
        if p.layer in plain
    ]
    columns = ["concept", "condition", "layer", "change", "value", "low", "high", "plain"]
    return pd.DataFrame(rows, columns=columns)


def _panel(study: Study, concept: Concept, rows: pd.DataFrame, conditions: list[str]) -> Panel:
    z = np.full((len(conditions), study.n_layers + 1), np.nan)
    hover = np.full(z.shape, "", dtype=object)
    cells = zip(
        names(rows, "condition"),
        *(column(rows, c) for c in ("layer", "change", "value")),
        strict=True,
    )
    for name, layer, change, value in cells:
        if layer > study.n_layers:
            continue
        spot = conditions.index(name), int(layer)
        z[spot] = change
        hover[spot] = (
            f"<b>layer {spot[1]}</b>, {label(variant_words(name))}<br>{number(value)}, "
            f"{'+' if change >= 0 else ''}{number(change)}"
        )
    heat = {
        "type": "heatmap",
        "x": np.arange(study.n_layers + 1),
        "y": np.arange(len(conditions)),
        "z": z,
        "coloraxis": "coloraxis",
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": False,
        "ygap": 1,
        "showlegend": False,
    }
    depth = study.depth(concept)
    line = {"color": NEUTRAL, "width": 1.5, "dash": "dot"}
    shapes = [] if depth is None else [upright(depth.value, line)]
    return Panel(
        concept_title(concept),
        [heat, *_depth_ticks(study, concept, conditions)],
        shapes,
        concept.family,
    )


def _depth_ticks(study: Study, concept: Concept, conditions: list[str]) -> list[Spec]:
    """The robust depth under each condition."""
    found = [
        (at, name, depth)
        for at, name in enumerate(conditions)
        if (depth := study.level(concept, "robust_depth", name))
    ]
    if not found:
        return []
    return [
        {
            "type": "scatter",
            "x": [depth.value for _, _, depth in found],
            "y": [at for at, _, _ in found],
            "mode": "markers",
            "marker": {"symbol": "line-ns", "size": 9, "line": {"width": 2.2, "color": "#111111"}},
            "showlegend": False,
            "customdata": [
                f"{label(variant_words(name))}: robust depth {number(depth.value, 0)}"
                for _, name, depth in found
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        }
    ]


def _alt(rows: pd.DataFrame, panels: int) -> str:
    held = list(dict.fromkeys(names(rows, "condition")))
    means = {name: column(only(rows, condition=name), "change").mean() for name in held}
    told = "; ".join(f"{variant_words(name)} {number(value)}" for name, value in means.items())
    return f"{panels} heatmaps of the change under each condition by layer. Mean change: {told}."


def condition_curves(data: RunData, concept: str) -> FigureCard | None:
    """One concept's curve under every condition; None when it was measured under none."""
    study = Study.of(data)
    found = [] if study is None else [c for c in study.concepts if c.name == concept]
    if study is None or not found or not study.conditions(found[0]):
        return None
    return data.once(("concept-condition-curves", concept), lambda: _curves(study, found[0]))


def _curves(study: Study, concept: Concept) -> FigureCard:
    variants = [PROBE, *study.conditions(concept)]
    traces: list[Spec] = []
    for name in variants:
        rows = study.curve(concept, variant=name)
        style = series_style(name, variants)
        words = "plain" if name == PROBE else label(variant_words(name))
        width = 3.0 if name == PROBE else 1.8
        traces += styled_traces(rows, words, style, width=width, band=name == PROBE)
    depth = study.depth(concept)
    shapes = level_lines(study, concept)
    if depth is not None:
        shapes.append(upright(depth.value, {"color": ACCENT, "width": 1.6}))
    table = study.table([concept], variants)
    ends = padded([*column(table, "value"), concept.chance or 0.0], -0.12, 1.0)
    panel = Panel(concept_title(concept), [few_markers(trace) for trace in traces], shapes)
    drawn = arranged(
        [panel], Sheet(layer_axis(study.n_layers), {"range": ends, "tickformat": ".2~f"})
    )
    told = ", ".join(variant_words(name) for name in variants[1:])
    alt = f"Lines of {study.data.title(concept.measure)} over layers for {concept.name}: plain, {told}."
    title = f"{study.data.title(concept.measure)} of {clean(concept.name, 40)} under every condition, by layer"
    return FigureCard("concept-condition-curves", title, drawn, CURVES_TO_READ, alt, table)


@figure("concept-conditions", 110)
def _(data: RunData) -> FigureCard | None:
    return condition_changes(data)
