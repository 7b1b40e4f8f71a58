"""The depth of every concept on one page: its curve over layers with chance, bag of words and controls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure, listed
from probes.report.figures.marks import across, styled_traces, upright
from probes.report.figures.panels import Panel, Sheet, arranged, entry, layer_axis, padded
from probes.report.frames import Point, column
from probes.report.study import BAG, CONTROLS, PROBE, Concept, Study, variant_words
from probes.report.text import NOTHING, interval, label, number
from probes.report.theme import ACCENT, NEUTRAL, faded, role_style

CHANCE = {"color": NEUTRAL, "width": 1.2, "dash": "dot"}
HOW_TO_READ = (
    "One panel per concept: how well a linear probe reads it after each layer (layer 0 is the embedding output), with "
    "its 95 % interval as a band. What counts is the distance to the controls: shuffled labels and chance (nothing to "
    "read), the control task (what the probe could learn by heart), untrained weights (what the architecture gives "
    "away) and the bag of words (what the words give away without the model). The red upright and the red number are "
    "the robust depth, the first layer from which on the curve stays within the interval of its peak; its own "
    "interval is shaded; a dash: no depth. Concepts with R² (numbers) share the scale."
)


def concept_depth(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Small multiples of probe quality over layers, grouped by family; None when no concept has a curve."""
    study = Study.of(data)
    shown = (
        [] if study is None else [c for c in study.by_family(concepts) if not study.curve(c).empty]
    )
    if study is None or not shown:
        return None
    names = tuple(concept.name for concept in shown)
    return data.once(("concept-depth", names), lambda: _card(study, shown))


def _card(study: Study, shown: list[Concept]) -> FigureCard:
    panels = [_panel(study, concept) for concept in shown]
    y = {"range": _heights(study, shown), "dtick": 0.25, "tickformat": ".2~f"}
    drawn = arranged(panels, Sheet(layer_axis(study.n_layers), y), legend=_legend(study, shown))
    measures = listed(sorted({study.data.title(concept.measure) for concept in shown}))
    title = f"Concept depth: {measures[:1].lower()}{measures[1:]} of a probe by layer"
    curves = study.table(shown, (PROBE, *CONTROLS, BAG))
    rows = pd.concat([curves, study.table(shown, (PROBE,), "robust_depth")], ignore_index=True)
    return FigureCard("concept-depth", title, drawn, HOW_TO_READ, _alt(study, shown), rows)


def _panel(study: Study, concept: Concept) -> Panel:
    traces: list[Spec] = []
    for variant in CONTROLS:
        rows, style = study.curve(concept, variant=variant), role_style(variant)
        traces += styled_traces(rows, variant_words(variant), style, size=4, width=1.3, band=False)
    traces += styled_traces(study.curve(concept), "probe", role_style("probe"), width=2)
    traces = [few_markers(trace) for trace in traces]
    shapes = level_lines(study, concept)
    depth = study.depth(concept)
    if depth is not None:
        shapes += depth_shapes(depth)
        traces += _depth_mark(study, concept, depth)
    return Panel(concept_title(concept), traces, shapes, concept.family, depth_corner(depth))


def few_markers(trace: Spec) -> Spec:
    """The trace with at most six of its markers drawn, so that a small panel stays legible."""
    return (
        trace
        if "marker" not in trace
        else {**trace, "marker": {**trace["marker"], "maxdisplayed": 6}}
    )


def level_lines(study: Study, concept: Concept) -> list[Spec]:
    """Chance, dotted, and the bag of words, dashed, over the whole width."""
    lines: list[Spec] = []
    if concept.chance is not None:
        lines.append(across(concept.chance, CHANCE, layer="below"))
    bag = study.bag_of_words(concept)
    if bag is not None:
        style = role_style(BAG)
        lines.append(across(bag.value, {"color": style["color"], "width": 1.8, "dash": "dash"}))
    return lines


def depth_shapes(depth: Point) -> list[Spec]:
    """The robust depth as an upright, its interval as a shade."""
    shapes = [upright(depth.value, {"color": ACCENT, "width": 1.6})]
    if np.isfinite(depth.low) and np.isfinite(depth.high):
        ends = {
            "x0": depth.low,
            "x1": depth.high,
            "xref": "x",
            "y0": 0,
            "y1": 1,
            "yref": "y domain",
        }
        shapes.append(
            {
                "type": "rect",
                **ends,
                "line": {"width": 0},
                "fillcolor": faded(ACCENT, 0.13),
                "layer": "below",
            }
        )
    return shapes


def depth_corner(depth: Point | None) -> str:
    """The robust depth as a number beside the title of a panel."""
    if depth is None:
        return f"<span style='color:{NEUTRAL}'>{NOTHING}</span>"
    return f"<b style='color:{ACCENT}'>{number(depth.value, 0)}</b>"


def concept_title(concept: Concept) -> str:
    """A concept's name as a label, with its measure where that is not accuracy."""
    name = label(concept.name, 20)
    return f"{name} · R²" if concept.measure == "r2" else name


def _depth_mark(study: Study, concept: Concept, depth: Point) -> list[Spec]:
    """A ring on the curve at the robust depth that says its interval."""
    curve = study.curve(concept)
    here = np.flatnonzero(column(curve, "layer") == round(depth.value))
    if not len(here):
        return []
    text = f"<b>robust depth {number(depth.value, 0)}</b> {interval(depth.low, depth.high, 0)}"
    return [
        {
            "type": "scatter",
            "x": [depth.value],
            "y": [float(column(curve, "value")[here[0]])],
            "mode": "markers",
            "marker": {"symbol": "circle-open", "size": 9, "color": ACCENT, "line": {"width": 2}},
            "name": "robust depth",
            "customdata": [text],
            "hovertemplate": "%{customdata}<extra></extra>",
            "showlegend": False,
        }
    ]


def _heights(study: Study, shown: list[Concept]) -> list[float]:
    """One range of y for all panels; what lies far below zero (R² of a control) is cut off."""
    values: list[float] = [1.0]
    for concept in shown:
        curve = study.curve(concept)
        values += [*column(curve, "value"), *column(curve, "low")]
        values += [
            v for name in CONTROLS for v in column(study.curve(concept, variant=name), "value")
        ]
        bag = study.bag_of_words(concept)
        values += [level for level in (concept.chance, bag and bag.value) if level is not None]
    return padded(values, -0.12, 1.0)


def _legend(study: Study, shown: list[Concept]) -> list[Spec]:
    """What the panels draw as shapes, as far as any of them does."""
    style = role_style(BAG)
    probe = role_style("probe")
    looks = {"color": probe["color"], "width": 2}
    entries = [
        entry("probe", line=looks, marker={"symbol": probe["symbol"], "color": probe["color"]})
    ]
    if any(study.bag_of_words(concept) for concept in shown):
        entries.append(
            entry("bag of words", line={"color": style["color"], "width": 1.8, "dash": "dash"})
        )
    if any(concept.chance is not None for concept in shown):
        entries.append(entry("chance", line=CHANCE))
    if any(study.depth(concept) for concept in shown):
        entries.append(entry("robust depth", line={"color": ACCENT, "width": 1.6}))
    return entries


def _alt(study: Study, shown: list[Concept]) -> str:
    words: list[str] = []
    for concept in shown:
        peak, depth, bag = study.peak(concept), study.depth(concept), study.bag_of_words(concept)
        if peak is None:
            continue
        told = f"{concept.name} peaks at {number(peak.value)} at layer {peak.layer}"
        told += (
            " without a robust depth"
            if depth is None
            else f", robust depth {number(depth.value, 0)}"
        )
        words.append(told if bag is None else f"{told}, bag of words {number(bag.value)}")
    return f"{len(words)} panels over layers 0 to {study.n_layers}: {'; '.join(words)}."


@figure("concept-depth", 100)
def _(data: RunData) -> FigureCard | None:
    return concept_depth(data)
