"""Figures: the numbers arrive, the marks are where they belong, and nothing is drawn where there are no data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.report import Cell, RunData
from probes.report.figures import (
    FIGURES,
    Marks,
    cards,
    latency_per_layer,
    layer_dim_heatmap,
    layer_metrics,
    pareto_front,
    quality_latency,
    quality_over_layers,
)
from probes.runs import RunView
from probes.tables import tidy

NAMES = ["layer-dim", "quality-depth", "quality-latency", "latency", "layer-metrics"]


@pytest.fixture(scope="module")
def data(full_run: Path) -> RunData:
    return RunData.of(RunView(full_run))


def test_a_full_run_has_every_figure_in_reading_order(data: RunData) -> None:
    assert [card.id for card in cards(data)] == NAMES
    assert set(NAMES) <= set(FIGURES)


def test_every_card_can_be_read_without_its_picture(data: RunData) -> None:
    for card in cards(data):
        assert len(card.alt) > 40
        assert len(card.how_to_read) > 60
        assert len(card.data) > 0
        json.loads(card.figure.to_json())


def test_no_figure_without_its_data() -> None:
    empty = RunData(tidy([]))
    assert cards(empty) == []


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("grid", ["layer-dim", "quality-depth"]),
        ("latency", ["latency"]),
        ("metrics", ["layer-metrics"]),
    ],
)
def test_only_figures_whose_data_are_there(
    synthetic: Any, tmp_path: Path, part: str, expected: list[str]
) -> None:
    data = RunData.of(RunView(synthetic.make_run(tmp_path, parts=(part,))))
    assert [card.id for card in cards(data)] == expected


def test_heatmap_holds_the_table_cell_by_cell(data: RunData) -> None:
    card = layer_dim_heatmap(data)
    assert card is not None
    maps = [trace for trace in card.figure.data if trace.type == "heatmap"]
    assert len(maps) == 3
    for trace, variant in zip(maps, data.variants, strict=True):
        for layer in range(7):
            for at, dim in enumerate(data.dims):
                point = data.at(Cell(variant, layer, dim))
                value = np.asarray(trace.z, dtype=float)[at, layer]
                assert np.isnan(value) if point is None else value == pytest.approx(point.value)


def test_heatmap_shows_layer_0_and_frames_the_chosen_cell(data: RunData) -> None:
    card = layer_dim_heatmap(data)
    assert card is not None
    assert data.chosen is not None
    assert card.figure.layout.xaxis.range[0] < 0
    boxes = {((s.x0 + s.x1) / 2, (s.y0 + s.y1) / 2) for s in card.figure.layout.shapes}
    assert boxes == {(data.chosen.layer, data.dims.index(data.chosen.dim))}


def test_heatmap_colours_can_be_shared_between_runs(data: RunData) -> None:
    card = layer_dim_heatmap(data, limits=(0.1, 0.9))
    assert card is not None
    assert (card.figure.layout.coloraxis.cmin, card.figure.layout.coloraxis.cmax) == (0.1, 0.9)


def test_depth_lines_carry_band_and_values(data: RunData) -> None:
    card = quality_over_layers(data, dim=384)
    assert card is not None
    lines = {t.name: t for t in card.figure.data if t.mode == "lines+markers"}
    assert set(lines) == {"raw", "centred", "translated"}
    assert list(lines["raw"].x) == list(range(7))
    assert lines["raw"].y[-1] == pytest.approx(0.82)
    bands = [t for t in card.figure.data if t.fill == "toself"]
    assert len(bands) == 3
    raw = bands[0]
    assert np.max(np.asarray(raw.y)) == pytest.approx(0.82 + 0.6 / np.sqrt(1500))
    names = {a.text for a in card.figure.layout.annotations}
    assert {"½", "⅔", "¾", "last", "<b>chosen</b>"} <= names


def test_series_differ_by_colour_dash_and_marker(data: RunData) -> None:
    card = quality_over_layers(data)
    assert card is not None
    lines = [t for t in card.figure.data if t.mode == "lines+markers"]
    for looks in (
        [t.line.color for t in lines],
        [t.line.dash for t in lines],
        [t.marker.symbol for t in lines],
    ):
        assert len(set(looks)) == len(lines)


def test_a_picked_cell_is_marked_in_every_figure(data: RunData) -> None:
    marks = Marks(data.chosen, Cell("raw", 2, 64), 0.9)
    depth, pareto = quality_over_layers(data, marks), quality_latency(data, marks)
    latency, heat = latency_per_layer(data, marks), layer_dim_heatmap(data, marks)
    metrics = layer_metrics(data, marks)
    assert depth is not None and pareto is not None and latency is not None  # noqa: PT018
    assert heat is not None and metrics is not None  # noqa: PT018
    assert any(a.text == "<b>picked</b>" for a in depth.figure.layout.annotations)
    assert sum(t.marker.symbol == "circle-open" for t in pareto.figure.data) == 2
    assert len(set(latency.figure.data[0].marker.color)) == 3
    assert any((s.x0 + s.x1) / 2 == 2 for s in heat.figure.layout.shapes)
    assert any(s.x0 == 2 for s in metrics.figure.layout.shapes)


def test_latency_whisker_ends_at_p95(data: RunData) -> None:
    card = latency_per_layer(data)
    assert card is not None
    bar = card.figure.data[0]
    tops = np.asarray(bar.y, dtype=float) + np.asarray(bar.error_y.array, dtype=float)
    assert tops == pytest.approx(np.asarray(bar.y, dtype=float) * 1.22 + 0.3)


def test_pareto_falls_back_to_relative_cost() -> None:
    rows = [
        {"measure": m, "layer": k, "dim": d, "value": v}
        for k in range(3)
        for m, d, v in (("spearman", 8, 0.5 + k / 10), ("relative_cost", None, (k + 1) / 3))
    ]
    card = quality_latency(RunData(tidy(rows)))
    assert card is not None
    assert "Share of the full model" in card.figure.layout.xaxis.title.text


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=30))
def test_pareto_front_equals_brute_force(points: list[tuple[float, float]]) -> None:
    cost, quality = (np.array(side) for side in zip(*points, strict=True))
    front = {(float(cost[i]), float(quality[i])) for i in pareto_front(cost, quality)}
    brute = {
        (c, q)
        for c, q in points
        if not any((c2 <= c and q2 > q) or (c2 < c and q2 >= q) for c2, q2 in points)
    }
    assert front == brute


def test_hostile_names_are_inert_in_a_figure(synthetic: Any) -> None:
    rows = [
        {"measure": "spearman", "layer": k, "dim": 8, "value": 0.5, "variant": synthetic.HOSTILE}
        for k in range(3)
    ]
    for card in cards(RunData(tidy(rows))):
        text = card.figure.to_json()
        assert "<script" not in text.replace("\\u003c", "<")
        assert "<img" not in text.replace("\\u003c", "<")


def test_single_number_and_missing_interval_still_draw() -> None:
    data = RunData(tidy([{"measure": "accuracy", "layer": 0, "dim": 4, "value": 0.5}]))
    assert [card.id for card in cards(data)] == ["layer-dim", "quality-depth"]
