"""Which states carry a task: activation patching by place, its gradient approximation, and how few heads keep it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import last_layer, ordered, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.circuit_attribution import located, map_card
from probes.report.figures.circuit_tasks import task_words
from probes.report.figures.focus import ZERO, Along, Look, line
from probes.report.figures.head_grid import framed
from probes.report.figures.marks import across
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis
from probes.report.frames import column, names, only, where
from probes.report.head_tables import HeadFocus, head_name, held, of_task
from probes.report.text import interval, label, number
from probes.report.theme import NEUTRAL, PALETTE, SELECTED, style_at

LEVELS = {"resid": "residual stream", "attn": "attention", "mlp": "MLP", "head": "heads"}
POSITIONS = {
    "all": "all tokens",
    "changed": "changed tokens",
    "last": "last token",
    "other": "other tokens",
}
ONE = {"color": NEUTRAL, "width": 1.3, "dash": "longdash"}
HOW_TO_READ = (
    "States of the clean text are put into the run of the corrupted one, at one layer and one group of tokens: 0 is "
    "the corrupted answer, 1 (dashed) the clean one. Where the line of the changed tokens falls and that of the last "
    "token rises, the information moves from one to the other. Bands are 95 % intervals over pairs. Layers of the "
    "residual stream, blocks for attention and MLP."
)


def patching_lines(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Activation patching over layers by group of tokens, for the task in focus; None when not measured."""
    found = of_task(data, "patching", focus or HeadFocus())
    if found is None:
        return None
    return data.once(("circuit-patching", found[1]), lambda: _lines_card(data, *found))


def _lines_card(data: RunData, frame: pd.DataFrame, task: str) -> FigureCard | None:
    rows = only(frame, method="activation")
    order = ordered(names(rows, "positions"), list(POSITIONS))
    panels: list[Panel] = []
    told: list[str] = []
    for level, place in (("resid", "layer"), ("attn", "block"), ("mlp", "block")):
        own = only(rows, level=level)
        own = where(own, np.isfinite(column(own, place)))
        traces: list[Spec] = []
        for at, positions in enumerate(order):
            held_rows = only(own, positions=positions).sort_values(place)
            if held_rows.empty:
                continue
            style = style_at(at)
            words = label(POSITIONS.get(positions, positions), 24)
            look = Look(words, style["color"], style["dash"], style["symbol"], 2.0, 4)
            traces += line(held_rows, Along(place, place), look)
            best = max(records(held_rows), key=lambda row: row["value"])
            if level == "resid" and positions in ("changed", "last"):
                told.append(
                    f"{words} highest at layer {best[place]:.0f} ({number(best['value'], 2)})"
                )
        if traces:
            whole = (
                [across(1.0, ONE)] if level == "resid" else []
            )  # single parts bring back far less
            panels.append(Panel(LEVELS[level], traces, [across(0.0, ZERO), *whole]))
    if not panels:
        return None
    last = last_layer(data, own)
    x = {**layer_axis(last), "title": "layer or block"}
    return FigureCard(
        "circuit-patching",
        f"What patching a layer brings back, {task_words(task)}",
        arranged(panels, Sheet(x, {}, columns=3, height=220, own_y=True)),
        HOW_TO_READ,
        f"{len(panels)} panels over depth, a line per group of tokens. {'; '.join(told)}.",
        rows.drop(columns="dataset"),
    )


MAP_HOW = (
    "The output of one head from the clean text put into the run of the corrupted one, at all its tokens: the share "
    "of the way from the corrupted to the clean answer that this alone brings back. Blue helps, red hinders. Unlike "
    "attribution this counts what the head does through later parts."
)


def patching_map(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Activation patching of every head for the task in focus; None when not measured."""
    focus = focus or HeadFocus()
    found = of_task(data, "patching", focus)
    if found is None:
        return None
    rows = head_effects(found[0])
    if rows.empty:
        return None
    title = f"What patching each head brings back, {task_words(found[1])}"
    card = data.once(
        ("circuit-patching-heads", found[1]),
        lambda: map_card(rows, "circuit-patching-heads", title, MAP_HOW),
    )
    return framed(card, focus.head)


def head_effects(rows: pd.DataFrame, method: str = "activation") -> pd.DataFrame:
    """Patching effect of every head, at all tokens where the table holds several groups."""
    own = only(rows, method=method, level="head")
    there = ordered(names(own, "positions"), ["all"])
    return located(own, positions=there[0]) if there else own


AGREEMENT_HOW = (
    "Attribution patching approximates activation patching by the mean of a few gradients. One dot per place: the "
    "approximation against the real thing; on the dashed line they agree. r is their correlation with a 95 % interval: "
    "where it is low, only activation patching may be believed."
)
_KEYS = ("level", "layer", "block", "head", "positions")


def patching_agreement(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Attribution against activation patching, a panel per level; None unless both were measured."""
    found = of_task(data, "patching", focus or HeadFocus())
    if found is None:
        return None
    picked = None if focus is None else focus.head
    key = ("circuit-agreement", found[1], picked)
    return data.once(key, lambda: _agreement_card(data, *found, picked))


def _agreement_card(
    data: RunData, frame: pd.DataFrame, task: str, picked: tuple[int, int] | None
) -> FigureCard | None:
    by_key = {
        method: {_key(row): row for row in records(only(frame, method=method))}
        for method in ("activation", "attribution")
    }
    shared = [key for key in by_key["activation"] if key in by_key["attribution"]]
    panels: list[Panel] = []
    told: list[str] = []
    table = held(data, "agreement")
    for level in ordered([str(key[0]) for key in shared], list(LEVELS)):
        keys = [key for key in shared if key[0] == level]
        x = np.array([by_key["activation"][key]["value"] for key in keys])
        y = np.array([by_key["attribution"][key]["value"] for key in keys])
        stated = (
            None
            if table is None
            else next(iter(records(only(table, task=task, level=level))), None)
        )
        corner = "" if stated is None else f"r = {number(stated['pearson'], 2)}"
        if stated is not None:
            span = interval(stated["low"], stated["high"], 2)
            told.append(f"{LEVELS.get(level, level)} {number(stated['pearson'], 2)} {span}".strip())
        ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
        same: Spec = {
            "type": "scatter", "x": ends, "y": ends, "mode": "lines", "line": ONE, "hoverinfo": "skip", "name": "equal",
        }  # fmt: skip
        spots: Spec = {
            "type": "scatter",
            "name": "places",
            "x": x,
            "y": y,
            "mode": "markers",
            "marker": {
                "size": [12 if _is(key, picked) else 5 for key in keys],
                "color": [SELECTED if _is(key, picked) else PALETTE[0] for key in keys],
                "opacity": 0.8,
                "line": {"width": 0},
            },
            "customdata": [
                f"<b>{_place(key)}</b><br>activation {number(a)}<br>attribution {number(b)}"
                for key, a, b in zip(keys, x, y, strict=True)
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        if level == "head":
            spots["meta"] = {"heads": [[int(key[2] or 0), int(key[3] or 0)] for key in keys]}
        traces = [{**t, "showlegend": False} for t in (same, spots)]
        panels.append(Panel(LEVELS.get(level, label(level, 20)), traces, corner=corner))
    if not panels:
        return None
    sheet = Sheet({"title": "activation patching"}, {}, columns=4, height=180, own_y=True)
    return FigureCard(
        "circuit-agreement",
        f"Attribution patching (y) against activation patching, {task_words(task)}",
        arranged(panels, sheet),
        AGREEMENT_HOW,
        f"{len(panels)} panels of dots. Correlation: {'; '.join(told) or 'not measured'}.",
        frame.drop(columns="dataset"),
    )


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    held_ = (row.get(name) for name in _KEYS)
    return tuple(None if isinstance(v, float) and v != v else v for v in held_)


def _is(key: tuple[Any, ...], picked: tuple[int, int] | None) -> bool:
    return picked is not None and key[0] == "head" and (key[2], key[3]) == picked


def _place(key: tuple[Any, ...]) -> str:
    level, layer, block, head, positions = key
    spot = (
        head_name(block, head)
        if head is not None and block is not None
        else f"{layer if block is None else block:.0f}"
    )
    where_ = POSITIONS.get(positions, label(positions, 20))
    return f"{LEVELS.get(level, label(level, 20))} {spot}, {where_}"


@figure("circuit-patching", 420)
def _(data: RunData) -> FigureCard | None:
    return patching_lines(data)


@figure("circuit-patching-heads", 422)
def _(data: RunData) -> FigureCard | None:
    return patching_map(data)


@figure("circuit-agreement", 424)
def _(data: RunData) -> FigureCard | None:
    return patching_agreement(data)
