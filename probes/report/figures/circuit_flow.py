"""How information flows: through label words, into a map of an unseen graph, and through neurons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import last_layer, ordered, records
from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.figures.focus import ZERO, Along, Focus, Look, layer_lines, line, log_axis
from probes.report.figures.marks import across
from probes.report.figures.panels import Panel, Sheet, arranged, layer_axis, padded
from probes.report.frames import column, names, only, where
from probes.report.head_tables import HeadFocus, held, is_circuits
from probes.report.text import clean, label, number
from probes.report.theme import NEUTRAL, PALETTE

_FLOWS = {
    "wp": Look("texts → label words", PALETTE[0]),
    "pq": Look("label words → answer", PALETTE[1], "dash", "square"),
    "ww": Look("all other flow", PALETTE[2], "dashdot", "triangle-up"),
}
FLOW_HOW = (
    "How strongly the loss depends on attention (|attention × gradient|) between parts of a prompt with worked "
    "examples: from their texts into their labels, from the labels into the place of the answer, and between all "
    "other tokens. Thin dotted lines: the same with random labels. If labels gather information in early blocks and "
    "hand it on in later ones, the first line falls and the second rises."
)


def label_flow(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Saliency flows over blocks, a panel per dataset; None when not measured."""
    frame = held(data, "saliency") if is_circuits(data) else None
    return None if frame is None else data.once("circuit-flow", lambda: _flow_card(frame))


def _flow_card(frame: pd.DataFrame) -> FigureCard:
    last = int(column(frame, "block").max())
    panels: list[Panel] = []
    told: list[str] = []
    for dataset in dict.fromkeys(names(frame, "dataset")):
        rows = only(frame, dataset=dataset)
        traces: list[Spec] = []
        for flow in ordered(names(rows, "flow"), list(_FLOWS)):
            look = _FLOWS.get(flow, Look(label(flow, 20), PALETTE[3]))
            for variant in ("random-labels", ""):
                own = only(rows, flow=flow, variant=variant).sort_values("block")
                if own.empty:
                    continue
                if variant:
                    thin = Look("random labels", look.colour, "dot", look.symbol, 1.2, 3)
                    traces += line(own, Along("block", "block"), thin, band=False)
                    continue
                traces += line(own, Along("block", "block"), look)
                best = max(records(own), key=lambda row: row["value"])
                told.append(
                    f"{look.name} most at block {best['block']:.0f} ({number(best['value'])})"
                )
        panels.append(Panel(label(dataset, 40), traces))
    x = {**layer_axis(last), "title": "block"}
    return FigureCard(
        "circuit-flow",
        "Flow of information through label words",
        arranged(panels, Sheet(x, {"rangemode": "tozero"}, columns=2, height=230, own_y=True)),
        FLOW_HOW,
        f"Flows over blocks 0 to {last}: {'; '.join(told)}.",
        frame,
    )


ENERGY_HOW = (
    "The model reads a walk on a graph of words that it cannot know. Energy: how far states of neighbouring words "
    "lie apart, divided by the same with the words permuted; below 1 (dotted) neighbours lie together. They do so a "
    "little in any model, as neighbours in the graph are neighbours in time: grey diamonds have the same last tokens "
    "after a walk on another graph, and only what lies below them is learned from the context. Bands are 95 % "
    "intervals. Lines from blue (first layer) to yellow (last)."
)
TRACE = 0.01  # energy: untrained models come to 0.005


def graph_energy(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Normalised Dirichlet energy against context length, a line per layer; None when not measured."""
    frame = held(data, "graph") if is_circuits(data) else None
    return None if frame is None else data.once("circuit-graph", lambda: _energy_card(data, frame))


def relative_energy(frame: pd.DataFrame) -> pd.DataFrame:
    """Energy over that of permuted nodes: value, low, high; as it is where nothing was permuted."""
    by = column(frame, "permuted")
    by = np.where(np.isfinite(by) & (by > 0), by, 1.0)
    return frame.assign(
        value=column(frame, "energy") / by,
        low=column(frame, "low") / by,
        high=column(frame, "high") / by,
    )


def taught_energy(frame: pd.DataFrame) -> tuple[bool, dict[str, Any]] | None:
    """Whether the context is shown to bring neighbours together, and the row that shows it most; None if unknown.

    The energy must lie below that of the rewired walk at some layer, with bounds for all layers together, and by more
    than models do that have learned nothing.
    """
    known = where(
        only(frame, variant=""), np.isfinite(column(only(frame, variant=""), "difference"))
    )
    rows = records(known)
    rows = [row for row in rows if row["context"] == max(row["context"] for row in rows)]
    sure = [row for row in rows if row["difference_high"] < 0 and row["difference"] <= -TRACE]
    best = min(sure or rows, key=lambda row: row["difference"], default=None)
    return None if best is None else (bool(sure), best)


def _energy_card(data: RunData, frame: pd.DataFrame) -> FigureCard:
    rows = relative_energy(only(frame, variant=""))
    last = last_layer(data, rows)
    traces = layer_lines(rows, Along("context", "", "tokens"), Focus(), last)
    for trace in traces:
        trace.pop("meta", None)
    control = relative_energy(only(frame, variant="rewired"))
    if len(control):
        traces.append(_control(control, last))
    longest = where(rows, column(rows, "context") == column(rows, "context").max())
    best = min(records(longest), key=lambda row: row["value"])
    x = log_axis(column(rows, "context"), "")
    layout: Spec = {
        "height": 320,
        "margin": {"l": 60, "r": 24, "t": 44, "b": 50},
        "legend": {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"},
        "xaxis": {**x, "title": {"text": "tokens of the walk"}},
        "yaxis": {"title": {"text": "energy ÷ permuted"}},
        "shapes": [across(1.0, ZERO, layer="below")],
    }
    return FigureCard(
        "circuit-graph",
        "How the graph of words forms in the states",
        {"data": traces, "layout": layout},
        ENERGY_HOW,
        f"Lines for layers 0 to {last} over the length of the walk. After {best['context']:.0f} tokens the energy is "
        f"lowest at layer {best['layer']:.0f}: {number(best['value'])} of that of permuted words.",
        frame.drop(columns="dataset"),
    )


def _control(rows: pd.DataFrame, last: int) -> Spec:
    """Every layer's energy of the rewired walk as a grey mark."""
    value = column(rows, "value")
    return {
        "type": "scatter", "name": "after another graph", "mode": "markers", "x": column(rows, "context"), "y": value,
        "marker": {"symbol": "diamond-open", "size": 7, "color": NEUTRAL},
        "customdata": [
            f"<b>layer {layer:.0f} of {last}</b>, after another graph<br>{number(v)}"
            for layer, v in zip(column(rows, "layer"), value, strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip


MAP_HOW = (
    "Mean states of the words in the plane in which they differ most (PCA), after the longest walk; lines join words "
    "that are neighbours in the graph. Where the graph has formed, its shape is seen; the plane is chosen anew per "
    "layer and may be turned or mirrored."
)
_MAPS = 6


def graph_maps(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """PCA of the words by layer with the edges of the graph; None when it was not kept."""
    frame = held(data, "graph_nodes") if is_circuits(data) else None
    if frame is None:
        return None
    return data.once("circuit-graph-map", lambda: _maps_card(data, frame))


def _maps_card(data: RunData, frame: pd.DataFrame) -> FigureCard:
    layers = sorted({int(k) for k in column(frame, "layer")})
    at = np.unique(np.round(np.linspace(0, len(layers) - 1, min(_MAPS, len(layers)))).astype(int))
    edges = held(data, "graph_edges")
    pairs = [] if edges is None else list(zip(column(edges, "a"), column(edges, "b"), strict=True))
    panels = [_map(only(frame, layer=layers[k]), pairs, f"layer {layers[k]}") for k in at]
    bare: Spec = {"showgrid": False, "zeroline": False, "showticklabels": False}
    return FigureCard(
        "circuit-graph-map",
        "Words of the graph in the states",
        arranged(panels, Sheet(bare, bare, columns=3, height=190)),
        MAP_HOW,
        f"{len(panels)} maps of {len(set(names(frame, 'word')))} words, layers {layers[0]} to {layers[-1]}, with "
        f"{len(pairs)} edges.",
        frame.drop(columns="dataset"),
    )


def _map(rows: pd.DataFrame, pairs: list[tuple[float, float]], title: str) -> Panel:
    x, y = column(rows, "x"), column(rows, "y")
    place = {int(node): k for k, node in enumerate(column(rows, "node"))}
    lines_x: list[float | None] = []
    lines_y: list[float | None] = []
    for a, b in pairs:
        if int(a) in place and int(b) in place:
            ends = place[int(a)], place[int(b)]
            lines_x += [*(float(x[k]) for k in ends), None]
            lines_y += [*(float(y[k]) for k in ends), None]
    edges: Spec = {
        "type": "scatter", "name": "edges", "x": lines_x, "y": lines_y, "mode": "lines", "hoverinfo": "skip",
        "line": {"color": NEUTRAL, "width": 1},
    }  # fmt: skip
    nodes: Spec = {
        "type": "scatter",
        "name": "words",
        "x": x,
        "y": y,
        "mode": "markers+text" if len(rows) <= 20 else "markers",
        "marker": {"size": 7, "color": PALETTE[0]},
        "text": [label(word, 16) for word in names(rows, "word")],
        "textposition": "top center",
        "textfont": {"size": 11},
        "customdata": [f"<b>{label(word, 30)}</b>" for word in names(rows, "word")],
        "hovertemplate": "%{customdata}<extra></extra>",
        "cliponaxis": False,
    }
    axes = {"x": {"range": _wide(x)}, "y": {"range": _wide(y)}}
    return Panel(title, [{**t, "showlegend": False} for t in (edges, nodes)], axes=axes)


def _wide(values: np.ndarray) -> list[float]:
    """A range with room for words at its ends."""
    low, high = padded(values, float(values.min()), float(values.max()))
    air = 0.18 * max(high - low, 1e-6)
    return [low - air, high + air]


_NEURONS = {
    "activation_sparsity": "share of silent neurons",
    "core_stability": "core neurons kept as the text grows",
    "core_similarity": "shared core neurons against similarity",
}
NEURONS_HOW = (
    "Neurons of the MLPs: the share that is all but silent; how many of a sentence’s core neurons stay the same as "
    "it grows (overlap); and whether sentences that mean the same share more of them (rank correlation). Grey: "
    "random pairs. Bands are 95 % intervals."
)


def neuron_lines(data: RunData, focus: HeadFocus | None = None) -> FigureCard | None:
    """Sparsity and core neurons over blocks; None when not measured."""
    frame = held(data, "neurons") if is_circuits(data) else None
    return None if frame is None else data.once("circuit-neurons", lambda: _neurons_card(frame))


def _neurons_card(frame: pd.DataFrame) -> FigureCard:
    last = int(column(frame, "block").max())
    panels: list[Panel] = []
    told: list[str] = []
    for measure in ordered(names(frame, "measure"), list(_NEURONS)):
        rows = only(frame, measure=measure)
        traces: list[Spec] = []
        for variant, look in (
            ("random", Look("random pairs", NEUTRAL, "dot", "diamond")),
            ("", Look("measured", PALETTE[0])),
        ):
            own = only(rows, variant=variant).sort_values("block")
            if len(own):
                traces += line(own, Along("block", "block"), look)
            if len(own) and not variant:
                ends = column(own, "value")
                told.append(
                    f"{_NEURONS.get(measure, clean(measure, 30))} {number(ends[0])} to {number(ends[-1])}"
                )
        panels.append(Panel(_NEURONS.get(measure, label(measure, 40)), traces))
    x = {**layer_axis(last), "title": "block"}
    return FigureCard(
        "circuit-neurons",
        "Neurons of the MLPs",
        arranged(panels, Sheet(x, {}, columns=3, height=200, own_y=True)),
        NEURONS_HOW,
        f"{len(panels)} panels over blocks 0 to {last}, first to last: {'; '.join(told)}.",
        frame.drop(columns="dataset"),
    )


@figure("circuit-flow", 430)
def _(data: RunData) -> FigureCard | None:
    return label_flow(data)


@figure("circuit-graph", 432)
def _(data: RunData) -> FigureCard | None:
    return graph_energy(data)


@figure("circuit-graph-map", 434)
def _(data: RunData) -> FigureCard | None:
    return graph_maps(data)


@figure("circuit-neurons", 436)
def _(data: RunData) -> FigureCard | None:
    return neuron_lines(data)
