"""A figure with everything that must stand beside it, and the list of functions that make figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from probes.registry import Registry
from probes.report.data import RunData
from probes.report.text import count, interval, number


@dataclass(frozen=True)
class FigureCard:
    """One figure: `title` names quantity and unit, `data` is what its CSV download holds."""

    id: str
    title: str
    figure: go.Figure
    how_to_read: str
    alt: str
    data: pd.DataFrame


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


def value_text(row: Any, digits: int = 3) -> str:
    """Value, interval and n of a row, for hover."""
    span = interval(row.low, row.high, digits)
    size = f"<br>n = {count(row.n)}" if row.n == row.n else ""
    return f"{number(row.value, digits)}{' ' + span if span else ''}{size}"


def listed(words: list[str]) -> str:
    """Words joined as in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
