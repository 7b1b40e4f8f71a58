"""Figures of several runs, one below the other with equal axes, and what a click in one of them means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from panels import figures
from panels.limits import equal_limits
from panels.state import Shown
from probes.report.data import RunData
from probes.report.figures.card import FigureCard

Build = Callable[[RunData], FigureCard | None]
Clicked = Callable[[Sequence[Any]], None]


def draw(
    runs: Sequence[Shown],
    builders: Sequence[Build],
    clicked: Callable[[FigureCard], Clicked | None],
    ready: Callable[[FigureCard], FigureCard] = lambda card: card,
) -> bool:
    """Draw every figure that any run has; whether there was one.

    `ready` puts a card right for the page; `clicked` gives what a click in it means, None where it means nothing.
    """
    found = False
    for build in builders:
        held = equal_limits([build(run.data) for run in runs])
        name = next((card.id for card in held if card is not None), None)
        if name is None:
            continue
        found = True
        for run, card in zip(runs, held, strict=True):
            key, named = f"{name}-{run.slug}", run.slug if len(runs) > 1 else ""
            if card is None:
                figures.show(None, key, "Not measured in this run (yet).", named)
                continue
            shown = ready(card)
            room = figures.PAGE if figures.is_wide(shown.spec) else figures.COLUMN
            figures.show(shown, key, "", named, clicked(shown), room)
    return found


def picked_by_point(card: FigureCard, meaning: str, pick: Callable[[Any], None]) -> Clicked | None:
    """Picks what the clicked point stands for, or nothing where no point was clicked.

    Traces name it in `meta[meaning]`, one entry per point; None where no trace of the card does.
    """
    traces = card.spec["data"]
    if not any(meaning in (trace.get("meta") or {}) for trace in traces):
        return None

    def clicked(points: Sequence[Any]) -> None:
        if not points:
            return pick(None)
        at, index = points[0].get("curve_number"), points[0].get("point_index")
        if not (isinstance(at, int) and at < len(traces) and isinstance(index, int)):
            return None
        known = (traces[at].get("meta") or {}).get(meaning, ())
        found = known[index] if index < len(known) else None
        return None if found is None else pick(found)

    return clicked
