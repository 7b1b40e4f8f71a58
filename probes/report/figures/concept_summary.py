"""All depths of all concepts on one layer axis, and which concept is deeper than which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from probes.report.data import RunData
from probes.report.figures.card import FigureCard, Spec, figure
from probes.report.frames import Point
from probes.report.study import PROBE, Concept, Study, depth_tests
from probes.report.text import interval, label, number
from probes.report.theme import ACCENT, DIFFERENCE, NEUTRAL, PALETTE, layer_ticks

_ROW = 27  # pixels per concept
# Measure, its words, colour, marker; those in k/L are drawn at k.
_OTHERS = (
    ("peak_layer", "peak layer", PALETTE[0], "diamond-open"),
    ("jumping_point", "jumping point", PALETTE[2], "triangle-up"),
    ("mdl_depth", "MDL depth", PALETTE[1], "square-open"),
    ("converging_point", "converging point", NEUTRAL, "x-thin"),
)
_SHARES = ("jumping_point", "converging_point")

DEPTHS_TO_READ = (
    "Concepts from early to late. The red dot is the robust depth with its 95 % interval: the first layer from which "
    "on the curve stays within the interval of its peak. The jumping point is the first sudden rise (a tenth or more "
    "over the layer before), the converging point the last layer at which nothing changes any more (nearly always the "
    "last), the MDL depth the layer with the shortest code. Concepts at the bottom have no depth."
)


def depth_summary(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Dot plot of the depths of every concept, sorted by robust depth; None when no depth is known."""
    study = Study.of(data)
    if study is None:
        return None
    shown = _sorted(study, concepts)
    if not any(study.depth(concept) for concept in shown):
        return None
    names = tuple(concept.name for concept in shown)
    return data.once(("concept-depths", names), lambda: _depths(study, shown))


def _sorted(study: Study, concepts: Sequence[str] | None) -> list[Concept]:
    """From early to late; concepts without a depth come last."""

    def key(concept: Concept) -> tuple[float, float]:
        depth, peak = study.depth(concept), study.level(concept, "peak_layer")
        return (np.inf if depth is None else depth.value, 0.0 if peak is None else peak.value)

    return sorted(study.by_family(concepts), key=key)


def _depths(study: Study, shown: list[Concept]) -> FigureCard:
    traces = [_markers(study, shown, *other) for other in _OTHERS]
    traces = [trace for trace in traces if trace["x"]]
    traces.append(_robust(study, shown))
    last = study.n_layers
    height = len(shown) * _ROW
    layout: Spec = {
        "height": height + 100,
        "margin": {"l": 130, "r": 24, "t": 44, "b": 52},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1 + 8 / height,
            "yanchor": "bottom",
            "traceorder": "reversed",
        },
        "xaxis": {
            "title": {"text": "layer"},
            "range": [-0.5, last + 0.5],
            "zeroline": False,
            **layer_ticks(last),
        },
        "yaxis": {
            "range": [len(shown) - 0.5, -0.5],
            "tickvals": list(range(len(shown))),
            "ticktext": [label(concept.name, 26) for concept in shown],
            "zeroline": False,
        },
        "annotations": [
            _without(study, at, concept)
            for at, concept in enumerate(shown)
            if not study.depth(concept)
        ],
    }
    measures = ("robust_depth", *(other[0] for other in _OTHERS), "area_under_curve")
    rows = study.table(shown, (PROBE,), *measures).drop(columns="layer")
    known = [(c, d) for c in shown if (d := study.depth(c))]
    told = [f"{c.name} {number(d.value, 0)} {interval(d.low, d.high, 0)}".strip() for c, d in known]
    told += [f"{c.name} none" for c in shown if not study.depth(c)]
    alt = f"Dot plot of depths over layers 0 to {last}. Robust depth with interval: {'; '.join(told)}."
    return FigureCard(
        "concept-depths",
        "Depth of every concept (layer)",
        {"data": traces, "layout": layout},
        DEPTHS_TO_READ,
        alt,
        rows,
    )


def _layer(study: Study, measure: str, point: Point) -> float:
    return point.value * study.n_layers if measure in _SHARES else point.value


def _markers(
    study: Study, shown: list[Concept], measure: str, words: str, colour: str, symbol: str
) -> Spec:
    found = [(at, p) for at, c in enumerate(shown) if (p := study.level(c, measure))]
    at_layer = [_layer(study, measure, point) for _, point in found]
    return {
        "type": "scatter",
        "x": at_layer,
        "y": [at for at, _ in found],
        "name": words,
        "mode": "markers",
        "marker": {
            "symbol": symbol,
            "size": 12 if "open" in symbol else 8,
            "color": colour,
            "line": {"width": 1.8, "color": colour},
        },
        "customdata": [
            f"<b>{label(shown[at].name, 40)}</b><br>{words}: layer {number(layer, 0)}"
            for (at, _), layer in zip(found, at_layer, strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _robust(study: Study, shown: list[Concept]) -> Spec:
    found = [(at, p) for at, c in enumerate(shown) if (p := study.depth(c))]
    ahead = [np.nan_to_num(max(p.high - p.value, 0)) for _, p in found]
    behind = [np.nan_to_num(max(p.value - p.low, 0)) for _, p in found]
    return {
        "type": "scatter",
        "x": [point.value for _, point in found],
        "y": [at for at, _ in found],
        "name": "robust depth with interval",
        "mode": "markers",
        "marker": {"symbol": "circle", "size": 9, "color": ACCENT},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": ahead,
            "arrayminus": behind,
            "color": ACCENT,
            "thickness": 2.2,
            "width": 0,
        },
        "customdata": [
            f"<b>{label(shown[at].name, 40)}</b><br>robust depth: {number(p.value, 0)} {interval(p.low, p.high, 0)}"
            for at, p in found
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _without(study: Study, at: int, concept: Concept) -> Spec:
    why = f": {label(concept.note, 70)}" if concept.note else ""
    place = {"x": 0, "y": at, "xanchor": "left", "yanchor": "middle", "showarrow": False}
    return {**place, "text": f"no depth{why}", "font": {"color": NEUTRAL, "size": 12}}


TESTS_TO_READ = (
    "Read a row: the number is by how many layers its concept is deeper (blue) or shallower (red) than that of the "
    "column. Coloured cells are differences that a bootstrap of the difference shows after Holm’s correction over all "
    "pairs; grey numbers could be chance."
)


def depth_differences(data: RunData, concepts: Sequence[str] | None = None) -> FigureCard | None:
    """Which concept is deeper than which, as a triangle of differences; None when no pair was tested."""
    study, tests = Study.of(data), depth_tests(data)
    if concepts is not None:
        tests = [test for test in tests if test["a"] in concepts and test["b"] in concepts]
    if study is None or not tests:
        return None
    depths = {test[side]: test[f"depth_{side}"] for test in tests for side in ("a", "b")}
    order = tuple(sorted(depths, key=lambda name: (depths[name], name)))
    return data.once(("concept-depth-tests", order), lambda: _differences(tests, order))


def _differences(tests: list[dict[str, Any]], order: tuple[str, ...]) -> FigureCard:
    spot = {name: at for at, name in enumerate(order)}
    size = len(order)
    gaps: dict[tuple[int, int], float] = {}
    colours = np.full((size, size), np.nan)
    hover = np.full((size, size), "", dtype=object)
    for test in tests:
        sign = 1 if spot[test["a"]] > spot[test["b"]] else -1
        row, col = (test["a"], test["b"]) if sign > 0 else (test["b"], test["a"])
        at = (spot[row], spot[col])
        gap = gaps[at] = sign * test["difference"]
        ends = sorted((sign * test["low"], sign * test["high"]))
        colours[at] = gap if test["deeper"] else np.nan
        hover[at] = (
            f"<b>{label(row, 30)}</b> − {label(col, 30)}<br>{number(gap, 0)} layers {interval(ends[0], ends[1], 0)}"
            f"<br>p after Holm {number(test['p_holm'])}"
        )
    limit = max(1.0, float(np.abs(np.nan_to_num(colours)).max()))
    notes = [
        _gap_note(at, gap, None if np.isnan(colours[at]) else abs(gap) / limit)
        for at, gap in gaps.items()
    ]
    trace = {
        "type": "heatmap",
        "x": list(range(size)),
        "y": list(range(size)),
        "z": colours,
        "customdata": hover,
        "hovertemplate": "%{customdata}<extra></extra>",
        "hoverongaps": True,
        "colorscale": DIFFERENCE,
        "zmin": -limit,
        "zmax": limit,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    labels = [label(name, 26) for name in order]
    side = {"tickvals": list(range(size)), "ticktext": labels, "showgrid": False, "zeroline": False}
    layout: Spec = {
        "height": size * 30 + 150,
        "margin": {"l": 130, "r": 24, "t": 12, "b": 110},
        "xaxis": {**side, "range": [-0.5, size - 1.5], "tickangle": -40},
        "yaxis": {**side, "range": [size - 0.5, 0.5]},
        "annotations": notes,
    }
    apart = [test for test in tests if test["deeper"]]
    alt = (
        f"Triangle of differences in robust depth between {size} concepts, from {order[0]} to {order[-1]}; "
        f"{len(apart)} of {len(tests)} pairs differ."
    )
    return FigureCard(
        "concept-depth-tests",
        "Which concept is deeper, by how many layers",
        {"data": [trace], "layout": layout},
        TESTS_TO_READ,
        alt,
        pd.DataFrame(tests),
    )


def _gap_note(at: tuple[int, int], gap: float, strength: float | None) -> Spec:
    """The number in a cell: an annotation, so that uncoloured cells have one too."""
    text = number(gap, 0)
    ink = NEUTRAL if strength is None else "#ffffff" if strength > 0.55 else "#1f2933"
    place = {"x": at[1], "y": at[0], "showarrow": False, "bgcolor": "rgba(0,0,0,0)"}
    strong = text if strength is None else f"<b>{text}</b>"
    return {**place, "text": strong, "font": {"size": 11, "color": ink}}


@figure("concept-depths", 105)
def _(data: RunData) -> FigureCard | None:
    return depth_summary(data)


@figure("concept-depth-tests", 107)
def _(data: RunData) -> FigureCard | None:
    return depth_differences(data)
