"""Equal limits for figures that stand side by side, so that the same height means the same number in both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probes.report.figures import FigureCard

_AIR = 0.04


_VALUES_ON_X = (
    "concept-erasure",
    "concept-causal",
    "label-agreement",
    "collapse-remedies-layer",
    "sae-loss",
    "sae-concepts",
    "sae-effects",
)


def equal_limits(cards: list[FigureCard | None]) -> list[FigureCard | None]:
    """The cards with the same range on every axis of values, panel by panel, and the same colours.

    Panels share a range within a figure or stand in the same number; other figures are left as they are. Axes over
    layers stay: models differ in depth.
    """
    drawn = [card for card in cards if card is not None]
    if len(drawn) < 2:
        return cards
    ranges = [_ranges(card) for card in drawn]
    if all(len(set(held.values())) == 1 for held in ranges):  # one range for all panels
        everywhere = _union([next(iter(held.values())) for held in ranges])
        common = {name: everywhere for held in ranges for name in held}
    elif len({frozenset(held) for held in ranges}) == 1:
        common = {name: _union([held[name] for held in ranges]) for name in ranges[0]}
    else:
        common = {}
    colours = _colours(drawn)
    return [None if card is None else _limited(card, common, colours) for card in cards]


Range = tuple[float, float] | None


def _ranges(card: FigureCard) -> dict[str, Range]:
    """The range of every axis of values: its own, else that of its traces; None where it holds names."""
    side = "xaxis" if card.id in _VALUES_ON_X else "yaxis"
    found: dict[str, Range] = {}
    for name, axis in card.spec["layout"].items():
        if not name.startswith(side):
            continue
        low, high = axis.get("range") or (None, None)
        if low is not None and high is not None:
            found[name] = (float(low), float(high)) if low < high else None  # names run downwards
        elif axis.get("type", "linear") != "linear" or "ticktext" in axis:
            found[name] = None
        else:
            found[name] = _extent(card.spec["data"], name.replace("axis", ""))
    return found


def _extent(traces: list[dict[str, Any]], axis: str) -> Range:
    held: list[float] = []
    for trace in traces:
        if trace.get("yaxis", "y") != axis or trace.get("type") != "scatter":
            continue
        try:
            values = np.asarray(trace.get("y", ()), dtype=float)
        except (TypeError, ValueError):  # names
            return None
        held += [float(value) for value in values[np.isfinite(values)]]
    if not held:
        return None
    air = _AIR * max(max(held) - min(held), 1e-9)
    return min(held) - air, max(held) + air


def _union(ranges: list[Range]) -> Range:
    known = [held for held in ranges if held is not None]
    if len(known) < len(ranges) or not known:
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def _colours(cards: list[FigureCard]) -> tuple[float, float] | None:
    """The common ends of the colour scale, None where a figure does not say its own."""
    axes = [card.spec["layout"].get("coloraxis", {}) for card in cards]
    if any("cmin" not in axis or "cmax" not in axis for axis in axes):
        return None
    return min(float(a["cmin"]) for a in axes), max(float(a["cmax"]) for a in axes)


def _limited(
    card: FigureCard, ranges: dict[str, Range], colours: tuple[float, float] | None
) -> FigureCard:
    layout = dict(card.spec["layout"])
    for name, held in ranges.items():
        if held is not None and name in layout:
            layout[name] = {**layout[name], "range": list(held)}
    if colours is not None:
        low, high = colours
        layout["coloraxis"] = {**layout["coloraxis"], "cmin": low, "cmax": high}
    return replace(card, drawn={"data": card.spec["data"], "layout": layout})
