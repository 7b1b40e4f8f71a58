"""Panels of lines over layers, one per concept: code length, directions, magnitude and preference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10

import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure, listed
from probes.report.figures.concept_depth import CHANCE, concept_title, few_markers
from probes.report.figures.marks import across, styled_traces, upright
from probes.report.figures.panels import Panel, Sheet, arranged, entry, layer_axis, padded
from probes.report.frames import column, points
from probes.report.study import PROBE, Concept, Study, variant_words
from probes.report.text import number
from probes.report.theme import ACCENT, role_style


@dataclass(frozen=True)
class Line:
    """One line of every panel: a variant of a measure (None: the concept's own), what it is called, how it looks."""

    measure: str | None
    variant: str
    words: str
    role: str


@dataclass(frozen=True)
class Kind:
    """A figure of this kind: which lines, at what level a guess lies, and what stands beside it."""

    id: str
    title: str
    how_to_read: str
    lines: tuple[Line, ...]
    level: float
    level_words: str
    floor: float = 0.0
    ceiling: float = 1.0


def line_card(
    data: RunData,
    kind: Kind,
    concepts: Sequence[str] | None,
    finish: Callable[[Study, Concept, Panel], Panel] | None = None,
    y: Spec | None = None,
) -> FigureCard | None:
    """The figure of a kind; None when no concept has its first line."""
    study = Study.of(data)
    if study is None:
        return None
    first = kind.lines[0]
    shown = [
        concept
        for concept in study.by_family(concepts)
        if not study.curve(concept, first.measure, first.variant).empty
    ]
    if not shown:
        return None
    names = tuple(concept.name for concept in shown)
    return data.once((kind.id, names), lambda: _card(study, kind, shown, finish, y))


def _card(
    study: Study,
    kind: Kind,
    shown: list[Concept],
    finish: Callable[[Study, Concept, Panel], Panel] | None,
    y: Spec | None,
) -> FigureCard:
    panels = [_panel(study, concept, kind) for concept in shown]
    if finish is not None:
        panels = [finish(study, *pair) for pair in zip(shown, panels, strict=True)]
    values = [
        value
        for concept in shown
        for line in kind.lines
        for end in ("value", "low", "high")
        for value in column(study.curve(concept, line.measure, line.variant), end)
    ]
    heights = padded([kind.level, *values], kind.floor, kind.ceiling)
    sheet = Sheet(layer_axis(study.n_layers), y or {"range": heights, "tickformat": ".2~f"})
    drawn = arranged(panels, sheet, legend=_legend(study, kind, shown))
    tables = [study.table(shown, (line.variant,), *_measures(line)) for line in kind.lines]
    rows = pd.concat([table for table in tables if not table.empty], ignore_index=True)
    return FigureCard(kind.id, kind.title, drawn, kind.how_to_read, _alt(study, kind, shown), rows)


def _measures(line: Line) -> tuple[str, ...]:
    return () if line.measure is None else (line.measure,)


def _panel(study: Study, concept: Concept, kind: Kind) -> Panel:
    traces: list[Spec] = []
    for line in reversed(kind.lines):  # the first on top
        rows = study.curve(concept, line.measure, line.variant)
        traces += styled_traces(rows, line.words, role_style(line.role), width=2)
    shapes = [across(kind.level, CHANCE, layer="below")]
    return Panel(concept_title(concept), [few_markers(t) for t in traces], shapes, concept.family)


def _legend(study: Study, kind: Kind, shown: list[Concept]) -> list[Spec]:
    """Entries in the order of the lines, then the level."""
    entries: list[Spec] = []
    for line in kind.lines:
        if any(not study.curve(c, line.measure, line.variant).empty for c in shown):
            style = role_style(line.role)
            looks = {"color": style["color"], "width": 2, "dash": style["dash"]}
            dot = {"symbol": style["symbol"], "color": style["color"]}
            entries.append(entry(line.words, line=looks, marker=dot))
    return [*entries, entry(kind.level_words, line=CHANCE)]


def _alt(study: Study, kind: Kind, shown: list[Concept]) -> str:
    first = kind.lines[0]
    words: list[str] = []
    for concept in shown:
        best = max(
            points(study.curve(concept, first.measure, first.variant)), key=lambda p: p.value
        )
        words.append(f"{concept.name} at most {number(best.value)} at layer {best.layer}")
    names = listed([line.words for line in kind.lines])
    panels = f"{len(shown)} panels over layers 0 to {study.n_layers}, lines of {names}"
    return f"{panels}. {first.words}: {'; '.join(words)}."


CODE = Kind(
    "concept-mdl",
    "Compression by the online code (×), by layer",
    "How much shorter the labels become when a probe on this layer sends them (Voita & Titov 2020): the uniform code "
    "over the online code, on a logarithmic axis. At 1 the layer helps nothing. It counts not only how well a concept "
    "can be read but from how few examples. The red upright is the MDL depth, the layer with the shortest code; code "
    "lengths in bits are in the CSV.",
    (Line("compression", PROBE, "compression", "probe"),),
    1.0,
    "uniform code",
)


def code_length(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Compression over layers, one panel per concept, with the MDL depth; None when no code was measured."""
    study = Study.of(data)
    if study is None:
        return None
    curves = [study.curve(concept, "compression") for concept in study.by_family(concepts)]
    held = [v for rows in curves for end in ("value", "low", "high") for v in column(rows, end)]
    known = [value for value in held if value > 0]
    if not known:
        return None
    ends = [log10(min(*known, 1.0)) - 0.04, log10(max(*known, 1.1)) + 0.05]
    ticks = [0.5, 1, 2, 4, 8, 16, 32, 64]
    y = {"type": "log", "range": ends, "tickvals": ticks, "ticktext": [f"{t:g}×" for t in ticks]}
    card = line_card(data, CODE, concepts, _with_code_depth, y)
    return card if card is None else _with_bits(study, card)


def _with_code_depth(study: Study, concept: Concept, panel: Panel) -> Panel:
    depth = study.level(concept, "mdl_depth")
    if depth is None:
        return panel
    line = upright(depth.value, {"color": ACCENT, "width": 1.6})
    corner = f"<b style='color:{ACCENT}'>{number(depth.value, 0)}</b>"
    return Panel(panel.title, panel.traces, [*panel.shapes, line], panel.group, corner)


def _with_bits(study: Study, card: FigureCard) -> FigureCard:
    """The card with code lengths in its CSV, too."""
    names = set(card.data["concept"])
    shown = [concept for concept in study.by_family() if concept.name in names]
    rows = study.table(shown, (PROBE,), "compression", "mdl", "mdl_depth")
    return FigureCard(card.id, card.title, card.drawn, card.how_to_read, card.alt, rows)


DIRECTIONS = Kind(
    "concept-directions",
    "Agreement of a concept’s directions between contexts (cosine), by layer",
    "A concept is linear in the strong sense when its direction is the same wherever it is measured: the cosine "
    "between directions that were found in different contexts, against directions from shuffled labels. High cosines "
    "far above the random band: one direction. Noise in either direction pulls a cosine towards 0.",
    (
        Line("direction_cosine", PROBE, "concept", "probe"),
        Line("direction_cosine", "random", variant_words("random"), "shuffled"),
    ),
    0.0,
    "no agreement",
    -1.0,
)


def direction_agreement(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Cosine of a concept's directions over layers against random ones; None when none were compared."""
    return line_card(data, DIRECTIONS, concepts)


MAGNITUDE_LAW = Kind(
    "concept-magnitude",
    "How distances between numbers follow their magnitude (rank correlation), by layer",
    "For concepts that are numbers: does the distance between two states grow with the difference of the numbers, or "
    "with the difference of their logarithms (as in Weber–Fechner: 10 and 20 as far apart as 100 and 200)? The higher "
    "line fits better; shuffled numbers show what chance gives.",
    (
        Line("magnitude_correlation", "log", variant_words("log"), "second"),
        Line("magnitude_correlation", "linear", variant_words("linear"), "probe"),
        Line("magnitude_correlation", "shuffled", "shuffled numbers", "shuffled"),
    ),
    0.0,
    "no relation",
    -1.0,
)


def magnitude_law(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Linear against logarithmic coding of numbers over layers; None when no concept is a number."""
    return line_card(data, MAGNITUDE_LAW, concepts)


PREFERENCE = Kind(
    "concept-preference",
    "What the model itself prefers, against what a probe reads, by layer",
    "Minimal pairs: the share in which the model, read out at this layer through its own output head, finds the right "
    "text more probable, beside the accuracy of a probe on the same states. Where the probe is above, the layer knows "
    "what the head cannot say yet.",
    (
        Line("preference", PROBE, "model’s own preference", "second"),
        Line(None, PROBE, "probe", "probe"),
    ),
    0.5,
    "chance",
)


def own_preference(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Log-probability preference and probe accuracy over layers; None for models without a head."""
    return line_card(data, PREFERENCE, concepts)


@figure("concept-mdl", 120)
def _(data: RunData) -> FigureCard | None:
    return code_length(data)


@figure("concept-preference", 125)
def _(data: RunData) -> FigureCard | None:
    return own_preference(data)


@figure("concept-directions", 170)
def _(data: RunData) -> FigureCard | None:
    return direction_agreement(data)


@figure("concept-magnitude", 180)
def _(data: RunData) -> FigureCard | None:
    return magnitude_law(data)
