"""What erasing and steering do to the model's own answers, with random directions beside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.marks import upright
from probes.report.figures.panels import Panel, Sheet, arranged, entry, padded
from probes.report.frames import column, names, only
from probes.report.study import plain_table
from probes.report.text import count, interval, label, number
from probes.report.theme import ACCENT, NEUTRAL, PALETTE

HOW_TO_READ = (
    "How much more probable the model finds the true completion than the false one, in nats of log-probability, with "
    "95 % intervals. The dotted upright is the untouched model, 0 the point of no preference. A dot is the concept’s "
    "own direction, the ring beside it random directions of the same rank or strength: only where they lie apart does "
    "the model use the direction."
)
_CONTROL = {"leace": "random", "inlp": "random", "steer": "steer-random"}
_WORDS = {"leace": "LEACE", "inlp": "INLP"}
_NUMBERS = ("layer", "strength", "rank", "value", "low", "high", "n", "draws")


def causal_effects(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Points with intervals, a panel per concept and layer, treatments in rows with their random control; None when
    nothing was intervened on."""
    texts, needs = ("concept", "treatment"), ("layer", "value")
    frame = plain_table(data, "causal", texts, _NUMBERS, needs=needs, concepts=concepts)
    if frame is None:
        return None
    return data.once(("concept-causal", tuple(concepts or ())), lambda: _card(frame))


def _rows_of(frame: pd.DataFrame) -> list[tuple[str, float]]:
    """The rows of every panel: a treatment with its rank (erasure) or strength (steering)."""
    found: set[tuple[str, float]] = set()
    for treatment, rank, strength in zip(
        names(frame, "treatment"), column(frame, "rank"), column(frame, "strength"), strict=True
    ):
        if treatment in _CONTROL:
            found.add((treatment, strength if treatment == "steer" else rank))
    order = list(_CONTROL)
    return sorted(found, key=lambda row: (order.index(row[0]), row[1]))


def _row_words(row: tuple[str, float]) -> str:
    treatment, size = row
    if treatment == "steer":
        return f"steer by {'+' if size > 0 else ''}{number(size, 1 if size % 1 else 0)}"
    return f"{_WORDS[treatment]}, rank {number(size, 0)}"


def _card(frame: pd.DataFrame) -> FigureCard:
    rows = _rows_of(frame)
    places = sorted(
        set(zip(names(frame, "concept"), column(frame, "layer").astype(int), strict=True))
    )
    panels = [
        _panel(
            only(frame, concept=concept, layer=layer), rows, f"{label(concept, 26)} · layer {layer}"
        )
        for concept, layer in places
    ]
    x = {
        "title": "log-probability of the true minus the false completion (nats)",
        "range": padded(
            [0.0, *(v for c in ("value", "low", "high") for v in column(frame, c))], -np.inf, np.inf
        ),
    }
    y = {
        "range": [len(rows) - 0.4, -0.6],
        "tickvals": list(range(len(rows))),
        "ticktext": [_row_words(row) for row in rows],
    }
    sheet = Sheet(x, y, columns=3, height=max(60, 30 * len(rows)), left=120)
    key = [
        entry("the concept’s direction", marker={"symbol": "circle", "size": 9, "color": ACCENT}),
        entry(
            "random directions",
            marker={"symbol": "circle-open", "size": 9, "color": PALETTE[0], "line": {"width": 2}},
        ),
        entry("untouched", line={"color": NEUTRAL, "width": 1.5, "dash": "dot"}),
    ]
    return FigureCard(
        "concept-causal",
        "Causal effect on the model’s own answers (nats)",
        arranged(panels, sheet, legend=key),
        HOW_TO_READ,
        _alt(frame, rows, places),
        frame,
    )


def _panel(held: pd.DataFrame, rows: list[tuple[str, float]], title: str) -> Panel:
    own = [
        (at, found)
        for at, row in enumerate(rows)
        if not (found := _treated(held, row[0], row)).empty
    ]
    control = [
        (at, found)
        for at, row in enumerate(rows)
        if not (found := _treated(held, _CONTROL[row[0]], row)).empty
    ]
    traces = [
        *_points(
            control,
            0.17,
            {"symbol": "circle-open", "size": 8, "color": PALETTE[0], "line": {"width": 2}},
            "random",
        ),
        *_points(
            own, -0.13, {"symbol": "circle", "size": 8, "color": ACCENT}, "the concept’s direction"
        ),
    ]
    shapes = [upright(0, {"color": NEUTRAL, "width": 1}, layer="below")]
    base = column(only(held, treatment="none"), "value")
    if len(base):
        shapes.append(upright(float(base[0]), {"color": NEUTRAL, "width": 1.5, "dash": "dot"}))
    return Panel(title, traces, shapes)


def _treated(held: pd.DataFrame, treatment: str, row: tuple[str, float]) -> pd.DataFrame:
    key = "strength" if treatment.startswith("steer") else "rank"
    return only(held, treatment=treatment, **{key: row[1]}).head(1)


def _points(
    found: list[tuple[int, pd.DataFrame]], shift: float, marker: Spec, words: str
) -> list[Spec]:
    if not found:
        return []
    rows = pd.concat([frame for _, frame in found], ignore_index=True)
    value, low, high = (column(rows, c) for c in ("value", "low", "high"))
    sizes = zip(value, low, high, column(rows, "n"), column(rows, "draws"), strict=True)
    return [
        {
            "type": "scatter",
            "x": value,
            "y": [at + shift for at, _ in found],
            "mode": "markers",
            "marker": marker,
            "showlegend": False,
            "error_x": {
                "type": "data",
                "symmetric": False,
                "width": 0,
                "thickness": 1.6,
                "color": marker["color"],
                "array": np.nan_to_num(np.maximum(high - value, 0)),
                "arrayminus": np.nan_to_num(np.maximum(value - low, 0)),
            },
            "customdata": [
                f"{words}<br><b>{number(v, 2)}</b> {interval(a, b, 2)}<br>n = {count(n)}, draws: {count(d)}"
                for v, a, b, n, d in sizes
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        }
    ]


def _alt(frame: pd.DataFrame, rows: list[tuple[str, float]], places: list[tuple[str, int]]) -> str:
    told: list[str] = []
    for concept, layer in places:
        held = only(frame, concept=concept, layer=layer)
        base = column(only(held, treatment="none"), "value")
        values = [
            f"{_row_words(row)} {number(v[0], 2)}"
            for row in rows
            if len(v := column(_treated(held, row[0], row), "value"))
        ]
        told.append(
            f"{concept} at layer {layer}: untouched {number(base[0] if len(base) else None, 2)}, {', '.join(values)}"
        )
    return f"Points of log-probability differences. {'; '.join(told)}."


@figure("concept-causal", 160)
def _(data: RunData) -> FigureCard | None:
    return causal_effects(data)
