"""Which heads feed later heads: composition of their weights against random matrices of the same spectra."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import ordered, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.head_grid import block_axis
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.frames import column, names, only, where
from probes.report.head_tables import HeadFocus, HeadId, head_name, held, is_heads
from probes.report.text import clean, interval, number
from probes.report.theme import MAGNITUDE, NEUTRAL, PALETTE

_PAIRS = 12  # pairs per kind that are drawn
_KEPT = 200  # pairs in the table beside the heatmaps, the strongest
_KINDS = {"Q": "queries", "K": "keys", "V": "values"}
PAIRS_HOW = (
    "How strongly what one head writes is read by a later one through its queries, keys or values: ‖AB‖/(‖A‖‖B‖) of "
    "their weights, the strongest pairs of each kind. Grey bars: what random matrices with the same singular values "
    "give. Of thousands of pairs some lie above that by chance: coloured are pairs above what the highest of all of "
    "them would reach."
)


def kind_words(kind: str) -> str:
    """A kind of composition in words."""
    return _KINDS.get(kind, clean(kind, 20))


def whole_pairs(data: RunData) -> pd.DataFrame | None:
    """Composition of whole matrices with `excess` over the floor, None when not measured.

    That is what the highest of all pairs reaches by chance; the upper end for a single pair where that is unknown.
    """
    frame = held(data, "composition") if is_heads(data) else None
    if frame is None:
        return None
    rows = where(frame, ~np.isfinite(column(frame, "component")))
    if rows.empty:
        return None
    floor = column(rows, "floor_max_high")
    floor = np.where(np.isfinite(floor), floor, column(rows, "floor_high"))
    floor = np.where(np.isfinite(floor), floor, column(rows, "floor"))
    return rows.assign(excess=column(rows, "value") - np.nan_to_num(floor))


def composition_pairs(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """The strongest pairs of each kind against their floor; None when composition was not measured."""
    picked = None if focus is None else focus.head
    rows = whole_pairs(data)
    if rows is None:
        return None
    return data.once(("head-composition", picked), lambda: _pairs_card(rows, picked))


def _pairs_card(rows: pd.DataFrame, picked: HeadId | None) -> FigureCard:
    panels: list[Panel] = []
    told: list[str] = []
    kept: list[pd.DataFrame] = []
    for kind in ordered(names(rows, "kind"), list(_KINDS)):
        own = only(rows, kind=kind)
        if picked is not None:
            sides = [
                (column(own, f"block_{end}") == picked[0]) & (column(own, f"head_{end}") == picked[1])
                for end in ("from", "to")
            ]  # fmt: skip
            mine = where(own, sides[0] | sides[1])
            own = own if mine.empty else mine
        best = own.sort_values("excess", ascending=False, kind="stable").head(_PAIRS)
        kept.append(best)
        panels.append(_pairs_panel(best, kind))
        top = records(best)[0]
        told.append(
            f"{kind_words(kind)}: {_pair(top)} {number(top['value'])}, floor {number(top['floor'])}"
        )
    high = max(float(column(frame, "value").max()) for frame in kept)
    sheet = Sheet(
        {"title": "composition", "range": [0, high * 1.4]},
        {"range": [_PAIRS - 0.4, -0.6], "showgrid": False, "showticklabels": False},
        columns=3,
        height=18 * _PAIRS + 8,
        left=16,
    )
    which = "" if picked is None else f" with head {head_name(*picked)}"
    return FigureCard(
        "head-composition",
        f"Heads that feed later heads: the strongest pairs{which}",
        arranged(panels, sheet),
        PAIRS_HOW,
        f"{len(panels)} panels of at most {_PAIRS} pairs. {'; '.join(told)}.",
        pd.concat(kept, ignore_index=True).drop(columns="dataset"),
    )


def _pair(row: dict[str, float]) -> str:
    return f"{head_name(row['block_from'], row['head_from'])} → {head_name(row['block_to'], row['head_to'])}"


def _pairs_panel(rows: pd.DataFrame, kind: str) -> Panel:
    held_rows = records(rows)
    y = np.arange(len(held_rows))
    value = column(rows, "value")
    low, high = (column(rows, name) for name in ("floor_low", "floor_high"))
    colours = [PALETTE[0] if row["excess"] > 0 else NEUTRAL for row in held_rows]
    hover = [
        f"<b>{_pair(row)}</b>, {kind_words(kind)}<br>{number(row['value'])}<br>random {number(row['floor'])} "
        f"{interval(row['floor_low'], row['floor_high'])}, the highest of all {number(row['floor_max_high'])}"
        for row in held_rows
    ]
    spots: Spec = {
        "type": "scatter",
        "x": value,
        "y": y,
        "mode": "markers+text",
        "text": [f"  {_pair(row)}" for row in held_rows],
        "textposition": "middle right",
        "textfont": {"size": 11, "color": NEUTRAL},
        "name": "pair of heads",
        "marker": {"size": 9, "color": colours},
        "meta": {"heads": [[int(row["block_to"]), int(row["head_to"])] for row in held_rows]},
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    known = np.isfinite(low) & np.isfinite(high)
    floor: Spec = {
        "type": "bar",
        "orientation": "h",
        "name": "random matrices",
        "x": (high - low)[known],
        "base": low[known],
        "y": y[known],
        "width": 0.7,
        "marker": {"color": NEUTRAL, "opacity": 0.5},
        "hoverinfo": "skip",
    }
    return Panel(kind_words(kind), [floor, spots])


BLOCKS_HOW = (
    "The strongest pair of heads between each two blocks, less what random matrices with the same singular values "
    "give at most (95 %): dark is chance. The writing block on x, the reading one on y; reading blocks come later."
)


def composition_blocks(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Heatmaps writing × reading block of the strongest excess; None when composition was not measured."""
    rows = whole_pairs(data)
    return (
        None if rows is None else data.once("head-composition-blocks", lambda: _blocks_card(rows))
    )


def _blocks_card(rows: pd.DataFrame) -> FigureCard:
    last = int(max(column(rows, "block_from").max(), column(rows, "block_to").max()))
    between = ["kind", "block_from", "block_to"]  # of these the strongest pair is shown
    best = rows.sort_values("excess", ascending=False, kind="stable").drop_duplicates(between)
    panels: list[Panel] = []
    told: list[str] = []
    for kind in ordered(names(rows, "kind"), list(_KINDS)):
        own, shown = only(rows, kind=kind), only(best, kind=kind)
        z = np.full((last + 1, last + 1), np.nan)
        hover = np.full(z.shape, "", dtype=object)
        for row in records(shown):
            at = int(row["block_to"]), int(row["block_from"])
            z[at] = max(row["excess"], 0.0)
            hover[at] = f"<b>{_pair(row)}</b><br>{number(row['excess'])} above random"
        heat: Spec = {
            "type": "heatmap",
            "x": np.arange(last + 1),
            "y": np.arange(last + 1),
            "z": z,
            "coloraxis": "coloraxis",
            "customdata": hover,
            "hovertemplate": "%{customdata}<extra></extra>",
            "hoverongaps": False,
            "showlegend": False,
        }
        panels.append(Panel(kind_words(kind), [heat]))
        above = int((column(own, "excess") > 0).sum())
        told.append(f"{kind_words(kind)}: {above} of {len(own)} pairs above random")
    side = block_axis(last, 7)
    sheet = Sheet({**side, "title": "block that writes"}, side, columns=3, height=240, right=76)
    spec = arranged(panels, sheet)
    spec["layout"]["coloraxis"] = {
        "colorscale": MAGNITUDE,
        "cmin": 0.0,
        "cmax": float(max(column(rows, "excess").max(), 1e-6)),
        "colorbar": {"thickness": 12, "nticks": 6},
    }
    return FigureCard(
        "head-composition-blocks",
        "Composition between blocks, above random matrices (reading block on y)",
        spec,
        BLOCKS_HOW,
        f"{len(panels)} heatmaps over blocks 0 to {last}. {'; '.join(told)}.",
        best.head(_KEPT).sort_values(between).drop(columns="dataset"),
    )


@figure("head-composition", 330)
def _(data: RunData) -> FigureCard | None:
    return composition_pairs(data)


@figure("head-composition-blocks", 332)
def _(data: RunData) -> FigureCard | None:
    return composition_blocks(data)
