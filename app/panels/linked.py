"""From a click in a figure to the concept it means: by the panel it fell into, or by the name beside the point."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from probes.report.figures import FigureCard
from probes.report.figures.concept_depth import concept_title
from probes.report.study import Study
from probes.report.text import label

_LENGTHS = range(20, 61, 2)  # that figures cut names to
_AFTER = re.compile(r" <| · layer ")
_CELLS = 1000  # of a matrix that can be clicked

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


def clickable(card: FigureCard | None) -> FigureCard | None:
    """The card with an invisible square over every cell of a matrix: a heatmap alone gives no clicks."""
    if card is None or len(card.spec["data"]) != 1 or card.spec["data"][0].get("type") != "heatmap":
        return card
    heat = card.spec["data"][0]
    texts = np.asarray(heat.get("customdata", ()), dtype=object)
    if texts.ndim != 2 or texts.size > _CELLS:
        return card
    over = squares(heat)
    quiet = {k: v for k, v in heat.items() if k != "hovertemplate"} | {"hoverinfo": "skip"}
    return replace(card, drawn={"data": [quiet, over], "layout": card.spec["layout"]})


def squares(heat: dict[str, Any], size: float = 22) -> dict[str, Any]:
    """One invisible square over every cell of a heatmap that has a text, row by row, with that text."""
    texts = np.asarray(heat["customdata"], dtype=object)
    rows, columns = np.nonzero(texts != "")
    return {
        "type": "scatter",
        "x": np.asarray(heat["x"])[columns],
        "y": np.asarray(heat["y"])[rows],
        "mode": "markers",
        # Where squares overlap, Plotly takes the last one, not the nearest: they stay narrower than a cell.
        "marker": {"symbol": "square", "size": size, "opacity": 0},
        "selected": {"marker": {"opacity": 0}},
        "unselected": {"marker": {"opacity": 0}},
        "customdata": [str(texts[at]) for at in zip(rows, columns, strict=True)],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }


def _labels(study: Study) -> dict[str, str]:
    """Concepts by every label that figures give them; those that share a label cannot be told apart."""
    found: dict[str, str] = {}
    for concept in study.concepts:
        found[concept_title(concept)] = concept.name
        found |= {label(concept.name, limit): concept.name for limit in _LENGTHS}
    return found


def _title(text: object) -> str:
    """The name in a panel's title, without its family or the layer that may follow."""
    return _AFTER.split(str(text))[0]


def _panels(layout: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    """Concepts by the axis of their panel: a title stands at its upper left corner."""
    titles = {
        (note.get("x"), note.get("y")): names[title]
        for note in layout.get("annotations", ())
        if (title := _title(note.get("text"))) in names
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
