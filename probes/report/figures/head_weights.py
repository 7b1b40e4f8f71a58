"""How many directions heads have in their weights, and how many the best ones need."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probes.report.collapse_study import ordered
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.collapse_head import thinned
from probes.report.figures.focus import Along, Look, line, log_axis, shade
from probes.report.figures.head_ablation import measure_words
from probes.report.figures.panels import Panel, Sheet, arranged
from probes.report.frames import column, names, only
from probes.report.head_tables import HeadFocus, HeadId, head_name, held, is_heads, ranking
from probes.report.text import label, number
from probes.report.theme import ACCENT, NEUTRAL, PALETTE, SELECTED

SPECTRA_HOW = (
    "Singular values of what a head looks for (QK) and of what it copies (OV), both axes logarithmic. Grey: the "
    "middle 80 % of all heads. A line that falls early uses few directions."
)


def head_spectra(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Spectra of the picked and the best head within those of all; None when they were not kept."""
    frame = held(data, "head_spectra") if is_heads(data) else None
    if frame is None:
        return None
    picked = None if focus is None else focus.head
    return data.once(("head-spectra", picked), lambda: _spectra_card(data, frame, picked))


def _spectra_card(data: RunData, frame: pd.DataFrame, picked: HeadId | None) -> FigureCard:
    top = ranking(data)[:1]
    best = (int(top[0]["block"]), int(top[0]["head"])) if top else None
    shown = [(head, f"best head {head_name(*head)}", ACCENT) for head in (best,) if head]
    if picked is not None and picked != best:
        shown.append((picked, f"picked head {head_name(*picked)}", SELECTED))
    panels: list[Panel] = []
    told: list[str] = []
    kept: list[pd.DataFrame] = []  # what is drawn
    for circuit in ordered(names(frame, "circuit"), ["QK", "OV"]):
        rows = only(frame, circuit=circuit)
        spread = (
            rows.groupby("rank")["singular_value"].quantile(np.array([0.1, 0.5, 0.9])).unstack()
        )
        ranks = np.asarray(spread.index, dtype=float)
        low, middle, high = (np.asarray(spread[q], dtype=float) for q in (0.1, 0.5, 0.9))
        for q, name in (
            (0.1, "10 % of heads below"),
            (0.5, "median"),
            (0.9, "90 % of heads below"),
        ):
            part = {"heads": name, "circuit": circuit, "rank": ranks, "singular_value": spread[q]}
            kept.append(pd.DataFrame(part))
        keep = thinned(pd.DataFrame({"rank": ranks})).index.to_numpy()
        band = shade(ranks[keep], low[keep], high[keep], NEUTRAL, 0.3)
        median = pd.DataFrame({"rank": ranks, "value": middle}).iloc[keep]
        by_rank = Along("rank", "rank")
        traces = [
            {**band, "name": "all heads", "legendgroup": "all heads"},
            *line(median, by_rank, Look("all heads", NEUTRAL, "dash", size=3)),
        ]
        for head, name, colour in shown:
            own = only(rows, block=head[0], head=head[1]).sort_values("rank")
            if len(own):
                kept.append(own.assign(heads=head_name(*head)))
                traces += line(
                    thinned(own), by_rank, Look(name, colour, size=3), value="singular_value"
                )
        axes = {"x": log_axis(ranks), "y": log_axis(column(rows, "singular_value"))}
        panels.append(Panel(label(circuit, 20), traces, axes=axes))
        told.append(f"{circuit}: median from {number(middle[0])} to {number(middle[-1])}")
    sheet = Sheet({"title": "rank"}, {}, columns=2, height=230, own_y=True)
    return FigureCard(
        "head-spectra",
        "Singular values of heads",
        arranged(panels, sheet),
        SPECTRA_HOW,
        f"{len(panels)} panels over rank; {'; '.join(told)}.",
        pd.concat(kept, ignore_index=True).filter(["heads", "circuit", "rank", "singular_value"]),
    )


LOW_RANK_HOW = (
    "The best retrieval heads keep only the r strongest directions of what they look for (QK) or copy (OV); grey: as "
    "many random heads. Bands are 95 % intervals over items. Where the line is flat, the heads do with that many "
    "directions."
)
_LOW_RANK = {
    "top": Look("best heads", ACCENT),
    "random": Look("random heads", NEUTRAL, "dot", "diamond"),
}


def low_rank_curves(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Measures over the rank that heads keep; None when not measured."""
    frame = held(data, "low_rank") if is_heads(data) else None
    return None if frame is None else data.once("head-low-rank", lambda: _low_rank_card(frame))


def _low_rank_card(frame: pd.DataFrame) -> FigureCard:
    panels: list[Panel] = []
    told: list[str] = []
    for circuit in ordered(names(frame, "circuit"), ["QK", "OV"]):
        for measure in ordered(names(only(frame, circuit=circuit), "measure"), ["needle_accuracy"]):
            rows = only(frame, circuit=circuit, measure=measure)
            traces: list[Spec] = []
            for kind in ordered(names(rows, "heads"), ["random", "top"]):
                own = only(rows, heads=kind).sort_values("rank")
                look = _LOW_RANK.get(kind, Look(label(kind, 20), PALETTE[0]))
                traces += line(own, Along("rank", "rank"), look)
                if kind == "top":
                    ends = column(own, "value")
                    told.append(
                        f"{circuit}, {measure_words(measure)}: {number(ends[0])} to {number(ends[-1])}"
                    )
            panels.append(
                Panel(f"{label(circuit, 10)}: {label(measure_words(measure), 36)}", traces)
            )
    x = log_axis(column(frame, "rank"), "directions kept per head, r")
    return FigureCard(
        "head-low-rank",
        "How many directions the best heads need",
        arranged(panels, Sheet(x, {}, columns=2, height=200, own_y=True)),
        LOW_RANK_HOW,
        f"{len(panels)} panels over the rank kept, best heads from least to most: {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )


@figure("head-spectra", 334)
def _(data: RunData) -> FigureCard | None:
    return head_spectra(data)


@figure("head-low-rank", 336)
def _(data: RunData) -> FigureCard | None:
    return low_rank_curves(data)
