"""Figures of collapse and of layer quality: planted numbers arrive; nothing is drawn without data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_collapse as collapse
import synthetic_quality as quality

from probes.report import RunData
from probes.report.collapse_study import TABLES, datasets, reasons
from probes.report.figures import (
    FIGURES,
    Focus,
    block_influence,
    cards,
    chunking,
    collapse_slope,
    frequency_gain,
    head_bottleneck,
    index_size,
    label_agreement,
    layer_drops,
    layer_metrics,
    layer_similarity,
    layer_spectra,
    length_collapse,
    mask_deficiency,
    remedies_at_layer,
    remedies_by_layer,
    temperature_gain,
    temperature_sweep,
)
from probes.report.theme import ACCENT, NEUTRAL, PALETTE, SELECTED
from probes.runs import RunView
from probes.tables import tidy

L = 6
COLLAPSE = [
    "collapse-length",
    "collapse-slope",
    "collapse-rank",
    "collapse-temperature",
    "collapse-temperature-gain",
    "collapse-remedies",
    "collapse-remedies-layer",
    "collapse-chunking",
    "collapse-index",
    "collapse-bottleneck",
    "collapse-mask",
]
QUALITY = [
    "quality-depth",
    "label-agreement",
    "layer-metrics",
    "layer-cka",
    "layer-spectra",
    "block-influence",
    "layer-drops",
    "frequency-gain",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return RunData.of(RunView(collapse.write_collapse_run(tmp_path_factory.mktemp("collapse"))))


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    path = quality.write_quality_run(
        tmp_path_factory.mktemp("quality"), datasets=("docstrings", "scifact")
    )
    return RunData.of(RunView(path))


def _named(card: Any, name: str, axis: str | None = None) -> dict[str, Any]:
    """The line of that name that says something in hover, in a panel where one is named."""
    found = [
        t
        for t in card.spec["data"]
        if t.get("name") == name and "customdata" in t and axis in (None, t.get("xaxis"))
    ]
    assert found, (name, [t.get("name") for t in card.spec["data"]])
    return found[0]


def test_every_figure_in_reading_order(run: RunData, layers: RunData) -> None:
    assert [card.id for card in cards(run)] == COLLAPSE
    assert [card.id for card in cards(layers)] == QUALITY
    assert {*COLLAPSE, *QUALITY} <= set(FIGURES)


@pytest.mark.parametrize("which", ["run", "layers"])
def test_every_card_can_be_read_without_its_picture(
    which: str, request: pytest.FixtureRequest
) -> None:
    for card in cards(request.getfixturevalue(which)):
        assert len(card.alt) > 40, card.id
        assert "nan" not in card.alt.lower(), card.alt
        assert len(card.how_to_read) > 60
        assert len(card.data) > 0
        assert "NaN" not in json.dumps(card.figure.layout.to_plotly_json(), default=str)


@pytest.mark.parametrize("part", collapse.PARTS)
def test_a_part_brings_its_own_figures_only(tmp_path: Path, part: str) -> None:
    data = RunData.of(RunView(collapse.write_collapse_run(tmp_path, parts=(part,))))
    found = {card.id for card in cards(data)}
    expected = {
        "length": {"collapse-length", "collapse-slope", "collapse-rank"},
        "temperature": {"collapse-temperature", "collapse-temperature-gain"},
        "remedies": {"collapse-remedies", "collapse-remedies-layer"},
        "chunking": {"collapse-chunking"},
        "bottleneck": {"collapse-bottleneck"},
        "mask": {"collapse-mask"},
        "index": {"collapse-index"},
    }[part]
    assert found == expected
    assert set(reasons(data)) == set(collapse.PARTS) - {part}


def test_nothing_is_drawn_from_nothing_or_from_damaged_tables() -> None:
    assert cards(RunData(tidy([]))) == []
    wrong = pd.DataFrame({"layer": ["a", None], "value": [1.0, np.nan], "dataset": [1, 2]})
    names = tuple(TABLES)
    for frame in (wrong, pd.DataFrame(), wrong.iloc[:0]):
        data = RunData(tidy([]), table_names=names, read_table=lambda _, held=frame: held)
        assert cards(data) == []


@pytest.mark.parametrize("name", sorted(collapse.TABLES))
def test_missing_intervals_and_rows_are_survived(tmp_path: Path, name: str) -> None:
    path = collapse.write_collapse_run(tmp_path)
    frame = pd.read_parquet(path / "tables" / f"{name}.parquet")
    for column in frame.columns:
        own = ("low", "high", "n", "anisotropy", "seed", "collapse_slope")
        if column in own or "difference" in column:
            frame[column] = None
    frame.iloc[::2].to_parquet(path / "tables" / f"{name}.parquet")
    for card in cards(RunData.of(RunView(path))):
        card.figure.to_json()
        assert "nan" not in card.alt.lower(), card.alt


def test_length_shows_the_planted_cosines_on_a_logarithmic_axis(run: RunData) -> None:
    card = length_collapse(run)
    assert card is not None
    assert card.spec["layout"]["xaxis"]["type"] == "log"
    line = _named(card, "layer 6", "x2")  # the second panel: cut
    assert line["x"].tolist() == list(collapse.CUTS)
    assert line["y"] == pytest.approx([collapse.cosine(6, t, L) for t in collapse.CUTS])
    titles = [note["text"] for note in card.spec["layout"]["annotations"]]
    assert {"texts as they are", "the same texts, cut", "random words, cut"} <= set(titles)
    bands = [t for t in card.spec["data"] if "10 % to 90 %" in str(t.get("name"))]
    top = bands[0]["y"][: len(collapse.CUTS)]
    assert top == pytest.approx([collapse.cosine(6, t, L, 0.9) + 0.14 for t in collapse.CUTS])


def test_a_picked_layer_stands_out_everywhere(run: RunData) -> None:
    for build in (length_collapse, temperature_sweep):
        plain, card = build(run, Focus()), build(run, Focus(layer=2))
        assert plain is not None
        assert card is not None
        line = _named(card, "layer 2")
        assert line["line"]["color"] == SELECTED
        assert line["showlegend"] is not False
        assert _named(plain, "layer 2")["line"]["width"] < line["line"]["width"]
        assert line["meta"] == {"layer": 2}
    assert "layer 2" in index_size(run, Focus(layer=2)).title  # type: ignore[union-attr]
    assert "layer 2" in remedies_at_layer(run, Focus(layer=2)).title  # type: ignore[union-attr]
    assert "layer 6" in remedies_at_layer(run, Focus(layer=99)).title  # type: ignore[union-attr]


def test_slopes_with_their_control(run: RunData) -> None:
    card = collapse_slope(run)
    assert card is not None
    assert _named(card, "cut texts")["y"] == pytest.approx(
        [collapse.slope(k, L) for k in range(L + 1)]
    )
    assert _named(card, "random words")["line"]["color"] == NEUTRAL


def test_temperature_marks_what_the_calibrate_part_chose(run: RunData) -> None:
    sweep, gain = temperature_sweep(run, Focus(layer=5)), temperature_gain(run)
    assert sweep is not None
    assert gain is not None
    rings = [t for t in sweep.spec["data"] if t.get("name") == "chosen τ"]
    assert rings[0]["x"].tolist() == [collapse.BEST_TAU]
    assert _named(gain, "chosen τ")["y"].tolist() == [1.0] * 4 + [0.8] * 3
    bands = [t for t in sweep.spec["data"] if t.get("xaxis") == "x3" and t.get("fill")]
    half = len(collapse.TAUS)
    height = bands[0]["y"][:half] - bands[0]["y"][half:][::-1]
    assert height == pytest.approx([0.01 if tau != 1 else 0 for tau in collapse.TAUS], abs=1e-12)
    expected = [max(0.0, collapse.tau_gain(k, 0.8, L)) if k > 3 else 0.0 for k in range(7)]
    assert _named(gain, "difference")["y"] == pytest.approx(expected)


def test_remedies_are_coloured_by_what_is_shown(run: RunData) -> None:
    card = remedies_by_layer(run)
    assert card is not None
    for name, colour in (
        ("top 3 removed", PALETTE[0]),
        ("centred", NEUTRAL),
        ("Ditto pooling", ACCENT),
    ):
        assert _named(card, name)["line"]["color"] == colour
    at = remedies_at_layer(run)
    assert at is not None
    gains = at.spec["data"][0]
    added = sorted((gain for name, (gain, _) in collapse.REMEDIES.items() if name != "none"))
    assert gains["x"] == pytest.approx(added[::-1])
    assert gains["marker"]["color"][0] == PALETTE[0]
    assert gains["marker"]["color"][-1] == ACCENT
    best = gains["customdata"][0]
    rise = collapse.slope(L, L)
    change = -0.85 * rise
    ends = f"[{change - 0.005:.3f}, {change + 0.005:.3f}]"
    shown = f"rise per doubling {0.15 * rise:.3f}, change {change:.3f} {ends}"
    assert shown.replace("-", "−") in best
    left = at.spec["data"][2]
    assert left["x"][0] == pytest.approx(0.15 * rise)
    assert left["error_x"]["array"] == pytest.approx([0.005] * 7)


def test_chunking_head_mask_and_index_hold_their_tables(run: RunData) -> None:
    late = chunking(run)
    assert late is not None
    assert _named(late, "late − first")["y"] == pytest.approx([0.06 * k / L for k in range(L + 1)])
    head = head_bottleneck(run)
    assert head is not None
    assert _named(head, "loss")["y"] == pytest.approx(
        [4 + 8 * np.exp(-r / 50) for r in (4, 8, 16, 32, 64, 128, 256, 384)]
    )
    assert len(_named(head, "singular value")["x"]) <= 48
    mask = mask_deficiency(run)
    assert mask is not None
    assert _named(mask, "ratio")["y"] == pytest.approx([1 - 0.3 * k / L for k in range(L + 1)])
    index = index_size(run)
    assert index is not None
    recall = [collapse.recall(L, 64, n, 10, L) for n in collapse.DISTRACTORS]
    assert _named(index, "64 dimensions", "x2")["y"] == pytest.approx(recall)
    ring = _named(index, "64 dimensions break", "x2")
    assert ring["x"].tolist() == [1_000]
    assert ring["y"] == pytest.approx([collapse.recall(L, 64, 1_000, 10, L)])
    assert not any(t.get("name") == "128 dimensions break" for t in index.spec["data"])
    assert "64 dimensions loses to the full width from 1,000 on, by −0.129" in index.alt


def test_agreement_is_sorted_and_grey_where_it_may_be_chance(layers: RunData) -> None:
    card = label_agreement(layers)
    assert card is not None
    bars = [t for t in card.spec["data"] if t["type"] == "bar"]
    assert len(bars) == 2
    held = dict(zip(bars[0]["y"], bars[0]["x"], strict=True))
    assert [held[at] for at in range(len(held))] == sorted(held.values(), reverse=True)
    for value, colour in zip(bars[0]["x"], bars[0]["marker"]["color"], strict=True):
        told = quality.agreement_table(L, ("docstrings",))
        p = float(told.loc[told["value"] == value, "p"].iloc[0])
        assert ("127,135,144" in colour) == (p >= 0.05 or abs(value) <= quality.HALF)
    other = label_agreement(layers, Focus(dataset="scifact"))
    assert other is not None
    assert other.alt == card.alt


def test_cka_is_symmetric_even_from_half_a_table(layers: RunData, tmp_path: Path) -> None:
    whole = layer_similarity(layers)
    assert whole is not None
    path = quality.write_quality_run(tmp_path)
    frame = pd.read_parquet(path / "tables" / "cka.parquet")
    frame[frame["layer_a"] < frame["layer_b"]].to_parquet(path / "tables" / "cka.parquet")
    half = layer_similarity(RunData.of(RunView(path)))
    assert half is not None
    assert np.asarray(half.spec["data"][0]["z"]) == pytest.approx(
        np.asarray(whole.spec["data"][0]["z"])
    )
    marked = layer_similarity(layers, Focus(layer=3))
    assert marked is not None
    assert any(shape["x0"] == 2.5 for shape in marked.spec["layout"]["shapes"])
    assert "shapes" not in whole.spec["layout"]


def test_blocks(layers: RunData) -> None:
    bars, drops, gain = block_influence(layers), layer_drops(layers), frequency_gain(layers)
    assert bars is not None
    colours = bars.spec["data"][0]["marker"]["color"]
    least = int(np.argmin([quality.influence(b, L) for b in range(L)]))
    assert [at for at, colour in enumerate(colours) if colour == ACCENT] == [least]
    assert drops is not None
    best = _named(drops, "least influence")
    assert best["y"][0] == pytest.approx(1 - 0.35 * quality.influence(least, L))
    assert all(np.diff(best["x"]) < 0)
    exits = _named(drops, "last blocks (early exit)")
    assert len(exits["x"]) == L // 2
    random = _named(drops, "drawn at random")
    shown = {*zip(best["x"], best["y"], strict=True), *zip(exits["x"], exits["y"], strict=True)}
    assert len(random["x"]) > 0
    assert shown.isdisjoint(zip(random["x"], random["y"], strict=True))
    assert gain is not None
    z = np.asarray(gain.spec["data"][0]["z"])
    assert z.shape == (quality.HEADS + 1, L)
    assert z[0] == pytest.approx([0.5 + 0.4 * b / L for b in range(L)])  # the mean of all heads


def test_spectra_are_thinned_but_whole_in_the_table(layers: RunData) -> None:
    card = layer_spectra(layers)
    assert card is not None
    line = _named(card, "layer 6")
    assert line["x"][0] == 1
    assert line["x"][-1] == 384
    assert len(line["x"]) <= 48
    assert len(card.data) == 2 * 7 * 384


def test_metrics_stand_in_families_with_their_control(layers: RunData) -> None:
    card = layer_metrics(layers)
    assert card is not None
    notes = [note["text"] for note in card.spec["layout"]["annotations"]]
    for family in ("Directions in use", "Spread and information", "Tokens within a text"):
        assert f"<b>{family}</b>" in notes
    shown = {t["name"] for t in card.spec["data"] if t.get("showlegend")}
    assert shown == {"trained", "untrained weights", "view: crop"}
    assert sum(name.startswith("xaxis") for name in card.spec["layout"]) == len(quality.AGREEMENT)
    assert "docstrings" in card.title


def test_a_choice_of_datasets_only_where_a_table_holds_several(
    run: RunData, layers: RunData
) -> None:
    assert datasets(run) == []  # texts and tasks differ, but no table holds both
    assert datasets(layers) == ["docstrings", "scifact"]


def test_hostile_names_are_inert_in_every_figure(tmp_path: Path) -> None:
    one = collapse.write_collapse_run(tmp_path, "a", hostile=True)
    two = quality.write_quality_run(tmp_path, "b", datasets=("x", "y"), hostile=True)
    for path in (one, two):
        for card in cards(RunData.of(RunView(path))):
            texts: list[str] = []
            _collect(card.spec["layout"], texts)
            for trace in card.spec["data"]:
                _collect({k: trace.get(k) for k in ("name", "customdata", "text")}, texts)
            for text in texts:
                assert "<script" not in text
                assert "<a " not in text
                assert "<img" not in text
                assert "%{x}" not in text


def _collect(held: Any, texts: list[str]) -> None:
    if isinstance(held, str):
        texts.append(held)
    elif isinstance(held, dict):
        for value in held.values():
            _collect(value, texts)
    elif isinstance(held, list | tuple | np.ndarray):
        for value in held:
            _collect(value, texts)
