"""What heads are like: known types beside their control, and the shapes of their attention; one dot per head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.head_grid import dots, heads_in, ring
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.frames import column, where
from probes.report.head_tables import (
    SHAPES,
    THRESHOLD,
    TYPES,
    HeadFocus,
    HeadId,
    head_measures,
    head_name,
    head_rows,
    ranking,
)
from probes.report.text import label, number
from probes.report.theme import ACCENT, NEUTRAL, layer_ticks

CONTROL = "unrepeated"
TYPES_HOW = (
    "One dot per head over its block. On random tokens that are repeated: how much a head looks at the token after "
    "the last occurrence of the current one (induction), at the token before (previous token), or at the last "
    "occurrence (duplicate token). Grey: the same positions where nothing repeats; what is not above that says "
    "nothing. Orange: retrieval heads (score at least 0.1)."
)
SHAPES_HOW = (
    "One dot per head over its block: how spread its attention is (entropy), how much lies on the first token "
    "(sink), how far it looks, the mass of the most looked-at token, and the share within 16 tokens. Orange: "
    "retrieval heads (score at least 0.1). Click a dot to follow that head."
)


def head_types(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Induction, previous-token and duplicate-token scores with their control; None when not measured."""
    return _card_of(data, focus, "head-types", "Types of heads", TYPES, TYPES_HOW)


def attention_shapes(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Entropy, sink, distance, column mass and local share of every head; None when not measured."""
    return _card_of(data, focus, "head-attention", "Shapes of attention", SHAPES, SHAPES_HOW)


def _card_of(
    data: RunData, focus: HeadFocus | None, name: str, title: str, measures: Sequence[str], how: str
) -> FigureCard | None:
    found = [measure for measure in head_measures(data) if measure in measures]
    if not found:
        return None
    picked = None if focus is None else focus.head
    return data.once((name, picked), lambda: _card(data, picked, (name, title, how), found))


def _card(
    data: RunData, picked: HeadId | None, words: tuple[str, str, str], measures: list[str]
) -> FigureCard:
    strong = [(int(r["block"]), int(r["head"])) for r in ranking(data) if r["value"] >= THRESHOLD]
    panels: list[Panel] = []
    told: list[str] = []
    frames: list[pd.DataFrame] = []
    for measure in measures:
        rows, control = head_rows(data, measure), head_rows(data, measure, CONTROL)
        frames += [held.assign(measure=measure) for held in (rows, control) if len(held)]
        panels.append(Panel(label(data.title(measure), 40), _traces(rows, control, strong, picked)))
        best = ranking(data, measure)[0]
        told.append(
            f"{data.title(measure)} from {number(column(rows, 'value').min())} to {number(best['value'])} at "
            f"{head_name(best['block'], best['head'])}"
        )
    last = max(int(column(frame, "block").max()) for frame in frames)
    ticks = {**layer_ticks(last), "dtick": 10} if last > 20 else layer_ticks(last)
    x: Spec = {"title": "block", "range": [-0.9, last + 0.9], **ticks}
    sheet = Sheet(x, {"rangemode": "tozero"}, columns=3, height=170, own_y=True)
    name, title, how = words
    return FigureCard(
        name,
        title,
        arranged(panels, sheet),
        how,
        f"{len(panels)} panels of dots over blocks 0 to {last}: {'; '.join(told)}.",
        pd.concat(frames, ignore_index=True).drop(columns="dataset"),
    )


def _traces(
    rows: pd.DataFrame, control: pd.DataFrame, strong: list[HeadId], picked: HeadId | None
) -> list[Spec]:
    """Heads, the control below them, and retrieval heads on top."""
    best = np.array([head in strong for head in heads_in(rows)], dtype=bool)
    found: list[Spec] = []
    if len(control):
        beside = control.assign(place=column(control, "block") + 0.4)  # not under the heads
        found.append(dots(beside, "nothing repeats", "place", colour=NEUTRAL, size=3))
    found.append(dots(where(rows, ~best), "heads", "block", size=5))
    if best.any():
        found.append(dots(where(rows, best), "retrieval heads", "block", colour=ACCENT, size=8))
    return [*found, *ring(rows, picked, "block")]


@figure("head-types", 320)
def _(data: RunData) -> FigureCard | None:
    return head_types(data)


@figure("head-attention", 322)
def _(data: RunData) -> FigureCard | None:
    return attention_shapes(data)
