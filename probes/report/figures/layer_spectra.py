"""The spectrum of every layer: how its variance is shared out among directions."""

from __future__ import annotations

import pandas as pd

from probes.report.collapse_study import held, last_layer
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, figure, listed
from probes.report.figures.collapse_head import thinned
from probes.report.figures.focus import (
    Along,
    Focus,
    layer_lines,
    log_axis,
    selected_rows,
    standing_out,
)
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.frames import column, only, where
from probes.report.text import percent, significant

HOW_TO_READ = (
    "Singular values of the centred states of a layer, largest first, both axes logarithmic; one line per layer, "
    "from blue (first) to yellow (last). A flat line uses all its directions alike; a steep one, or one that begins "
    "far above the rest, lives in few of them. For the drawing at most 48 ranks of a layer are kept; all are in the "
    "CSV."
)


def layer_spectra(data: RunData, focus: Focus | None = None) -> FigureCard | None:
    """Spectra log–log, a line per layer; None when none was written."""
    frame = held(data, "spectra")
    if frame is None:
        return None
    focus = focus or Focus()
    return data.once(("layer-spectra", focus), lambda: _card(data, frame, focus))


def _card(data: RunData, frame: pd.DataFrame, focus: Focus) -> FigureCard:
    rows, title = selected_rows(frame, focus)
    rows = where(rows, column(rows, "singular_value") > 0)
    last = last_layer(data, rows)
    ordered = rows.sort_values(["layer", "rank"])
    few = pd.concat([thinned(own) for _, own in ordered.groupby("layer")])
    along = Along("rank", "direction")
    lines = layer_lines(few, along, focus, last, value="singular_value", band=False)
    # Strong lines have no markers either: a spectrum is a curve. Clicks need them, though, so they stay small.
    lines = [{**t, "marker": {**t["marker"], "size": 3}} for t in lines]
    sheet = Sheet(
        log_axis(column(few, "rank"), "direction, by size"), log_axis(column(few, "singular_value"))
    )
    told: list[str] = []
    for layer in standing_out(focus, [int(k) for k in column(few, "layer")]):
        own = only(ordered, layer=layer)
        first = column(own, "singular_value")[0]
        share = column(own, "share")[0]
        part = f" ({percent(share)} of the variance)" if share == share else ""
        told.append(f"layer {layer} begins at {significant(first)}{part}")
    return FigureCard(
        "layer-spectra",
        f"Singular values by layer{title}",
        arranged([Panel("", lines)], sheet),
        HOW_TO_READ,
        f"A line per layer, 0 to {last}, falling: {listed(told)}.",
        frame,
    )


@figure("layer-spectra", 62)
def _(data: RunData) -> FigureCard | None:
    return layer_spectra(data)
