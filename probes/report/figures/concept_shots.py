"""How few labels are enough: accuracy against the number of labels, for a few layers."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.concept_depth import CHANCE, concept_title
from probes.report.figures.marks import across, styled_traces
from probes.report.figures.panels import Panel, Sheet, arranged, entry, padded
from probes.report.frames import column, only
from probes.report.study import Concept, Study
from probes.report.text import number
from probes.report.theme import series_style

HOW_TO_READ = (
    "Accuracy of a probe that saw only so many labels (logarithmic axis), on examples it did not see, at layers spread "
    "over the depth. The band, drawn for the last layer only, covers draws and examples. A layer whose line starts "
    "high holds the concept in a form that takes few examples to find. All layers are in the CSV."
)
_SHOTS = "shots="


def few_shot_curves(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Accuracy over the number of labels, a panel per concept, a line per layer; None when it was not measured."""
    study = Study.of(data)
    if study is None:
        return None
    shown = [c for c in study.by_family(concepts) if _sizes(study, c)]
    if not shown:
        return None
    names = tuple(concept.name for concept in shown)
    return data.once(("concept-few-shot", names), lambda: _card(study, shown))


def _sizes(study: Study, concept: Concept) -> dict[int, pd.DataFrame]:
    """The curve over layers by number of labels, ascending."""
    found = {
        int(v.removeprefix(_SHOTS)): study.curve(concept, "accuracy", v)
        for v in study.variants(concept, "accuracy")
        if v.startswith(_SHOTS)
        and v.removeprefix(_SHOTS).isdecimal()
        and int(v.removeprefix(_SHOTS))
    }
    return dict(sorted(found.items()))


def spread_layers(layers: Sequence[int], count: int = 5) -> list[int]:
    """At most `count` of the layers, evenly spread, first and last among them.

    >>> spread_layers(range(31))
    [0, 8, 15, 22, 30]
    """
    held = sorted(set(layers))
    spots = np.linspace(0, len(held) - 1, min(count, len(held)))
    return [held[round(spot)] for spot in spots]


def _card(study: Study, shown: list[Concept]) -> FigureCard:
    tables = {c.name: _sizes(study, c) for c in shown}
    layers = sorted(
        {
            int(k)
            for held in tables.values()
            for rows in held.values()
            for k in column(rows, "layer")
        }
    )
    drawn_layers = spread_layers(layers)
    panels = [_panel(concept, tables[concept.name], drawn_layers) for concept in shown]
    sizes = sorted({size for held in tables.values() for size in held})
    ends = [
        v
        for held in tables.values()
        for rows in held.values()
        for c in ("value", "low", "high")
        for v in column(rows, c)
    ]
    air = 0.06 * max(log2(sizes[-1] / sizes[0]), 1)
    ticks = sizes if len(sizes) <= 5 else sizes[:: -(-len(sizes) // 5)]
    x = {
        "title": "labels",
        "range": [log2(sizes[0]) - air, log2(sizes[-1]) + air],
        "tickvals": [log2(s) for s in ticks],
        "ticktext": [str(s) for s in ticks],
    }
    chances = [c.chance for c in shown if c.chance is not None]
    y = {"range": padded([*ends, *chances], 0.0, 1.0), "tickformat": ".2~f"}
    key = [entry("chance", line=CHANCE)] if chances else []
    drawn = arranged(panels, Sheet(x, y, height=130), legend=key)
    rows = pd.concat(
        [
            study.table([c], [f"{_SHOTS}{size}" for size in tables[c.name]], "accuracy")
            for c in shown
        ],
        ignore_index=True,
    )
    return FigureCard(
        "concept-few-shot",
        "Accuracy against the number of labels",
        drawn,
        HOW_TO_READ,
        _alt(shown, tables, drawn_layers),
        rows,
    )


def _panel(concept: Concept, tables: dict[int, pd.DataFrame], layers: list[int]) -> Panel:
    labels = [f"layer {layer}" for layer in layers]
    traces: list[Spec] = []
    for layer, words in zip(layers, labels, strict=True):
        held = [
            (size, found)
            for size, rows in tables.items()
            if not (found := only(rows, layer=layer)).empty
        ]
        if held:
            line = pd.concat([found.assign(layer=size) for size, found in held], ignore_index=True)
            made = styled_traces(
                line,
                words,
                series_style(words, labels),
                size=4,
                width=1.8,
                band=layer == layers[-1],
                head="labels:",
            )
            traces += [{**trace, "x": np.log2(trace["x"])} for trace in made]
    shapes = [] if concept.chance is None else [across(concept.chance, CHANCE, layer="below")]
    return Panel(concept_title(concept), traces, shapes, concept.family)


def _alt(
    shown: list[Concept], tables: dict[str, dict[int, pd.DataFrame]], layers: list[int]
) -> str:
    told: list[str] = []
    for concept in shown:
        sizes = tables[concept.name]
        few, many = min(sizes), max(sizes)
        best = [number(np.nanmax(column(rows, "value"))) for rows in (sizes[few], sizes[many])]
        told.append(f"{concept.name} {best[0]} with {few} labels, {best[1]} with {many}")
    return f"{len(shown)} panels, lines for layers {', '.join(map(str, layers))}. Best layer: {'; '.join(told)}."


@figure("concept-few-shot", 140)
def _(data: RunData) -> FigureCard | None:
    return few_shot_curves(data)
