"""Figures of a concept study: every planted number arrives at its place, and nothing is drawn without its data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from probes.report import RunData
from probes.report.figures import (
    FigureCard,
    cards,
    causal_effects,
    code_length,
    concept_depth,
    condition_changes,
    condition_curves,
    depth_differences,
    depth_summary,
    direction_agreement,
    erasure_effects,
    few_shot_curves,
    layer_metrics,
    magnitude_law,
    own_preference,
    readable_over_time,
    scalar_mix_shares,
    transfer_layers,
    transfer_matrix,
    with_layer,
)
from probes.report.theme import ACCENT
from probes.runs import RunView
from probes.tables import tidy

L = 30
NAMES = [
    "concept-depth",
    "concept-depths",
    "concept-depth-tests",
    "concept-conditions",
    "concept-mdl",
    "concept-preference",
    "concept-few-shot",
    "concept-over-time",
    "concept-transfer",
    "concept-erasure",
    "concept-causal",
    "concept-directions",
    "concept-magnitude",
    "concept-scalar-mix",
]


@pytest.fixture(scope="module")
def data(concept_run: Path) -> RunData:
    return RunData.of(RunView(concept_run))


def _drawn(card: FigureCard | None) -> dict[str, Any]:
    assert card is not None
    return card.spec


def _axis(trace: dict[str, Any]) -> str:
    """What is appended to the axes of a trace's panel; entries that only the legend shows have none."""
    return str(trace.get("xaxis", "x?"))[1:]


def _by_panel(spec: dict[str, Any], titles: list[str]) -> dict[str, str]:
    """The axis of each panel by its title, from where the title stands."""
    found: dict[str, str] = {}
    for name, axis in spec["layout"].items():
        if name.startswith("xaxis"):
            ending = name.removeprefix("xaxis")
            top = spec["layout"][f"yaxis{ending}"]["domain"][1]
            for note in spec["layout"]["annotations"]:
                here = (note.get("x"), note.get("y")) == (axis["domain"][0], top)
                if here and note.get("xanchor") == "left":
                    seen = re.sub("<[^>]*>", "", note["text"]).split(" · ")[0].split(" ")[0]
                    found[seen] = ending
    assert set(titles) <= set(found)
    return found


def test_a_study_has_its_figures_in_reading_order_and_no_other(data: RunData) -> None:
    assert [card.id for card in cards(data)] == NAMES


def test_every_card_can_be_read_without_its_picture(data: RunData) -> None:
    for card in cards(data):
        assert len(card.alt) > 60, card.id
        assert len(card.how_to_read) > 60
        assert len(card.data) > 0
        json.loads(card.figure.to_json())
        assert {"x", "y"} & {a[0] for a in card.spec["layout"] if a[1:].startswith("axis")}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("curves", ["concept-depth"]),
        ("controls", []),
        ("depths", ["concept-depths"]),
    ],
)
def test_only_figures_whose_rows_are_there(
    planted: Any, tmp_path: Path, part: str, expected: list[str]
) -> None:
    """A run in the middle: rows, but no list of concepts yet."""
    path = planted.write_small_concept_run(tmp_path, parts=(part,), status="running")
    found = [card.id for card in cards(RunData.of(RunView(path)))]
    assert found == (expected if part == "curves" else [])
    with_list = planted.write_small_concept_run(
        tmp_path, "b", parts=(part, "tables"), tables=("concepts",)
    )
    assert [card.id for card in cards(RunData.of(RunView(with_list)))] == expected


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("depth_tests", "concept-depth-tests"),
        ("transfer", "concept-transfer"),
        ("erasure", "concept-erasure"),
        ("causal", "concept-causal"),
        ("over_time", "concept-over-time"),
        ("scalar_mix", "concept-scalar-mix"),
    ],
)
def test_only_figures_whose_table_is_there(
    planted: Any, tmp_path: Path, table: str, expected: str
) -> None:
    path = planted.write_small_concept_run(tmp_path, parts=("tables",), tables=("concepts", table))
    assert [card.id for card in cards(RunData.of(RunView(path)))] == [expected]


@pytest.mark.parametrize("damage", ["columns", "types", "empty", "nulls"])
def test_damaged_tables_leave_their_figures_out(planted: Any, tmp_path: Path, damage: str) -> None:
    path = planted.write_small_concept_run(tmp_path)
    ruin: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
        "columns": lambda frame: frame.iloc[:, :1].rename(columns=lambda c: f"x{c}"),
        "types": lambda frame: frame.astype(str).map(lambda v: f"?{v}"),
        "empty": lambda frame: frame.iloc[:0],
        "nulls": lambda frame: frame.map(lambda _: None),
    }
    for file in (path / "tables").glob("*.parquet"):
        ruin[damage](pd.read_parquet(file)).to_parquet(file)
    found = {card.id for card in cards(RunData.of(RunView(path)))}
    read_from_tables = {
        "concept-depth-tests",
        "concept-transfer",
        "concept-erasure",
        "concept-causal",
    }
    assert not found & {*read_from_tables, "concept-over-time", "concept-scalar-mix"}


def test_depth_panels_show_the_planted_curves_levels_and_depths(
    planted: Any, data: RunData
) -> None:
    spec = _drawn(concept_depth(data))
    panels = _by_panel(spec, [c.name for c in planted.CONCEPTS])
    for concept in planted.CONCEPTS:
        axis = panels[concept.name]
        own = [t for t in spec["data"] if _axis(t) == axis and len(t["x"]) > 1]
        probe = next(t for t in own if t.get("name") == "probe")
        assert list(probe["x"]) == list(range(L + 1))
        assert probe["y"] == pytest.approx([concept.value(k, L) for k in range(L + 1)])
        shapes = [s for s in spec["layout"]["shapes"] if s["yref"].split()[0] == f"y{axis}"]
        levels = {round(s["y0"], 6) for s in shapes if s["y0"] == s["y1"]}
        assert levels == {round(concept.chance, 6), round(concept.bag, 6)}
        uprights = [s["x0"] for s in shapes if s["type"] == "line" and s["x0"] == s["x1"]]
        assert uprights == ([concept.depth(L)] if concept.readable else [])
        names = {t["name"] for t in spec["data"] if _axis(t) == axis and "name" in t}
        assert {"shuffled labels", "untrained weights"} <= names
        assert ("control task" in names) == (concept.kind in ("classes", "tokens"))


def test_panels_share_their_axes_and_begin_at_layer_0(data: RunData) -> None:
    layout = _drawn(concept_depth(data))["layout"]
    across = [axis["range"] for name, axis in layout.items() if name.startswith("xaxis")]
    up = [axis["range"] for name, axis in layout.items() if name.startswith("yaxis")]
    assert len(across) == 14
    assert len({tuple(r) for r in across}) == len({tuple(r) for r in up}) == 1
    assert across[0][0] < 0 < L < across[0][1]
    assert up[0][0] <= 0
    assert up[0][1] >= 1


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12, 14])
def test_panels_are_large_enough_and_never_overlap(planted: Any, data: RunData, count: int) -> None:
    names = [c.name for c in planted.CONCEPTS][:count]
    layout = _drawn(concept_depth(data, names))["layout"]
    height = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    boxes = [
        (*layout[f"xaxis{n}"]["domain"], *layout[f"yaxis{n}"]["domain"])
        for n in ["", *map(str, range(2, count + 1))]
    ]
    assert len(boxes) == count
    for left, right, low, high in boxes:
        assert right - left >= 0.15
        assert (high - low) * height >= 100
        assert -1e-9 <= left < right <= 1 + 1e-9
        assert -1e-9 <= low < high <= 1 + 1e-9
    for a, b in combinations(boxes, 2):
        assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]
    assert layout["height"] < 1100  # one page


def test_families_stand_together_under_their_names(planted: Any, data: RunData) -> None:
    spec = _drawn(concept_depth(data))
    texts = [note["text"] for note in spec["layout"]["annotations"]]
    assert [t for t in texts if t.startswith("<b>") and "style" not in t] == [
        f"<b>{family}</b>" for family in ("factual", "emotional", "inferential", "linguistic")
    ]


def test_lines_differ_by_colour_dash_and_marker(data: RunData) -> None:
    spec = _drawn(concept_depth(data, ["cities"]))
    lines = [t for t in spec["data"] if t.get("mode") == "lines+markers" and len(t["x"]) > 1]
    assert len(lines) == 4
    for looks in ("color", "dash"):
        assert len({t["line"][looks] for t in lines}) == 4
    assert len({t["marker"]["symbol"] for t in lines}) == 4


def test_every_name_is_in_the_legend_once(data: RunData) -> None:
    for card in cards(data):
        shown = [t["name"] for t in card.spec["data"] if t.get("showlegend") and "name" in t]
        assert len(shown) == len(set(shown)), card.id


def test_a_picked_layer_is_marked_in_every_panel(data: RunData) -> None:
    card = concept_depth(data)
    assert card is not None
    before = len(card.spec["layout"]["shapes"])
    marked = with_layer(card, 7)
    uprights = [s for s in marked.spec["layout"]["shapes"] if s["x0"] == s["x1"] == 7]
    assert len({s["xref"] for s in uprights}) == 14
    assert len(card.spec["layout"]["shapes"]) == before
    assert with_layer(card, None) is card


def test_concepts_can_be_chosen(data: RunData) -> None:
    for make in (
        concept_depth,
        depth_summary,
        code_length,
        direction_agreement,
        condition_changes,
        few_shot_curves,
        scalar_mix_shares,
    ):
        card = make(data, ["sentiment", "cities"])
        assert card is not None
        assert set(card.data["concept"]) == {"sentiment", "cities"}
        assert make(data, ["no such concept"]) is None


def test_summary_is_sorted_and_shows_every_depth(planted: Any, data: RunData) -> None:
    spec = _drawn(depth_summary(data))
    order = list(spec["layout"]["yaxis"]["ticktext"])
    depths = {c.name: c.depth(L) for c in planted.CONCEPTS if c.readable}
    assert order[-1] == "coin-flip"
    assert [depths[name] for name in order[:-1]] == sorted(depths.values())
    robust = next(t for t in spec["data"] if t["name"].startswith("robust"))
    assert dict(zip([order[at] for at in robust["y"]], robust["x"], strict=True)) == depths
    assert list(robust["error_x"]["array"]) == [1] * 13
    assert list(robust["error_x"]["arrayminus"]) == [2] * 13
    jumps = next(t for t in spec["data"] if t["name"] == "jumping point")
    at = dict(zip([order[k] for k in jumps["y"]], jumps["x"], strict=True))
    assert at["cities"] == pytest.approx(depths["cities"] - 3)  # stored as k/L, drawn at k
    assert any("never rises above chance" in note["text"] for note in spec["layout"]["annotations"])
    assert spec["layout"]["xaxis"]["range"][0] < 0


def test_differences_are_read_along_the_row(planted: Any, data: RunData) -> None:
    spec = _drawn(depth_differences(data))
    order = list(spec["layout"]["yaxis"]["ticktext"])
    depths = {c.name: c.depth(L) for c in planted.CONCEPTS if c.readable}
    z = np.asarray(spec["data"][0]["z"], dtype=float)
    texts = {(n["y"], n["x"]): n["text"] for n in spec["layout"]["annotations"]}
    assert len(texts) == 13 * 12 // 2
    for row, col in combinations(range(13), 2):
        gap = depths[order[col]] - depths[order[row]]  # the later in the order is the deeper
        assert gap >= 0
        told = texts[col, row]
        assert told.strip("<b>/") == str(gap)
        sure = 20 * np.exp(-gap) < 0.05
        assert (z[col, row] == gap) if sure else np.isnan(z[col, row])
        assert told.startswith("<b>") == sure
    assert spec["data"][0]["zmin"] == -spec["data"][0]["zmax"]


def test_conditions_are_differences_from_the_plain_curve(planted: Any, data: RunData) -> None:
    card = condition_changes(data)
    spec = _drawn(card)
    assert card is not None
    panels = _by_panel(spec, ["cities"])
    heat = next(t for t in spec["data"] if t["type"] == "heatmap" and _axis(t) == panels["cities"])
    table = data.measurements
    own = table[(table["concept"] == "cities") & (table["measure"] == "accuracy")]
    plain = own[own["variant"].isna() & own["layer"].notna()].set_index("layer")["value"]
    names = list(spec["layout"][f"yaxis{panels['cities']}"]["ticktext"])
    at = names.index("words shuffled")
    shuffled = own[own["variant"] == "noise=shuffle"].set_index("layer")["value"]
    assert list(heat["z"][at]) == pytest.approx([shuffled[k] - plain[k] for k in range(L + 1)])
    limits = spec["layout"]["coloraxis"]
    assert limits["cmin"] == -limits["cmax"]
    assert limits["cmax"] >= card.data["change"].abs().max()
    assert len(names) == len(planted.CONDITIONS)


def test_condition_curves_of_one_concept(planted: Any, data: RunData) -> None:
    spec = _drawn(condition_curves(data, "cities"))
    lines = [t for t in spec["data"] if t.get("mode") == "lines+markers"]
    assert len(lines) == 1 + len(planted.CONDITIONS)
    looks = {(t["line"]["color"], t["line"]["dash"], t["marker"]["symbol"]) for t in lines}
    assert len(looks) == len(lines)
    assert condition_curves(data, "no such concept") is None


def test_code_length_stands_on_a_logarithmic_axis_that_holds_it(
    planted: Any, data: RunData
) -> None:
    card = code_length(data)
    spec = _drawn(card)
    assert card is not None
    assert spec["layout"]["yaxis"]["type"] == "log"
    low, high = spec["layout"]["yaxis"]["range"]
    drawn = [v for t in spec["data"] for v in t["y"] if v is not None]
    assert 10**low <= min(drawn) <= max(drawn) <= 10**high
    assert {"compression", "mdl", "mdl_depth"} == set(card.data["measure"])
    uprights = [s["x0"] for s in spec["layout"]["shapes"] if s["x0"] == s["x1"]]
    coded = [c for c in planted.CONCEPTS if c.readable and c.kind != "numbers"]
    assert sorted(uprights) == sorted(c.peak(L) for c in coded)


def test_preference_magnitude_and_directions_carry_their_controls(data: RunData) -> None:
    for card, names in (
        (own_preference(data), {"model’s own preference", "probe"}),
        (magnitude_law(data), {"difference", "difference of logarithms", "shuffled numbers"}),
        (direction_agreement(data), {"concept", "random directions"}),
    ):
        spec = _drawn(card)
        lines = [t for t in spec["data"] if t.get("mode") == "lines+markers" and len(t["x"]) > 1]
        assert {t["name"] for t in lines} == names
        assert any(s["y0"] == s["y1"] for s in spec["layout"]["shapes"])


def test_transfer_shows_the_layer_at_which_concepts_carry_over_best(data: RunData) -> None:
    frame = data.table("transfer")
    assert frame is not None
    off = frame[frame["train"] != frame["test"]]
    best = int(off.groupby("layer")["value"].mean().idxmax())
    card = transfer_matrix(data)
    assert card is not None
    assert card.title.endswith(f"layer {best})")
    assert set(card.data["layer"]) == set(transfer_layers(data)) == set(frame["layer"])
    spec = card.spec
    order = list(spec["layout"]["xaxis"]["ticktext"])
    for row in frame[frame["layer"] == best].to_dict("records"):
        at = order.index(row["train"]), order.index(row["test"])
        assert spec["data"][0]["z"][at] == pytest.approx(row["value"])
        assert spec["data"][0]["text"][at].startswith("(") == (row["low"] <= 0.5 <= row["high"])
    other = transfer_matrix(data, layer=15)
    assert other is not None
    assert other.title.endswith("layer 15)")
    assert transfer_matrix(data, layer=29) is None


def test_erasure_runs_from_before_to_after_and_marks_the_erased_concept(data: RunData) -> None:
    card = erasure_effects(data, ["cities"])
    spec = _drawn(card)
    frame = data.table("erasure")
    assert frame is not None
    own = frame[(frame["erased"] == "cities") & (frame["method"] == "leace")]
    majority, before, after = (t for t in spec["data"] if _axis(t) == "")
    assert list(majority["x"]) == [0.5] * 5
    assert before["x"] == pytest.approx(own["before"].to_numpy())
    assert after["x"] == pytest.approx(own["after"].to_numpy())
    accents = [colour == ACCENT for colour in after["marker"]["color"]]
    assert accents == [name == "cities" for name in own["measured"]]
    titles = {n["text"] for n in spec["layout"]["annotations"]}
    assert {"LEACE, rank 1", "INLP, rank 6", "random directions, rank 1"} <= titles


def test_many_erased_concepts_are_cut_and_the_caption_says_so(data: RunData) -> None:
    card = erasure_effects(data)
    assert card is not None
    assert "Showing 4 of 5 erased concepts" in card.how_to_read
    assert set(card.data["erased"]) == {"cities", "elements", "companies", "sentiment", "coin-flip"}


def test_causal_effects_have_their_random_control_in_the_same_row(data: RunData) -> None:
    spec = _drawn(causal_effects(data, ["cities"]))
    rows = list(spec["layout"]["yaxis"]["ticktext"])
    control, own = (t for t in spec["data"] if len(t["x"]) > 1)
    assert rows[:2] == ["LEACE, rank 1", "INLP, rank 6"]
    assert rows[2:] == ["steer by −4", "steer by −2", "steer by +2", "steer by +4"]
    assert [round(y) for y in own["y"]] == [round(y) for y in control["y"]] == list(range(6))
    base = 4 * (0.96 - 0.5)
    effects = np.array([-0.5 * base, -0.6 * base, -1.2, -0.6, 0.6, 1.2])
    assert own["x"] == pytest.approx(base + effects)
    assert control["x"] == pytest.approx(base + np.array([-0.01, -0.05, -0.04, -0.02, 0.02, 0.04]))
    uprights = sorted(s["x0"] for s in spec["layout"]["shapes"])
    assert uprights == pytest.approx([0, base])


def test_few_shot_lines_run_over_the_number_of_labels(planted: Any, data: RunData) -> None:
    spec = _drawn(few_shot_curves(data, ["cities"]))
    lines = {t["name"]: t for t in spec["data"] if t.get("mode") == "lines+markers"}
    assert list(lines) == [f"layer {k}" for k in (0, 8, 15, 22, 30)]
    cities = planted.CONCEPTS[0]
    for layer in (0, 15, 30):
        line = lines[f"layer {layer}"]
        assert line["x"] == pytest.approx(np.log2(planted.SHOTS))
        expected = [cities.value(layer, L, s / (s + 20)) for s in planted.SHOTS]
        assert line["y"] == pytest.approx(expected)


def test_over_time_and_mix_hold_their_tables(planted: Any, data: RunData) -> None:
    spec = _drawn(readable_over_time(data, ["entity-tracking"]))
    concept = next(c for c in planted.CONCEPTS if c.name == "entity-tracking")
    assert spec["data"][0]["z"][4, 30] == pytest.approx(concept.value(30, L))
    assert spec["data"][0]["z"].shape == (5, 31)
    mix = _drawn(scalar_mix_shares(data, ["cities"]))
    bars = next(t for t in mix["data"] if t["type"] == "bar")
    assert np.sum(bars["y"]) == pytest.approx(1)
    assert any(n["text"] == "0.96 (0.96)" for n in mix["layout"]["annotations"])


def test_measures_of_concepts_are_no_label_free_measures_of_layers() -> None:
    rows = [
        {"measure": m, "layer": k, "value": 0.5, "concept": c}
        for k in range(3)
        for m, c in (("selectivity", "cities"), ("anisotropy", None))
    ]
    pytest.importorskip("probes.layers", reason="registers anisotropy")
    data = RunData(tidy(rows))
    card = layer_metrics(data)
    assert card is not None
    assert set(card.data["measure"]) == {"anisotropy"}


def test_hostile_names_are_inert_in_every_figure(planted: Any, tmp_path: Path) -> None:
    path = planted.write_small_concept_run(tmp_path, hostile=True)
    made = cards(RunData.of(RunView(path)))
    assert len(made) == len(NAMES)
    for card in made:
        text = str(card.figure.to_json())
        for bad in ("<script", "<img", "<a ", "%{x}", "\\u202e"):
            assert bad not in text.replace("\\u003c", "<"), (card.id, bad)
