"""From a click in a figure to the concept it means: by the panel it fell into, or by the name beside the point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from probes.report.figures import FigureCard
from probes.report.figures.concept_depth import concept_title
from probes.report.study import Study
from probes.report.text import label

Clicked = Callable[[Sequence[Any]], None]


def linked(
    card: FigureCard | None, study: Study, pick: Callable[[str | None], None]
) -> Clicked | None:
    """What a click on the card's points does: it picks their concept. None for a figure that names no concept."""
    if card is None:
        return None
    names = _labels(study)
    layout = card.spec["layout"]
    panels = _panels(layout, names)
    sides = {side: _ticks(card.spec, side, names) for side in "yx"}
    if not panels and not any(sides.values()):
        return None

    def clicked(points: Sequence[Any]) -> None:
        if not points:
            return pick(None)
        found = _meant(points[0], card.spec["data"], panels, sides)
        return None if found is None else pick(found)

    return clicked


def _labels(study: Study) -> dict[str, str]:
    """Concepts by every label that figures give them; those that share a label cannot be told apart."""
    found: dict[str, str] = {}
    for concept in study.concepts:
        for text in (concept_title(concept), label(concept.name, 24), label(concept.name)):
            found[text] = concept.name
    return found


def _panels(layout: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    """Concepts by the axis of their panel: a title stands at its upper left corner."""
    titles = {
        (note.get("x"), note.get("y")): names[note["text"]]
        for note in layout.get("annotations", ())
        if note.get("text") in names
    }
    found: dict[str, str] = {}
    for name, axis in layout.items():
        if name.startswith("xaxis") and "domain" in axis:
            beside = layout.get(name.replace("x", "y", 1), {}).get("domain")
            corner = (axis["domain"][0], beside[1]) if beside else None
            if corner in titles:
                found[name.replace("axis", "")] = titles[corner]
    return found


def _ticks(spec: dict[str, Any], side: str, names: dict[str, str]) -> dict[Any, str]:
    """Concepts by their place on one side: the numbers that its ticks name, or names as they are."""
    axis = spec["layout"].get(f"{side}axis", {})
    texts = list(axis.get("ticktext", ()))
    places = list(axis.get("tickvals", ()))
    found: dict[Any, str] = {
        float(place): names[text]
        for place, text in zip(places, texts, strict=False)
        if text in names
    }
    for trace in spec["data"]:
        for value in trace.get(side, ()):
            if isinstance(value, str) and value in names:
                found[value] = names[value]
    return found


def _meant(
    point: Any,
    traces: list[dict[str, Any]],
    panels: dict[str, str],
    sides: dict[str, dict[Any, str]],
) -> str | None:
    at = point.get("curve_number")
    if isinstance(at, int) and 0 <= at < len(traces):
        axis = traces[at].get("xaxis", "x")
        if axis in panels:
            return panels[axis]
    for side, places in sides.items():
        value = point.get(side)
        value = float(value) if isinstance(value, int | float) else value
        if value in places:
            return places[value]
    return None
