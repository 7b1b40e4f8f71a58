"""The whole study on tiny models: tables as they are promised, what does not apply, and what a stopped run keeps."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_heads import planted_model

from probes.errors import DoesNotApply, InputError
from probes.heads.circuits import CircuitPlan, Study, study_circuits
from probes.heads.circuits.names import TASK_PARTS
from probes.heads.circuits.parts import graph
from probes.heads.circuits.tidied import energy_rows
from probes.runs import Findings, Previous
from probes.tables import tidy

SPAN = "value low high n seed"
COLUMNS = {
    "attribution": f"task component block head {SPAN}",
    "patching": f"task method level layer block head positions {SPAN}",
    "strongest": f"task block head fresh {SPAN}",
    "agreement": "task level pearson low high n seed",
    "faithfulness": f"task ranking heads_kept share {SPAN}",
    "lens": "task layer logprob logprob_low logprob_high rank logit_difference logit_difference_low "
    "logit_difference_high top1 top1_low top1_high n seed",
    "tasks": "task n skipped reason accuracy low high logit_difference_clean logit_difference_corrupted "
    "example_clean example_corrupted answer wrong",
    "applies": "part task applies reason",
}
FILLER = ("a", "cat", "dog", "bird", "tree", "house", "river", "stone", "sun", "moon")


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """20 prompts that the planted induction head completes."""
    path = tmp_path / "induction.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["clean", "corrupted", "answer", "wrong"])
        for i in range(20):
            a, b, c, d = (FILLER[(i + k * (1 + 2 * (i // 10))) % 10] for k in range(4))
            writer.writerow([f"sees {a} {b} sings {a}", f"sees {c} {b} sings {a}", b, d])
    return path


def plan(path: Path | None, parts: str = ",".join(TASK_PARTS), **more: Any) -> CircuitPlan:
    given: dict[str, Any] = {"tasks": frozenset(), "patched": 8, "draws": 200, **more}
    return CircuitPlan(frozenset(parts.split(",")), path=None if path is None else str(path), **given)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    return planted_model()[0]


def check_tables(found: Findings) -> None:
    for name, table in found.tables.items():
        assert sorted(table.columns) == sorted(COLUMNS[name].split()), name
        for column in table.select_dtypes("number"):
            assert np.isfinite(table[column].dropna().to_numpy(float)).all(), (name, column)


def test_all_parts_of_a_task(model: Any, pairs_file: Path) -> None:
    found = Findings()
    study_circuits(model, plan(pairs_file), found)
    assert set(found.tables) == set(COLUMNS)
    check_tables(found)
    applies = found.tables["applies"]
    assert applies["applies"].all()
    assert applies["part"].tolist() == list(TASK_PARTS)
    assert set(applies["task"]) == {"induction"}
    tasks = found.tables["tasks"].iloc[0]
    assert (tasks["n"], tasks["accuracy"], tasks["answer"]) == (20, 1.0, tasks["example_clean"].split()[2])  # fmt: skip
    rows = pd.concat(found.frames)
    assert set(rows["measure"]) == {
        "task_accuracy", "direct_logit_attribution", "activation_patching", "patching_agreement", "cpr", "cmd",
        "answer_suppression",
    }  # fmt: skip
    assert set(rows["dataset"]) == {"induction"}
    heads = rows[rows["measure"] == "activation_patching"]
    assert len(heads) == 12
    best = heads[heads["value"] > 0.9]
    assert sorted(zip(best["block"], best["head"], strict=True)) == [(0, 1), (1, 2)]
    curves = found.tables["faithfulness"]
    signed = {"activation", "attribution", "dla"}
    assert set(curves["ranking"]) == signed | {f"{name}:absolute" for name in signed} | {"random"}
    areas = rows[rows["measure"].isin(["cpr", "cmd"])]
    for measure, own in areas.groupby("measure"):
        assert sorted(own["variant"]) == ["activation", "attribution", "dla", "random"], measure
    again = found.tables["strongest"]
    assert again["fresh"].eq(1).all()  # measured on pairs that did not pick them
    assert set(again["n"]) == {12}
    assert len(again) == 5
    shown = again[again["low"] > 0]
    assert sorted(zip(shown["block"], shown["head"], strict=True)) == [(0, 1), (1, 2)]
    assert set(curves["n"]) == {12}  # heads are judged on pairs that no ranking has seen
    patching = found.tables["patching"]
    assert set(patching["method"]) == {"activation", "attribution"}
    assert set(patching["n"]) == {8}
    own = patching[(patching["level"] == "resid") & (patching["positions"] == "all")]
    assert np.allclose(own[own["method"] == "activation"]["value"].astype(float), 1, atol=1e-4)
    total = found.tables["attribution"]
    parts = total[total["component"] != "total"]["value"].sum()
    assert parts == pytest.approx(total[total["component"] == "total"]["value"].item(), rel=1e-3)


def test_rankings_are_judged_by_their_own_pairs_only_where_there_are_no_others(
    model: Any, pairs_file: Path
) -> None:
    found = Findings()
    study_circuits(model, plan(pairs_file, "faithfulness", pairs=10), found)
    assert any("ranked on the pairs that they are judged by" in note for note in found.notes)
    curves = found.tables["faithfulness"]
    rankings = {name.removesuffix(":absolute") for name in curves["ranking"]}
    assert rankings == {"attribution", "dla", "random"}  # nothing was patched
    assert set(curves["n"]) == {10}


def test_heads_are_shown_on_their_own_pairs_only_where_there_are_no_others(
    model: Any, pairs_file: Path
) -> None:
    found = Findings()
    study_circuits(model, plan(pairs_file, "patching", pairs=10), found)
    again = found.tables["strongest"]
    assert again["fresh"].eq(0).all()
    assert len(again) == 12  # all heads, bounds for all of them at once
    assert set(again["n"]) == {8}


def test_what_does_not_apply_leaves_its_reason(tiny: Callable[[str], Any]) -> None:
    found = Findings()
    study_circuits(tiny("bert"), plan(None, tasks=frozenset({"ioi"})), found)
    applies = found.tables["applies"]
    assert applies["part"].tolist() == list(TASK_PARTS)
    assert applies["reason"].str.contains("no language-model head").all()
    assert not applies["applies"].any()
    found = Findings()
    study_circuits(tiny("llama"), plan(None, tasks=frozenset({"ioi"})), found)
    (row,) = found.tables["applies"].to_dict("records")
    assert (row["part"], row["task"], row["applies"]) == ("tasks", "ioi", False)
    assert "unknown to the tokenizer" in row["reason"]


def test_a_stopped_study_goes_on_where_it_was(
    model: Any, pairs_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Findings()
    study_circuits(model, plan(pairs_file), whole)

    class Stopped(Exception):
        pass

    class Stopping(Findings):
        def write_table(self, name: str, frame: pd.DataFrame) -> None:
            if name == "faithfulness":
                raise Stopped
            super().write_table(name, frame)

    first = Stopping()
    with pytest.raises(Stopped):
        study_circuits(model, plan(pairs_file), first)
    previous = Previous(pd.concat(first.frames, ignore_index=True), first.tables)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("done a second time")

    monkeypatch.setattr("probes.heads.circuits.parts.patch_activations", refuse)
    again = (
        Stopping()
    )  # stopped once more before anything new is done: nothing of the first is lost
    with pytest.raises(Stopped):
        study_circuits(model, plan(pairs_file), again, previous=previous)
    assert again.tables["applies"]["part"].tolist() == ["attribution", "patching"]
    second = Findings()
    study_circuits(model, plan(pairs_file), second, previous=previous)
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(second.tables.get(name, first.tables.get(name)), table)
    key = ["measure", "block", "head", "variant"]
    own, expected = (
        pd.concat(f.frames).sort_values(key).reset_index(drop=True) for f in (second, whole)
    )
    pd.testing.assert_frame_equal(own, expected)


def graph_table() -> pd.DataFrame:
    rows = [
        {"variant": variant, "layer": layer, "context": 50, "energy": 0.5, "low": 0.4, "high": 0.6, "permuted": 1.0,
         "permuted_low": 0.9, "permuted_high": 1.1, "difference": None if variant else -0.2,
         "difference_low": None if variant else -0.3, "difference_high": None if variant else -0.1, "n": 8, "seed": 0}
        for variant in (None, "rewired") for layer in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows).convert_dtypes()


def test_every_number_of_a_graph_is_a_measurement() -> None:
    rows = tidy(energy_rows(graph_table().assign(more=1.0, other=2.0)))
    assert set(rows["concept"]) == {"50 tokens"}
    assert set(rows["dataset"]) == {"walks-on-a-grid"}
    own = rows[rows["measure"] == "graph_energy"].groupby("variant", dropna=False)["value"].mean()
    assert {None if pd.isna(k) else k: v for k, v in own.items()} == {
        None: 0.5, "permuted": 1.0, "rewired": 0.5, "rewired, permuted": 1.0
    }  # fmt: skip
    learned = rows[rows["measure"] == "graph_energy_difference"]
    assert learned["layer"].tolist() == [0, 1, 2]
    assert learned["variant"].isna().all()
    assert (learned["high"] < 0).all()


def test_parts_of_the_model_reach_the_measurements_and_stay_there(
    tiny: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neurons by block in the tidy rows, with their dataset; a study that goes on takes them over."""
    model = tiny("llama")
    found = Findings()
    study_circuits(model, plan(None, "neurons", pairs=20), found)
    table, rows = found.tables["neurons"], pd.concat(found.frames)
    assert len(rows) == len(table)
    assert set(rows["measure"]) == {"activation_sparsity", "core_stability", "core_similarity"}
    assert set(rows["dataset"]) == {"docstring-pairs"}
    assert rows["value"].tolist() == pytest.approx(table["value"].tolist())
    assert sorted(rows["block"].unique()) == list(range(model.n_layers))
    monkeypatch.setattr("probes.heads.neurons.neuron_table", None)  # not done a second time
    again = Findings()
    previous = Previous(rows.reset_index(drop=True), found.tables)
    study_circuits(model, plan(None, "neurons", pairs=20), again, previous=previous)
    assert len(pd.concat(again.frames)) == len(rows)


@pytest.mark.parametrize(("longest", "expected"), [(100, [50]), (101, [50, 100]), (50, None)])
def test_a_walk_and_the_first_token_must_fit_the_model(
    longest: int, expected: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def energy(model: Any, *, contexts: list[int], seed: int) -> Any:
        asked.append(contexts)
        nodes = pd.DataFrame({"layer": [0]})
        return SimpleNamespace(energy=graph_table(), nodes=nodes, edges=nodes)

    monkeypatch.setattr("probes.heads.flow.graph_energy", energy)
    found = Findings()
    model: Any = SimpleNamespace(name="short", max_length=longest, require_tokenizer=None)
    study = Study(model, plan(None, "graph"), found, lambda *_: None)
    if expected is None:
        with pytest.raises(DoesNotApply, match="after a first token"):
            graph(study)
        return
    graph(study)
    assert asked == [expected]
    assert len(pd.concat(found.frames)) == 3 * 5


def test_a_task_that_the_model_does_not_do_is_noted(model: Any, pairs_file: Path) -> None:
    lines = pairs_file.read_text().splitlines()
    swapped = [",".join([c, k, w, a]) for c, k, a, w in (line.split(",") for line in lines[1:])]
    pairs_file.write_text("\n".join([lines[0], *swapped]))
    found = Findings()
    study_circuits(model, plan(pairs_file, "lens"), found)
    assert found.tables["tasks"]["accuracy"].item() == 0
    assert any("not shown to beat the wrong one" in note for note in found.notes)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"parts": frozenset({"lense"})}, "did you mean 'lens'"),
        ({"tasks": frozenset({"iio"})}, "did you mean 'ioi'"),
        ({"pairs": 2}, "at least 4"),
    ],
)
def test_plans_that_mean_nothing(more: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CircuitPlan(**more)


def test_a_file_of_which_nothing_can_be_used_ends_the_study(
    tiny: Callable[[str], Any], tmp_path: Path
) -> None:
    path = tmp_path / "other.csv"
    path.write_text("clean,corrupted,answer,wrong\nzebra in,yak in,bird,fish\n")
    with pytest.raises(DoesNotApply, match="unknown to the tokenizer"):
        study_circuits(tiny("llama"), plan(path), Findings())
