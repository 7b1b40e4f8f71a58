"""How few heads keep a task: faithfulness of the highest-ranked ones against a random order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from probes.report.collapse_study import ordered, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.circuit_patching import ONE
from probes.report.figures.circuit_tasks import task_words
from probes.report.figures.focus import ZERO, Along, Look, line
from probes.report.figures.marks import across
from probes.report.frames import column, names, only
from probes.report.head_tables import HeadFocus, of_task
from probes.report.text import count, interval, label, number
from probes.report.theme import ACCENT, NEUTRAL, PALETTE

FAITHFUL_HOW = (
    "Only the n highest-ranked heads keep their output, all others give their mean over texts; MLPs stay intact. 1 "
    "(dashed): the whole model’s log-odds, 0: none. A ranking is good if its line rises early; it must do so against "
    "random order (grey; another one for each pair). Rankings by size, whatever the sign, are hidden until their name "
    "is clicked. Bands are 95 % intervals over pairs. Above 1 heads are left out that work against the "
    "answer."
)
_BY_SIZE = ":absolute"  # behind the name of a ranking
_RANKINGS = {
    "activation": Look("activation patching", ACCENT),
    "attribution": Look("attribution patching", PALETTE[0], "dash", "square"),
    "dla": Look("direct attribution", PALETTE[2], "dashdot", "triangle-up"),
    "random": Look("random order", NEUTRAL, "dot", "diamond"),
}


def faithfulness_curves(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """How much of the task n heads keep, a line per ranking; None when not measured."""
    found = of_task(data, "faithfulness", focus or HeadFocus())
    if found is None:
        return None
    return data.once(("circuit-faithfulness", found[1]), lambda: _faithful_card(*found))


def _faithful_card(frame: pd.DataFrame, task: str) -> FigureCard:
    kept = sorted({float(n) for n in column(frame, "heads_kept")})
    left = 0.5  # where 0 stands on a logarithmic axis
    rows = frame.assign(
        place=np.where(column(frame, "heads_kept") > 0, column(frame, "heads_kept"), left)
    )
    traces: list[Spec] = []
    told: list[str] = []
    for ranking in reversed(ordered(names(rows, "ranking"), list(_RANKINGS))):
        own = only(rows, ranking=ranking).sort_values("place")
        name, by_size, _ = ranking.partition(_BY_SIZE)
        look = _RANKINGS.get(name, Look(label(name, 30), PALETTE[3]))
        if by_size:
            look = replace(look, name=f"{look.name}, by size", width=1.2)
        drawn = line(own, Along("place", "", "heads kept"), look, band=not by_size)
        for trace in drawn:
            if "customdata" in trace:
                trace["customdata"] = [
                    f"<b>{count(n)} heads kept</b>, {look.name}<br>{number(v)} {interval(a, b)}"
                    for n, v, a, b in zip(
                        *(column(own, c) for c in ("heads_kept", "value", "low", "high")),
                        strict=True,
                    )
                ]
        traces += [{**trace, "visible": "legendonly"} for trace in drawn] if by_size else drawn
        if by_size:
            continue
        early = next((r for r in records(own) if r["value"] >= 0.8), None)
        told.append(
            f"{look.name} reaches 0.8 with {count(early['heads_kept'])} heads"
            if early
            else f"{look.name} never reaches 0.8"
        )
    ticks = [n for n in kept if n > 0]
    if len(ticks) > 12:
        ticks = ticks[:: len(ticks) // 8]
    low, high = np.log10(left if kept[0] == 0 else kept[0]), np.log10(max(kept[-1], 1))
    air = 0.04 * max(high - low, 0.3)
    zero = [0.0] if kept[0] == 0 else []
    layout: Spec = {
        "height": 340,
        "margin": {"l": 60, "r": 24, "t": 44, "b": 50},
        "legend": {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"},
        "xaxis": {
            "type": "log",
            "title": {"text": f"heads kept, of {count(kept[-1])}"},
            "range": [low - air, high + air],
            "tickvals": [left for _ in zero] + ticks,
            "ticktext": [count(n) for n in (*zero, *ticks)],
        },
        "yaxis": {"title": {"text": "share of the logit difference"}},
        "shapes": [across(0.0, ZERO, layer="below"), across(1.0, ONE, layer="below")],
    }
    return FigureCard(
        "circuit-faithfulness",
        f"How few heads keep the task, {task_words(task)}",
        {"data": traces, "layout": layout},
        FAITHFUL_HOW,
        f"Lines over heads kept, 0 to {count(kept[-1])}: {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )


@figure("circuit-faithfulness", 426)
def _(data: RunData) -> FigureCard | None:
    return faithfulness_curves(data)
