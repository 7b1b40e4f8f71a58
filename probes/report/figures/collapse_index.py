"""What a larger index does to retrieval: recall against the number of distractors."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import held
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import Along, Focus, Look, line, log_axis, selected_rows
from probes.report.figures.panels import Panel, Sheet, arranged, padded
from probes.report.frames import column, only, where
from probes.report.text import count, interval, number
from probes.report.theme import NEUTRAL, style_at

HOW_TO_READ = (
    "Share of queries whose answer is among the first k results, against the number of documents that compete with "
    "it: the expected value over every choice of that many distractors from the pool, exact, with a 95 % band over "
    "queries. One line per number of dimensions kept. Where a narrow line falls faster than a wide one, a small index "
    "hides what a large one will show. A ring marks the smallest index in which a width is shown to lose to the full "
    "one (by more than a hundredth, paired by query, 95 %); a line without one is not shown to, at any size. "
    "Dotted, where another layer is picked: the last layer read, at full width."
)
_AT = Along("distractors", after="distractors")


def index_size(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Recall@k against distractors at the picked layer, by default the last; None when it was not measured."""
    frame = held(data, "index_size")
    if frame is None:
        return None
    focus = focus or Focus()
    rows, title = selected_rows(frame, focus)
    layers = {int(k) for k in column(rows, "layer")}
    layer = focus.layer if focus.layer is not None and focus.layer in layers else max(layers)
    key = ("collapse-index", layer, focus.dataset)
    held_ = held(data, "index_breaks")
    breaks = None if held_ is None else only(selected_rows(held_, focus)[0], layer=layer)
    return data.once(key, lambda: _card(frame, rows, breaks, layer, title))


def _card(
    frame: pd.DataFrame, rows: pd.DataFrame, breaks: pd.DataFrame | None, layer: int, title: str
) -> FigureCard:
    rows = where(rows, column(rows, "distractors") >= 1)
    own = only(rows, layer=layer)
    last = int(column(rows, "layer").max())
    dims = sorted({int(d) for d in column(own, "dim")})
    ks = sorted({int(k) for k in column(own, "k")})
    panels: list[Panel] = []
    told: list[str] = []
    for k in ks:
        traces: list[Spec] = []
        for at, dim in enumerate(reversed(dims)):
            line_rows = only(own, k=k, dim=dim).sort_values("distractors")
            style = style_at(at)
            look = Look(f"{count(dim)} dimensions", style["color"], style["dash"], style["symbol"])
            traces += line(line_rows, _AT, look, value="recall")
            told.append(_fall(line_rows, k, dim))
            if breaks is not None:
                rings, words = _break(line_rows, only(breaks, k=k, dim=dim), look)
                traces += rings
                told.append(words)
        if layer != last:
            full = only(rows, layer=last, k=k, dim=dims[-1]).sort_values("distractors")
            reference = Look(f"last layer, {count(dims[-1])} dimensions", NEUTRAL, "dot", size=4)
            traces = [*line(full, _AT, reference, value="recall", band=False), *traces]
        panels.append(Panel(f"recall at {k}", traces))
    ends = [v for c in ("recall", "low", "high") for v in column(rows, c)]
    heights = padded(ends, 0.0, 1.0)
    x = log_axis(column(own, "distractors"), "documents that compete")
    return FigureCard(
        "collapse-index",
        f"Recall against index size, layer {layer}{title}",
        arranged(panels, Sheet(x, {"range": heights, "tickformat": ".2~f"}, columns=2, height=240)),
        HOW_TO_READ,
        f"Layer {layer}. {'; '.join(words for words in told if words)}.",
        frame,
    )


def _break(line_rows: pd.DataFrame, own: pd.DataFrame, look: Look) -> tuple[list[Spec], str]:
    """A ring where a width is first shown to lose to the full one, and the same in words; nothing where it is not."""
    size = column(own, "distractors")
    if not len(size) or not np.isfinite(size[0]):
        return [], ""
    value, low, high = (column(own, name)[0] for name in ("difference", "low", "high"))
    words = f"loses to the full width from {count(size[0])} on, by {number(value)} {interval(low, high)} there"
    at = only(line_rows, distractors=size[0])
    ring: Spec = {
        "type": "scatter",
        "x": column(at, "distractors"),
        "y": column(at, "recall"),
        "mode": "markers",
        "marker": {
            "symbol": "circle-open", "size": 13, "color": look.colour, "line": {"width": 2.2},
        },
        "name": f"{look.name} break",
        "legendgroup": look.name,
        "showlegend": False,
        "customdata": [f"<b>{look.name}</b><br>{words}"] * len(at),
        "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip
    return [ring], f"{look.name} {words}"


def _fall(rows: pd.DataFrame, k: int, dim: int) -> str:
    if rows.empty:
        return ""
    recall, size = column(rows, "recall"), column(rows, "distractors")
    low, high = (column(rows, end)[-1] for end in ("low", "high"))
    known = f" {interval(low, high)}" if np.isfinite(low) else ""
    return (
        f"recall at {k} with {dim} dimensions from {number(recall[0])} among {count(size[0])} to "
        f"{number(recall[-1])}{known} among {count(size[-1])}"
    )


@figure("collapse-index", 235)
def _(data: RunData) -> FigureCard | None:
    return index_size(data)
