"""A figure with everything that must stand beside it, and the list of functions that make figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import pandas as pd
import plotly.graph_objects as go

from probes.registry import Registry
from probes.report.data import Cell, RunData
from probes.report.frames import Point
from probes.report.text import count, interval, number

Figure = Any  # plotly.graph_objects.Figure, whose stubs name no attribute that is used here
Spec = dict[str, Any]  # a figure as a plain object: {"data": [traces], "layout": {...}}


@dataclass(frozen=True)
class FigureCard:
    """One figure: `title` names quantity and unit, `data` is what its CSV download holds.

    `drawn` is a Plotly figure, or the same as a plain object, which costs no validation when marks are added.
    """

    id: str
    title: str
    drawn: Figure | Spec
    how_to_read: str
    alt: str
    data: pd.DataFrame

    @cached_property
    def figure(self) -> Figure:
        """As a Plotly figure."""
        return go.Figure(self.drawn) if isinstance(self.drawn, dict) else self.drawn

    @cached_property
    def spec(self) -> Spec:
        """As a plain object, arrays kept; to be copied before it is changed."""
        return cast("Spec", self.drawn) if isinstance(self.drawn, dict) else plain(self.drawn)


def plain(chart: Figure) -> Spec:
    """A Plotly figure as a plain object; its arrays stay arrays."""
    traces = [trace.to_plotly_json() for trace in chart.data]
    layout = chart.layout.to_plotly_json()
    layout.pop("template", None)  # Plotly's own; every reader of a card brings one
    return {"data": traces, "layout": layout}


@dataclass(frozen=True)
class Marks:
    """What a reader's eye should find in every figure: the chosen cell, a cell they picked, the asked share."""

    chosen: Cell | None = None
    selected: Cell | None = None
    budget: float | None = None

    @classmethod
    def of(cls, data: RunData) -> Marks:
        """The marks of the decision as it was written."""
        return cls(data.chosen, None, data.budget)


Builder = Callable[[RunData], FigureCard | None]

FIGURES: Registry[Builder] = Registry("figure")
_PLACES: dict[str, int] = {}


def figure(name: str, place: int) -> Callable[[Builder], Builder]:
    """Decorator: the report draws every registered figure that finds its data, lowest `place` first."""

    def decorate(builder: Builder) -> Builder:
        FIGURES.add(name, builder)
        _PLACES[name] = place
        return builder

    return decorate


def cards(data: RunData) -> list[FigureCard]:
    """All figures whose data are there, in reading order."""
    names = sorted(FIGURES, key=lambda name: (_PLACES[name], name))
    made = (FIGURES[name](data) for name in names)
    return [card for card in made if card is not None]


def value_text(point: Point, digits: int = 3) -> str:
    """Value, interval and n of a point, for hover."""
    span = interval(point.low, point.high, digits)
    size = f"<br>n = {count(point.n)}" if point.n == point.n else ""
    return f"{number(point.value, digits)}{' ' + span if span else ''}{size}"


def listed(words: list[str]) -> str:
    """Words joined as in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)
