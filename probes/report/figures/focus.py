"""What a reader looks at, and the lines that several figures of many layers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.report.collapse_study import of_dataset
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec
from probes.report.frames import column, names
from probes.report.text import clean, count, interval, number
from probes.report.theme import NEUTRAL, SELECTED, depth_colour, faded

ZERO = {"color": NEUTRAL, "width": 1, "dash": "dot"}


@dataclass(frozen=True)
class Focus:
    """The picked layer, None for none, and the dataset, None for the first."""

    layer: int | None = None
    dataset: str | None = None


Focused = Callable[[RunData, Focus], FigureCard | None]


def selected_rows(frame: pd.DataFrame, focus: Focus) -> tuple[pd.DataFrame, str]:
    """The rows of the dataset in focus, and what a title must add to say which it is."""
    rows = of_dataset(frame, focus.dataset)
    several = len(set(names(frame, "dataset"))) > 1
    return rows, f", {clean(names(rows, 'dataset')[0], 30)}" if several else ""


def standing_out(focus: Focus, layers: Sequence[int]) -> list[int]:
    """Layers that are drawn strongly: the picked one, else the first, the middle and the last."""
    held = sorted(set(layers))
    if focus.layer in held:
        return [focus.layer] if focus.layer is not None else []
    return sorted({held[0], held[len(held) // 2], held[-1]}) if held else []


@dataclass(frozen=True)
class Along:
    """The quantity along x: its column, what stands before and after its number in hover, its decimals."""

    column: str
    before: str = ""
    after: str = ""
    digits: int = 0

    def words(self, value: float) -> str:
        """The place in words."""
        shown = count(value) if self.digits == 0 else number(value, self.digits)
        return " ".join(part for part in (self.before, shown, self.after) if part)


def layer_lines(
    rows: pd.DataFrame,
    along: Along,
    focus: Focus,
    last: int,
    *,
    value: str = "value",
    band: bool = True,
    digits: int = 3,
) -> list[Spec]:
    """One line per layer in the colour of its depth; those in focus are strong, with their band. A click on any means
    its layer."""
    by_layer = {int(float(str(k))): own for k, own in rows.groupby("layer")}
    strong = standing_out(focus, list(by_layer))
    traces: list[Spec] = []
    for layer in [k for k in by_layer if k not in strong] + strong:
        own = by_layer[layer].sort_values(along.column)
        picked = layer == focus.layer
        colour = SELECTED if picked else depth_colour(layer, last)
        look = Look(f"layer {layer}", colour, width=2.6 if layer in strong else 1.1)
        made = line(own, along, look, value=value, band=band and layer in strong, digits=digits)
        for trace in made:
            trace["meta"] = {"layer": layer}
            if layer not in strong:
                # Without markers a line takes no clicks; these are there, but not seen.
                unseen = {"marker": {"opacity": 0}}
                trace |= {"showlegend": False, "opacity": 0.75}
                trace |= {"selected": unseen, "unselected": unseen}
                trace["marker"] = {**trace["marker"], "opacity": 0}
        traces += made
    return traces


@dataclass(frozen=True)
class Look:
    """How a line is called (a finished label) and drawn."""

    name: str
    colour: str
    dash: str = "solid"
    symbol: str = "circle"
    width: float = 2.2
    size: int = 6


def line(
    rows: pd.DataFrame,
    along: Along,
    look: Look,
    *,
    value: str = "value",
    ends: tuple[str, str] = ("low", "high"),
    band: bool = True,
    digits: int = 3,
) -> list[Spec]:
    """A line over any quantity, with its band below it where one is known."""
    x, y = column(rows, along.column), column(rows, value)
    low, high = (_known(rows, end) for end in ends)
    sizes = _known(rows, "n")
    hover = [
        f"<b>{along.words(a)}</b>, {look.name}<br>{number(b, digits)} {interval(c, d, digits)}".strip()
        + (f"<br>n = {count(n)}" if n == n else "")
        for a, b, c, d, n in zip(x, y, low, high, sizes, strict=True)
    ]
    common = {"type": "scatter", "name": look.name, "legendgroup": look.name}
    drawn = {
        **common,
        "x": x,
        "y": y,
        "mode": "lines+markers",
        "line": {"color": look.colour, "dash": look.dash, "width": look.width},
        "marker": {"symbol": look.symbol, "size": look.size, "color": look.colour},
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    inside = np.isfinite(low) & np.isfinite(high)
    if not band or not inside.any():
        return [drawn]
    return [{**common, **shade(x[inside], low[inside], high[inside], look.colour)}, drawn]


def shade(
    x: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    colour: str,
    alpha: float = 0.18,
) -> Spec:
    """The area between two curves; a band of a single place is a bar, so that it is seen."""
    return {
        "type": "scatter",
        "x": np.concatenate([x, x[::-1]]),
        "y": np.concatenate([high, low[::-1]]),
        "fill": "toself",
        "fillcolor": faded(colour, alpha),
        "mode": "lines",
        "line": {"width": 1.5 if len(x) == 1 else 0, "color": faded(colour, 0.6)},
        "marker": {},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _known(rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A column, NaN everywhere where the table has none."""
    return column(rows, name) if name in rows.columns else np.full(len(rows), np.nan)


def whiskers(
    value: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> Spec:
    """Error bars from intervals; where there is none, nothing."""
    return {
        "type": "data",
        "symmetric": False,
        "width": 0,
        "thickness": 1.3,
        "array": np.nan_to_num(np.maximum(high - value, 0)),
        "arrayminus": np.nan_to_num(np.maximum(value - low, 0)),
    }


def log_axis(values: Sequence[float] | NDArray[np.float64], name: str = "") -> Spec:
    """A logarithmic axis with a tick at each value while there is room, else at round numbers."""
    held = sorted({float(v) for v in values if v > 0})
    axis: Spec = {"type": "log", "showgrid": True}
    if name:
        axis["title"] = name
    if not held:
        return axis
    low, high = np.log10(held[0]), np.log10(held[-1])
    air = 0.04 * max(high - low, 0.3)
    axis["range"] = [low - air, high + air]
    if len(held) <= 9:
        return axis | {"tickvals": held, "ticktext": [_short(v) for v in held]}
    steps = (1, 2, 5) if high - low < 2 else (1,)
    powers = range(int(np.floor(low)), int(np.floor(high)) + 1)
    ticks = [s * 10.0**p for p in powers for s in steps if low <= np.log10(s * 10.0**p) <= high]
    return axis | {"tickvals": ticks, "ticktext": [_short(v) for v in ticks]}


def _short(value: float) -> str:
    """A tick in few characters.

    >>> _short(128.0), _short(100_000.0), _short(0.01)
    ('128', '100k', '0.01')
    """
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size and value % (size / 10) == 0:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
