"""The head's bottleneck and the space that [MASK] takes up."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import held, last_layer, numbers_of
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, figure
from probes.report.figures.focus import ZERO, Along, Focus, Look, line, log_axis
from probes.report.figures.marks import across
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis
from probes.report.frames import column, where
from probes.report.text import count, interval, number
from probes.report.theme import ACCENT, PALETTE

HOW_TO_READ = (
    "Left: bits per token when the head, the matrix from states to words, keeps its r strongest directions only. "
    "Where the curve is flat before the full width, the head does not need all the dimensions it has; where it "
    "still falls at the end, the width of the model is a bottleneck. Right: the head’s singular values, both axes "
    "logarithmic; the faster they fall, the fewer directions it uses."
)
_RANK = Along("rank", "rank")


def head_bottleneck(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Loss by rank of the head, and its spectrum; None when neither was measured."""
    loss, spectrum = held(data, "bottleneck"), held(data, "head_spectrum")
    if loss is None and spectrum is None:
        return None
    return data.once("collapse-bottleneck", lambda: _bottleneck_card(data, loss, spectrum))


def _bottleneck_card(
    data: RunData, loss: pd.DataFrame | None, spectrum: pd.DataFrame | None
) -> FigureCard:
    panels: list[Panel] = []
    told: list[str] = []
    if loss is not None:
        rows = loss.sort_values("rank")
        lines = line(rows, _RANK, Look("loss", PALETTE[0]), value="loss_bits")
        panels.append(Panel("bits per token", lines, axes={"x": log_axis(column(rows, "rank"))}))
        ends = [(column(rows, "rank")[at], column(rows, "loss_bits")[at]) for at in (0, -1)]
        told += [f"rank {count(rank)}: {number(value, 2)} bits per token" for rank, value in ends]
    if spectrum is not None:
        rows = thinned(spectrum.sort_values("rank"))
        lines = line(rows, _RANK, Look("singular value", ACCENT, size=3), value="singular_value")
        up = log_axis(column(rows, "singular_value"))
        panels.append(
            Panel("singular value", lines, axes={"x": log_axis(column(rows, "rank")), "y": up})
        )
        told.append(f"{len(spectrum)} singular values")
    distance = numbers_of(data, "head_spectrum_kl", by="")
    if len(distance):
        span = interval(column(distance, "low")[0], column(distance, "high")[0])
        value = number(column(distance, "value")[0])
        told.append(f"divergence of the spectrum from an even one {value} {span}".strip())
    panels = [
        Panel(p.title, [{**t, "showlegend": False} for t in p.traces], axes=p.axes) for p in panels
    ]
    sheet = Sheet({"title": "rank"}, {}, columns=2, height=220, own_y=True)
    return FigureCard(
        "collapse-bottleneck",
        "How many directions the head needs",
        arranged(panels, sheet),
        HOW_TO_READ,
        f"Curves over the rank of the head. {'; '.join(told)}.",
        loss if loss is not None else spectrum if spectrum is not None else pd.DataFrame(),
    )


def thinned(rows: pd.DataFrame, most: int = 48) -> pd.DataFrame:
    """At most `most` rows, evenly spaced on a logarithmic axis; the first and the last are kept."""
    if len(rows) <= most:
        return rows
    at = np.unique(np.round(np.geomspace(1, len(rows), most)).astype(int)) - 1
    keep = np.zeros(len(rows), dtype=bool)
    keep[at] = True
    return where(rows, keep)


MASK_HOW = (
    "How many directions the states of real tokens fill (effective rank) when the input holds [MASK] tokens, and "
    "when it holds none. A model that was trained with masks keeps directions for them which real tokens then "
    "cannot use: a ratio below one is that deficit (Meng et al. 2024)."
)


def mask_deficiency(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Effective rank with and without [MASK] over layers, and their ratio; None when it was not measured."""
    frame = held(data, "mask")
    return None if frame is None else data.once("collapse-mask", lambda: _mask_card(data, frame))


def _mask_card(data: RunData, frame: pd.DataFrame) -> FigureCard:
    rows = frame.sort_values("layer")
    last = last_layer(data, rows)
    by_layer = Along("layer", "layer")
    without = Look("without [MASK]", PALETTE[0])
    masked = Look("with [MASK]", PALETTE[1], "dash", "square")
    lines = [
        *line(
            rows, by_layer, without, value="without", ends=("without_low", "without_high"), digits=1
        ),
        *line(rows, by_layer, masked, value="with_mask", ends=("with_low", "with_high"), digits=1),
    ]
    panels = [Panel("effective rank of real tokens", lines)]
    known = where(rows, np.isfinite(column(rows, "ratio")))
    told = ""
    if len(known):
        ends = ("ratio_low", "ratio_high")
        ratio = line(known, by_layer, Look("ratio", PALETTE[2]), value="ratio", ends=ends)
        quiet = [{**trace, "showlegend": False} for trace in ratio]
        panels.append(Panel("with ÷ without", quiet, [across(1.0, ZERO)]))
        at = int(np.argmin(column(known, "ratio")))
        low, value, high, layer = (
            column(known, c)[at] for c in ("ratio_low", "ratio", "ratio_high", "layer")
        )
        told = f" The ratio is lowest at layer {layer:.0f}: {number(value)} {interval(low, high)}."
    return FigureCard(
        "collapse-mask",
        "Room for real tokens beside [MASK]",
        arranged(panels, Sheet(layer_axis(last), {}, columns=2, height=220, own_y=True)),
        MASK_HOW,
        f"Effective rank over layers 0 to {last}, with and without [MASK].{told}",
        frame,
    )


@figure("collapse-bottleneck", 240)
def _(data: RunData) -> FigureCard | None:
    return head_bottleneck(data)


@figure("collapse-mask", 245)
def _(data: RunData) -> FigureCard | None:
    return mask_deficiency(data)
