"""Figures and words of retrieval heads: planted numbers arrive, controls stand apart, nothing comes of nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_heads as planted

from probes.report import RunData
from probes.report.content import verdict
from probes.report.figures import (
    attention_on_tokens,
    cards,
    composition_pairs,
    head_ablation,
    head_ranking,
    head_scores,
    head_spectra,
    head_types,
    needle_grid,
    single_effects,
)
from probes.report.figures.head_tokens import answer_rows, kept_heads, token_row
from probes.report.head_tables import TABLES, HeadFocus, head_of, heads_of
from probes.report.theme import ACCENT, NEUTRAL, SELECTED
from probes.runs import RunView
from probes.tables import tidy

IDS = [
    "head-map", "head-ranking", "head-overlap", "head-ablation", "head-grid", "head-single", "head-tokens",
    "head-types", "head-attention", "head-composition", "head-composition-blocks", "head-spectra", "head-low-rank",
]  # fmt: skip
BEST = (16, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return RunData.of(RunView(planted.write_heads_run(tmp_path_factory.mktemp("heads"))))


def _data(tmp_path: Path, **more: Any) -> RunData:
    return RunData.of(RunView(planted.write_heads_run(tmp_path, **more)))


def _line(card: Any, name: str, axis: str = "x") -> dict[str, Any]:
    found = [
        t
        for t in card.spec["data"]
        if t.get("name") == name and "customdata" in t and t.get("xaxis", "x") == axis
    ]
    assert found, [t.get("name") for t in card.spec["data"]]
    return found[0]


def test_every_figure_in_reading_order_can_be_read_without_its_picture(run: RunData) -> None:
    held = cards(run)
    assert [card.id for card in held] == IDS
    for card in held:
        assert len(card.alt) > 40
        assert "nan" not in card.alt.lower(), card.alt
        assert len(card.how_to_read) > 60
        assert len(card.data) > 0
        assert "NaN" not in json.dumps(card.figure.layout.to_plotly_json(), default=str)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("retrieval", {"head-map", "head-ranking", "head-overlap", "head-tokens"}),
        ("ablation", {"head-ablation", "head-grid"}),
        ("single", {"head-single"}),
        ("types", {"head-map", "head-types"}),
        ("shapes", {"head-map", "head-attention"}),
        ("composition", {"head-composition", "head-composition-blocks", "head-spectra"}),
        ("low-rank", {"head-low-rank"}),
    ],
)
def test_a_part_brings_its_own_figures_only(tmp_path: Path, part: str, expected: set[str]) -> None:
    data = _data(tmp_path, parts=(part,))
    assert {card.id for card in cards(data)} == expected
    assert verdict(data).headline


def test_nothing_is_drawn_from_nothing_damage_or_another_analysis(run: RunData) -> None:
    names = tuple(TABLES)
    wrong = pd.DataFrame({"block": ["a", None], "value": [1.0, np.nan], "measure": [1, 2]})
    for analysis in ("retrieval-heads", "circuits"):
        for frame in (wrong, pd.DataFrame(), wrong.iloc[:0]):
            data = RunData(
                tidy([]), info={"analysis": analysis}, table_names=names,
                read_table=lambda _, held=frame: held,
            )  # fmt: skip
            assert cards(data) == []
            assert verdict(data).headline
    other = RunData(run.measurements, None, run.measures, {}, run.table_names, run.read_table)
    assert not {card.id for card in cards(other)} & set(IDS)


@pytest.mark.parametrize("name", sorted(planted.TABLES))
def test_missing_intervals_and_rows_are_survived(tmp_path: Path, name: str) -> None:
    path = planted.write_heads_run(tmp_path)
    file = path / "tables" / f"{name}.parquet"
    frame = pd.read_parquet(file)
    for column in frame.columns:
        if column in ("low", "high", "n", "seed") or column.endswith(("_low", "_high")):
            frame[column] = None
    frame.iloc[::3].to_parquet(file)
    data = RunData.of(RunView(path))
    for card in cards(data):
        card.figure.to_json()
        assert "nan" not in card.alt.lower(), card.alt
    told = verdict(data)
    assert "nan" not in " ".join([told.headline, *told.sentences]).lower()


def test_the_map_holds_every_score_and_frames_the_picked_head(run: RunData) -> None:
    plain, card = head_scores(run), head_scores(run, HeadFocus(head=BEST))
    assert plain is not None
    assert card is not None
    z = np.asarray(card.spec["data"][0]["z"])
    assert z.shape == (planted.HEADS, planted.BLOCKS)
    assert z[3, 16] == planted.PLANTED[BEST]
    assert z == pytest.approx(
        np.array([[planted.score(b, h) for b in range(30)] for h in range(9)])
    )
    assert "shapes" not in plain.spec["layout"]
    assert {shape["x0"] for shape in card.spec["layout"]["shapes"]} == {16 - 0.47}
    assert "shapes" not in head_scores(run, HeadFocus(head=(99, 0))).spec["layout"]  # type: ignore[union-attr]


def test_signed_measures_are_centred_and_others_are_not(run: RunData) -> None:
    copies = head_scores(run, HeadFocus(measure="copy_contribution"))
    scores = head_scores(run, HeadFocus(measure="retrieval_score"))
    assert copies is not None
    assert scores is not None
    colours = copies.spec["layout"]["coloraxis"]
    assert colours["cmin"] == -colours["cmax"]
    assert scores.spec["layout"]["coloraxis"]["cmin"] == 0
    assert "Copy contribution" in copies.title


def test_the_ranking_is_sorted_and_tells_retrieval_heads_apart(run: RunData) -> None:
    card = head_ranking(run, HeadFocus(head=(12, 1)))
    assert card is not None
    dots = _line(card, "heads")
    assert (np.diff(dots["y"]) <= 0).all()
    assert dots["marker"]["color"].count(ACCENT) == len(planted.PLANTED)
    assert dots["meta"]["heads"][0] == [16, 3]
    ring = next(t for t in card.spec["data"] if t["name"] == "picked head")
    assert (ring["x"][0], ring["y"][0]) == (2, planted.PLANTED[12, 1])
    assert "6 at 0.1 or more" in card.alt


def test_ablation_shows_top_against_random_and_the_whole_model(run: RunData) -> None:
    card = head_ablation(run)
    assert card is not None
    for target, name in (
        ("top", "best heads, set to zero"),
        ("random", "random heads, set to zero"),
    ):
        line = _line(card, name)
        expected = [0.9 - planted.loss(target, k, "needle_accuracy", 1.0) for k in planted.KS]
        assert line["x"].tolist() == list(planted.KS)  # not the whole model at k = 0
        assert line["y"] == pytest.approx(expected)
    wholes = [s["y0"] for s in card.spec["layout"]["shapes"]]
    assert wholes == list(planted.BASE.values())


def test_the_grid_and_single_effects_hold_their_tables(run: RunData) -> None:
    grid, single = needle_grid(run), single_effects(run, HeadFocus(head=BEST))
    assert grid is not None
    assert single is not None
    for heat, variant in zip(grid.spec["data"], (None, "zero=top10", "zero=random10"), strict=True):
        expected = [
            [planted.grid_value(variant, t, d, 1.0) for t in planted.LENGTHS]
            for d in planted.DEPTHS
        ]
        assert np.asarray(heat["z"]) == pytest.approx(np.array(expected))
    assert [n["text"] for n in grid.spec["layout"]["annotations"]][:2] == [
        "whole model",
        "without the best 10 heads",
    ]
    assert "rank correlation of effect and score 0.70" in single.alt
    assert single.spec["data"][0]["error_y"]["array"][0] == pytest.approx(0.009)


def test_single_effects_take_the_interval_of_the_difference(tmp_path: Path) -> None:
    path = planted.write_heads_run(tmp_path, parts=("single",))
    file = path / "tables" / "single.parquet"
    frame = pd.read_parquet(file)
    renamed = frame.rename(columns={"low": "difference_low", "high": "difference_high"})
    renamed.to_parquet(file)
    card = single_effects(RunData.of(RunView(path)))
    assert card is not None
    assert card.spec["data"][0]["error_y"]["array"][0] == pytest.approx(0.009)


def test_types_stand_beside_their_control(run: RunData) -> None:
    card = head_types(run)
    assert card is not None
    control = _line(card, "nothing repeats")
    assert control["marker"]["color"] == NEUTRAL
    assert max(control["y"]) < 0.06
    strong = _line(card, "retrieval heads")
    assert [12, 1] in strong["meta"]["heads"]
    assert 0.8 in strong["y"]


def test_composition_names_the_planted_pair_and_follows_the_picked_head(run: RunData) -> None:
    card = composition_pairs(run, HeadFocus(head=(3, 0)))
    assert card is not None
    assert "keys: 3.0 → 12.1 0.310" in card.alt
    pairs = {(b, h) for b, h in zip(card.data["block_from"], card.data["head_from"], strict=True)}
    assert pairs == {(3, 0)}
    assert composition_pairs(run).title.endswith("strongest pairs")  # type: ignore[union-attr]


def test_spectra_of_the_best_and_the_picked_head(run: RunData) -> None:
    card = head_spectra(run, HeadFocus(head=(0, 0)))
    assert card is not None
    assert _line(card, "best head 16.3")["line"]["color"] == ACCENT
    assert _line(card, "picked head 0.0")["line"]["color"] == SELECTED


def test_attention_over_tokens(run: RunData) -> None:
    assert kept_heads(run, 0)[0] == BEST
    assert answer_rows(run, 0, BEST) == {0: "copper", 1: " lantern"}
    shown = token_row(run, 1, BEST, 1)
    assert shown is not None
    assert int(np.argmax(shown.weights)) == 46
    assert shown.weights[46] == planted.PLANTED[BEST]
    assert shown.roles[46] == "needle"
    card = attention_on_tokens(run, HeadFocus(example=1, row=1))
    assert card is not None
    assert "“lantern”" in card.title
    needle = _line(card, "needle")
    assert needle["x"].tolist() == [45, 46]
    assert token_row(run, 1, (0, 0), 0) is None
    assert attention_on_tokens(run, HeadFocus(head=(0, 0))).title == attention_on_tokens(run).title  # type: ignore[union-attr]


def test_heads_by_name(run: RunData) -> None:
    assert heads_of(run)[0] == BEST
    assert len(heads_of(run)) == 270
    for wrong in ("", "16", "16.", ".3", "-1.2", "1.2.3", "a.b", "٣.٣", "9" * 20 + ".1"):
        assert head_of(wrong) is None


def test_words_of_needed_heads(run: RunData) -> None:
    told = verdict(run)
    assert told.headline.startswith(
        "6 of 270 heads (2.2\xa0% [1.8, 2.6]) score as retrieval heads, and ablating the best 10 hurts more"
    )
    words = "\n".join(told.sentences)
    assert "the highest is head 16.3 with 0.620" in words
    assert "Odd and even trials share 85" in words
    assert "not shown to be more than without random heads" in words
    assert "heads with a higher score matter more" in words
    assert "best induction head is 12.1" in words
    assert "also a retrieval head" in words
    assert told.table is not None
    assert told.table.rows[0][:2] == ("1", "16.3")
    assert told.table.rows[0][told.table.columns.index("alone ablated")].startswith("−1.2")
    assert told.table.rows[1][told.table.columns.index("induction")] == "0.800"


def test_single_heads_are_told_with_their_choice_and_the_control(tmp_path: Path) -> None:
    path = planted.write_heads_run(tmp_path)
    words = "\n".join(verdict(RunData.of(RunView(path))).sentences)
    assert "over 50 heads, half of them chosen for a high score, each by 100 trials" in words
    assert "with plain text, 0.05 [−0.05, 0.15])" in words
    file = path / "measurements.parquet"
    frame = pd.read_parquet(file)
    control = frame["variant"].eq("control_logprob")
    frame.loc[control, ["value", "low", "high"]] = [0.6, 0.5, 0.7]
    frame.to_parquet(file)
    words = "\n".join(verdict(RunData.of(RunView(path))).sentences)
    assert "such heads matter so for text that needs no retrieval too" in words


def test_a_pair_is_named_only_above_the_highest_of_all_by_chance(tmp_path: Path) -> None:
    path = planted.write_heads_run(tmp_path, parts=("composition",))
    told = "\n".join(verdict(RunData.of(RunView(path))).sentences)
    assert "1 of 3,915 pairs of heads compose more than chance allows" in told
    assert "3.0 → 12.1 through keys: 0.310" in told
    file = path / "tables" / "composition.parquet"
    frame = pd.read_parquet(file)
    frame.assign(floor_max_high=0.4).to_parquet(file)  # each pair alone is far above its floor
    told = "\n".join(verdict(RunData.of(RunView(path))).sentences)
    assert "No pair of heads is shown to compose" in told
    frame.drop(columns="floor_max_high").to_parquet(file)
    told = "\n".join(verdict(RunData.of(RunView(path))).sentences)
    assert "No pair of heads can be named" in told


def test_tables_beside_figures_hold_what_is_drawn(run: RunData) -> None:
    """Not every singular value of every head: they made half of a report."""
    held = {card.id: card for card in cards(run)}
    spectra = held["head-spectra"].data
    assert len(spectra) == 2 * 32 * 4  # circuits, ranks; three quantiles and the best head
    assert "16.3" in set(spectra["heads"])
    assert len(held["head-composition-blocks"].data) == 200
    assert held["head-composition-blocks"].data["value"].max() == 0.31


def test_words_are_honest_where_nothing_is_shown(tmp_path: Path) -> None:
    told = verdict(_data(tmp_path, strength=0.0))
    assert "is not shown to hurt more than random heads" in told.headline
    assert "the score is not shown to say which head matters" in "\n".join(told.sentences)


def test_words_without_any_retrieval_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "PLANTED", {})
    told = verdict(_data(tmp_path, parts=("retrieval",)))
    assert told.headline == "No head is a retrieval head here: none of 270 scores 0.1 or more"


def test_a_control_that_is_hurt_is_told(tmp_path: Path) -> None:
    path = planted.write_heads_run(tmp_path, parts=("retrieval", "ablation"))
    file = path / "tables" / "ablation.parquet"
    frame = pd.read_parquet(file)
    bad = frame["measure"].eq("control_logprob") & frame["target"].eq("top")
    for name, value in (("", -0.5), ("_low", -0.6), ("_high", -0.4)):
        frame.loc[bad, f"over_random{name}"] = value
        frame.loc[bad, f"difference{name}"] = value
    frame.to_parquet(file)
    words = "\n".join(verdict(RunData.of(RunView(path))).sentences)
    assert "these heads do more than retrieve" in words


def test_hostile_tokens_are_inert_in_every_figure(tmp_path: Path) -> None:
    for card in cards(_data(tmp_path, hostile=True)):
        held = json.dumps(card.figure.to_plotly_json(), default=str)
        for bad in ("<script", "<img", "<a ", "%{x}"):
            assert bad not in held, card.id


def _headline(path: Path) -> str:
    return verdict(RunData.of(RunView(path))).headline


def test_words_follow_what_was_shown(tmp_path: Path) -> None:
    """Answers lost; not lost but less likely; neither; and not to be told without an interval."""
    path = planted.write_heads_run(tmp_path)
    assert "hurts more than random heads" in _headline(path)
    file = path / "tables" / "ablation.parquet"
    frame = pd.read_parquet(file)
    ends = ["over_random", "over_random_low", "over_random_high"]
    answers = frame["measure"].eq("needle_accuracy") & frame["target"].eq("top")
    frame.loc[answers, ends] = [-0.1, -0.3, 0.1]
    frame.to_parquet(file)
    assert "makes answers less likely than random heads do" in _headline(path)
    frame.loc[frame["target"].eq("top"), ends] = [-0.1, -0.3, 0.1]
    frame.to_parquet(file)
    assert "not shown to hurt more" in _headline(path)
    frame.loc[frame["target"].eq("top"), ends[1:]] = pd.NA
    frame.to_parquet(file)
    assert "cannot be told" in _headline(path)
    assert "(without an interval)" in "\n".join(verdict(RunData.of(RunView(path))).sentences)


def test_an_encoder_is_told_by_attention_from_the_question(tmp_path: Path) -> None:
    path = planted.write_heads_run(tmp_path)
    file = path / "measurements.parquet"
    frame = pd.read_parquet(file)
    kept = ~frame["measure"].isin(["retrieval_score", "copy_contribution", "induction_score"])
    frame[kept].to_parquet(file)
    told = verdict(RunData.of(RunView(path)))
    assert "looks most from the question at the fact" in told.headline
    assert told.table is not None
    assert "by attention from the question" in told.table.note
    assert "Copies" not in told.table.note
