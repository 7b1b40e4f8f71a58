"""Figures and words of circuits: planted numbers arrive by task; tasks that are not done carry no claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic_circuits as planted

from probes.report import RunData
from probes.report.circuits_found import fewest, first_guess_from, strongest
from probes.report.content import verdict
from probes.report.figures import (
    answer_lens,
    attribution_map,
    cards,
    circuit_tasks,
    component_attribution,
    faithfulness_curves,
    graph_energy,
    label_flow,
    neuron_lines,
    patching_agreement,
    patching_lines,
    patching_map,
)
from probes.report.head_tables import HeadFocus, missing, tasks_of
from probes.report.theme import NEUTRAL, SELECTED
from probes.runs import RunView

IDS = [
    "circuit-tasks", "circuit-lens", "circuit-components", "circuit-attribution", "circuit-patching",
    "circuit-patching-heads", "circuit-agreement", "circuit-faithfulness", "circuit-flow", "circuit-graph",
    "circuit-graph-map", "circuit-neurons",
]  # fmt: skip
GREATER = HeadFocus(task="greater_than")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    return RunData.of(RunView(planted.write_circuits_run(tmp_path_factory.mktemp("circuits"))))


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
        assert "NaN" not in json.dumps(card.figure.layout.to_plotly_json(), default=str)


@pytest.mark.parametrize("part", planted.PARTS)
def test_a_part_brings_its_own_figures_and_reasons_for_the_rest(tmp_path: Path, part: str) -> None:
    data = RunData.of(RunView(planted.write_circuits_run(tmp_path, parts=(part,))))
    expected = {
        "attribution": {"circuit-components", "circuit-attribution"},
        "patching": {"circuit-patching", "circuit-patching-heads", "circuit-agreement"},
        "faithfulness": {"circuit-faithfulness"},
        "lens": {"circuit-lens"},
        "flow": {"circuit-flow"},
        "graph": {"circuit-graph", "circuit-graph-map"},
        "neurons": {"circuit-neurons"},
    }[part]
    assert {card.id for card in cards(data)} == expected | {"circuit-tasks"}
    assert set(missing(data)) == set(planted.PARTS) - {part}
    assert any(line.startswith("Not measured: ") for line in verdict(data).sentences)


@pytest.mark.parametrize("name", sorted(planted.TABLES))
def test_missing_intervals_and_rows_are_survived(tmp_path: Path, name: str) -> None:
    path = planted.write_circuits_run(tmp_path)
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


def test_tasks_stand_grey_where_the_model_guesses(run: RunData) -> None:
    card = circuit_tasks(run)
    assert card is not None
    bars = card.spec["data"][0]
    assert bars["x"].tolist() == list(planted.TASKS.values())
    assert [colour == NEUTRAL for colour in bars["marker"]["color"]] == [False, False, True]
    assert _line(card, "clean", "x2")["x"].tolist() == [2.6, 1.4, 0.02]


def test_figures_follow_the_task_in_focus(run: RunData) -> None:
    assert tasks_of(run) == list(planted.TASKS)
    for build in (attribution_map, patching_map):
        for focus, best in (
            (HeadFocus(), (9, 2)),
            (GREATER, (8, 1)),
            (HeadFocus(task="?"), (9, 2)),
        ):
            card = build(run, focus)
            assert card is not None
            z = np.asarray(card.spec["data"][0]["z"])
            head, block = np.unravel_index(int(np.argmax(np.abs(z))), z.shape)
            assert (block, head) == best
            colours = card.spec["layout"]["coloraxis"]
            assert colours["cmin"] == -colours["cmax"]
    marked = attribution_map(run, HeadFocus(head=(7, 3)))
    assert marked is not None
    assert {s["x0"] for s in marked.spec["layout"]["shapes"]} == {7 - 0.47}


def test_bars_add_up_to_the_total(run: RunData) -> None:
    card = component_attribution(run)
    assert card is not None
    total = card.data.loc[card.data["component"] == "total", "value"].iloc[0]
    assert sum(float(np.sum(t["y"])) for t in card.spec["data"]) == pytest.approx(total)
    attention = _line(card, "attention")
    assert attention["y"][9] == pytest.approx(
        sum(planted.head_value("ioi", 9, h) for h in range(planted.HEADS))
    )


def test_patching_by_group_of_tokens(run: RunData) -> None:
    card = patching_lines(run)
    assert card is not None
    changed, last = _line(card, "changed tokens"), _line(card, "last token")
    assert changed["y"][0] > 0.9 > changed["y"][-1]
    assert last["y"][-1] > 0.9 > last["y"][0]
    assert len({t["xaxis"] for t in card.spec["data"]}) == 3


def test_agreement_pairs_the_same_places(run: RunData) -> None:
    card = patching_agreement(run, HeadFocus(head=(9, 2)))
    assert card is not None
    heads = _line(card, "places", "x4")
    at = heads["meta"]["heads"].index([9, 2])
    assert heads["marker"]["color"][at] == SELECTED
    assert heads["y"][at] == pytest.approx(0.85 * planted.patched("ioi", 9, 2), abs=0.02)
    assert "r = 0.93" in [n["text"] for n in card.spec["layout"]["annotations"]]


def test_faithfulness_keeps_zero_heads_on_a_logarithmic_axis(run: RunData) -> None:
    card = faithfulness_curves(run)
    assert card is not None
    best, random = _line(card, "activation patching"), _line(card, "random order")
    assert best["x"].tolist() == [0.5, *planted.KEPT[1:]]
    assert best["y"] == pytest.approx([planted.faithful("activation", n) for n in planted.KEPT])
    assert (best["y"] >= random["y"] - 1e-9).all()
    assert card.spec["layout"]["xaxis"]["ticktext"][0] == "0"
    assert random["line"]["color"] == NEUTRAL


def test_lens_flow_graph_and_neurons(run: RunData) -> None:
    lens = answer_lens(run, HeadFocus(task="ioi"))
    assert lens is not None
    line = _line(lens, "indirect object")
    assert line["line"]["color"] == SELECTED
    assert line["y"] == pytest.approx([planted.logprob("ioi", k) for k in range(13)])
    flow = label_flow(run)
    assert flow is not None
    assert max(_line(flow, "random labels")["y"]) == pytest.approx(0.3)
    assert _line(flow, "texts → label words")["y"][0] == pytest.approx(1.0)
    graph = graph_energy(run)
    assert graph is not None
    assert _line(graph, "layer 12")["y"][-1] == pytest.approx(planted.energy(12, 1400))
    neurons = neuron_lines(run)
    assert neurons is not None
    assert _line(neurons, "random pairs", "x2")["y"][0] == pytest.approx(0.1)


def test_words_and_table(run: RunData) -> None:
    told = verdict(run)
    assert told.headline.startswith(
        "The model does 2 of 3 tasks (indirect object and greater than)"
    )
    assert "20 of 72 heads, with all MLPs, keep 80" in told.headline
    words = "\n".join(told.sentences)
    assert "Not shown to be done: docstring" in words
    assert "indirect object by 9.2 (0.48 [0.43, 0.53]) and 10.0 (0.31 [0.26, 0.36])" in words
    assert "on other pairs than those that picked the heads; bounds for all heads together" in words
    assert "MLPs intact" in words
    assert "no number of random ones tried does" in words
    assert "Attribution patching may be trusted here" in words
    assert "The last layers take the answer back" in words
    assert "greater than 0.00" not in words  # not shown, not told
    assert told.table is not None
    keep = next(at for at, name in enumerate(told.table.columns) if name.startswith("keep"))
    assert [row[keep] for row in told.table.rows] == [
        "20",
        "20",
        "–",
    ]  # nothing keeps what is not done
    assert [row[0] for row in told.table.rows] == ["indirect object", "greater than", "docstring"]


def test_the_fewest_heads_must_be_shown_to_keep_it(run: RunData) -> None:
    few = fewest(run, "ioi")
    assert few is not None
    assert few["heads_kept"] == 20
    assert few["low"] >= 0.8
    assert fewest(run, "ioi", "random") is None  # all heads together are no finding
    assert [(r["block"], r["head"]) for r in strongest(run, "ioi")][:2] == [(9, 2), (10, 0)]


def _changed(parent: Path, name: str, change: Any) -> RunData:
    path = planted.write_circuits_run(parent)
    file = path / "tables" / f"{name}.parquet"
    change(pd.read_parquet(file)).to_parquet(file)
    return RunData.of(RunView(path))


def test_a_curve_that_falls_again_is_kept_by_no_number_before(tmp_path: Path) -> None:
    """One ranking is asked, the best that was measured; what it reaches at 5 heads and loses at 20 is not kept."""

    def fall(frame: pd.DataFrame) -> pd.DataFrame:
        at = frame["task"].eq("ioi") & frame["ranking"].eq("activation")
        for kept, value in ((5, 1.3), (10, 1.2), (20, 0.5), (40, 0.95)):
            rows = at & frame["heads_kept"].eq(kept)
            frame.loc[rows, ["value", "low", "high"]] = [value, value - 0.04, value + 0.04]
        return frame

    data = _changed(tmp_path, "faithfulness", fall)
    few = fewest(data, "ioi")
    assert few is not None
    assert (
        few["heads_kept"] == 40
    )  # attribution keeps it with 20, but is not the ranking that is asked
    words = "\n".join(verdict(data).sentences)
    assert "indirect object is kept by 40 of 72 heads" in words

    def wider(frame: pd.DataFrame) -> pd.DataFrame:
        frame = fall(frame)
        rows = frame["ranking"].eq("activation") & frame["heads_kept"].eq(40)
        frame.loc[rows, "low"] = 0.7  # not shown with more heads: not kept
        return frame

    (tmp_path / "b").mkdir()
    data = _changed(tmp_path / "b", "faithfulness", wider)
    assert fewest(data, "ioi") is None
    words = "\n".join(verdict(data).sentences)
    assert "indirect object is not kept by any number of heads tried short of all" in words
    assert "with the best 5 heads it is even 130" in words


def test_the_first_guess_must_last_to_the_end(run: RunData, tmp_path: Path) -> None:
    assert first_guess_from(run, "ioi") == 10  # 0.96 · (10 / 12)² − 0.1 ≥ 0.5

    def lose(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[frame["layer"].eq(11), "top1_low"] = 0.2
        return frame

    data = _changed(tmp_path, "lens", lose)
    assert first_guess_from(data, "ioi") == 12
    assert "from layer 12 on" in "\n".join(verdict(data).sentences)


@pytest.mark.parametrize("fresh", [True, False])
def test_heads_whose_bounds_reach_zero_are_not_named(tmp_path: Path, fresh: bool) -> None:
    def widen(frame: pd.DataFrame) -> pd.DataFrame:
        frame["fresh"] = int(fresh)
        frame.loc[frame["value"] < 0.4, "low"] = -0.01
        return frame

    data = _changed(tmp_path, "strongest", widen)
    assert [(r["block"], r["head"]) for r in strongest(data, "ioi")] == [(9, 2)]
    words = "\n".join(verdict(data).sentences)
    assert ("which flatters them" in words) != fresh


def test_pointwise_intervals_alone_are_widened(tmp_path: Path) -> None:
    """A run without the table `strongest`: one of 72 heads must be shown against all of them."""

    def narrow(frame: pd.DataFrame) -> pd.DataFrame:
        heads = frame["level"].eq("head") & frame["method"].eq("activation")
        frame.loc[heads, ["value", "low", "high"]] = [0.1, 0.02, 0.18]
        frame.loc[heads & frame["head"].eq(2) & frame["block"].eq(9), "low"] = 0.09
        return frame

    _changed(tmp_path, "patching", narrow)
    for file in tmp_path.glob("**/strongest.parquet"):
        file.unlink()
    data = RunData.of(RunView(next(tmp_path.glob("*/run.json")).parent))
    assert [(r["block"], r["head"]) for r in strongest(data, "ioi")] == [(9, 2)]


def test_words_of_label_words_and_neurons(run: RunData) -> None:
    words = "\n".join(verdict(run).sentences)
    assert (
        "Information flow (sentiment) is strongest from the texts into label words at block 0 (1"
        in words
    )
    assert "from label words to the answer at block 11" in words
    assert "with random labels 0.3" in words
    assert "Neurons of the MLPs by block: 0.60 to 0.82 of them are all but silent" in words
    assert "of another text 0.10), with the whole interval above it in 12 of 12 blocks" in words


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, "is not shown to be trustworthy"), (None, "may be trusted in part")],
)
def test_attribution_patching_is_not_trusted_without_agreement(
    tmp_path: Path, value: float | None, expected: str
) -> None:
    path = planted.write_circuits_run(tmp_path)
    file = path / "tables" / "agreement.parquet"
    frame = pd.read_parquet(file)
    rows = frame["level"].eq("head") if value is None else frame["level"].notna()
    frame.loc[rows, ["pearson", "low", "high"]] = [0.5, 0.4, 0.6]
    frame.to_parquet(file)
    assert expected in "\n".join(verdict(RunData.of(RunView(path))).sentences)


def test_a_model_that_does_no_task_carries_no_claim(tmp_path: Path) -> None:
    path = planted.write_circuits_run(tmp_path)
    file = path / "tables" / "tasks.parquet"
    pd.read_parquet(file).assign(accuracy=0.5, low=0.4, high=0.6).to_parquet(file)
    told = verdict(RunData.of(RunView(path)))
    assert told.headline.startswith("The model is not shown to do any of the 3 tasks")
    assert "Heads that carry most" not in "\n".join(told.sentences)


def test_hostile_names_are_inert_in_every_figure(tmp_path: Path) -> None:
    data = RunData.of(RunView(planted.write_circuits_run(tmp_path, hostile=True)))
    for card in cards(data):
        held = json.dumps(card.figure.to_plotly_json(), default=str)
        for bad in ("<script", "<img", "<a ", "%{x}"):
            assert bad not in held, card.id
