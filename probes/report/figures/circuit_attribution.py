"""Which parts of the model push towards the answer: direct logit attribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probes.report.collapse_study import records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.circuit_tasks import task_words, zero_line
from probes.report.figures.focus import whiskers
from probes.report.figures.head_grid import block_axis, framed, head_map
from probes.report.frames import column, only, where
from probes.report.head_tables import HeadFocus, head_name, of_task
from probes.report.text import count, interval, number
from probes.report.theme import NEUTRAL, PALETTE

HOW_TO_READ = (
    "The log-odds of right against wrong answer as a sum over what every part of the model writes (direct logit "
    "attribution; the final norm’s scale is held as it was). Bars above zero push towards the right answer. "
    "Attention: all heads of a block together. “in” is the embedding, “bias” all biases. What a part does through "
    "later parts is not counted here; patching counts that."
)


def component_attribution(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Bars of attention and MLP by block for the task in focus; None when not measured."""
    found = of_task(data, "attribution", focus or HeadFocus())
    if found is None:
        return None
    return data.once(("circuit-components", found[1]), lambda: _bars_card(*found))


def _bars_card(rows: pd.DataFrame, task: str) -> FigureCard:
    heads, mlps = only(rows, component="head"), only(rows, component="mlp")
    placed = where(rows, np.isfinite(column(rows, "block")))
    last = int(column(placed, "block").max()) if len(placed) else 0
    sums = [float(column(only(heads, block=b), "value").sum()) for b in range(last + 1)]
    traces: list[Spec] = []
    if len(heads):
        hover = [f"<b>attention of block {b}</b><br>{number(v)}" for b, v in enumerate(sums)]
        traces.append(_bars("attention", list(range(last + 1)), sums, PALETTE[0], hover))
    for name, own, at in (
        ("MLP", mlps, None),
        ("embedding and biases", only(rows, component="embedding"), -1),
        ("embedding and biases", only(rows, component="bias"), last + 1),
    ):
        if own.empty:
            continue
        value, low, high = (column(own, c) for c in ("value", "low", "high"))
        place = column(own, "block").tolist() if at is None else [at] * len(own)
        words = [
            "embedding" if at == -1 else "biases" if at is not None else f"MLP of block {b:.0f}"
            for b in place
        ]
        hover = [
            f"<b>{w}</b><br>{number(v)} {interval(a, b)}<br>n = {count(n)}"
            for w, v, a, b, n in zip(words, value, low, high, column(own, "n"), strict=True)
        ]
        colour = PALETTE[1] if at is None else NEUTRAL
        traces.append(_bars(name, place, value.tolist(), colour, hover))
        traces[-1]["error_y"] = {**whiskers(value, low, high), "color": NEUTRAL}
    total = records(only(rows, component="total"))
    told = (
        f"Total {number(total[0]['value'])} {interval(total[0]['low'], total[0]['high'])}. "
        if total
        else ""
    )
    axis = block_axis(last)
    step = axis["tickvals"]
    layout: Spec = {
        "height": 300,
        "barmode": "group",
        "bargap": 0.25,
        "margin": {"l": 60, "r": 24, "t": 44, "b": 50},
        "legend": {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"},
        "xaxis": {
            **axis,
            "range": [-1.8, last + 1.8],
            "tickvals": [-1, *step, last + 1],
            "ticktext": ["in", *axis["ticktext"], "bias"],
        },
        "yaxis": {"title": {"text": "logit difference"}},
        "shapes": zero_line(),
    }
    best = int(np.argmax(np.abs(sums)))
    return FigureCard(
        "circuit-components",
        f"What each part adds to the logit difference, {task_words(task)}",
        {"data": _one_entry(traces), "layout": layout},
        HOW_TO_READ,
        f"Bars over blocks 0 to {last} for {task_words(task)}. {told}The attention that counts most is that of block "
        f"{best}: {number(sums[best])}.",
        rows.drop(columns="dataset"),
    )


def _bars(name: str, x: Sequence[float], y: Sequence[float], colour: str, hover: list[str]) -> Spec:
    return {
        "type": "bar",
        "name": name,
        "legendgroup": name,
        "x": np.array(x, dtype=float),
        "y": np.array(y, dtype=float),
        "marker": {"color": colour},
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "offsetgroup": name,
    }


def _one_entry(traces: list[Spec]) -> list[Spec]:
    seen: set[str] = set()
    made: list[Spec] = []
    for trace in traces:
        made.append({**trace, "showlegend": trace["name"] not in seen})
        seen.add(trace["name"])
    return made


MAP_HOW = (
    "What each head writes directly towards the right and against the wrong answer, in logits: blue pushes towards "
    "the right one, red against it. Click a cell to follow that head through the page."
)


def attribution_map(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Direct logit attribution of every head for the task in focus; None when not measured."""
    focus = focus or HeadFocus()
    found = of_task(data, "attribution", focus)
    if found is None:
        return None
    rows = located(found[0], component="head")
    if rows.empty:
        return None
    card = data.once(
        ("circuit-attribution", found[1]),
        lambda: map_card(
            rows,
            "circuit-attribution",
            f"Direct logit attribution of every head, {task_words(found[1])}",
            MAP_HOW,
        ),
    )
    return framed(card, focus.head)


def located(rows: pd.DataFrame, **equal: str) -> pd.DataFrame:
    """Rows that belong to a head, one per head."""
    own = only(rows, **equal)
    known = np.isfinite(column(own, "block")) & np.isfinite(column(own, "head"))
    return where(own, known).drop_duplicates(["block", "head"])


def map_card(rows: pd.DataFrame, name: str, title: str, how: str) -> FigureCard:
    """A signed map of heads, with the strongest in words."""
    ranked = sorted(records(rows), key=lambda row: -abs(row["value"]))[:3]
    told = "; ".join(f"{head_name(r['block'], r['head'])} {number(r['value'])}" for r in ranked)
    return FigureCard(
        name,
        title,
        head_map(rows, signed=True),
        how,
        f"Heatmap of {count(len(rows))} heads, centred at zero. Strongest: {told}.",
        rows.drop(columns="dataset"),
    )


@figure("circuit-components", 410)
def _(data: RunData) -> FigureCard | None:
    return component_attribution(data)


@figure("circuit-attribution", 412)
def _(data: RunData) -> FigureCard | None:
    return attribution_map(data)
