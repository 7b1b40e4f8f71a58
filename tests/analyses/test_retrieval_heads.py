"""Retrieval heads from the command line: a planted model's head is found and shown to be needed; mistakes; a stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_heads import HEADS, PLACES, SECRETS, planted_model

import probes.heads.retrieval.study as running_trials
from probes.analysis import load_analysis
from probes.cli.main import app
from probes.cli.run import command_for, run_app
from probes.cli.shell import invoke
from probes.heads.retrieval import measure_trial
from probes.heads.study import HeadPlan, NeedlePlan, TrialPlan, retrieving, study_heads
from probes.report import RunData
from probes.report.verdict import verdict
from probes.runs import Findings, Previous, Run, RunView, list_runs

_NAMES = ("cat", "dog", "bird", "tree", "river", "stone", "sun", "moon")
QUICK = ["--lengths", "70,90", "--trials", "24", "--ablation-trials", "12", "--random-sets", "3"]
QUICK += ["--single-heads", "12", "--top", "1,2", "--depths", "0.2,0.5,0.8"]


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not any(command.name == "retrieval-heads" for command in run_app.registered_commands):
        analysis = load_analysis("retrieval-heads")
        run_app.command("retrieval-heads", help=analysis.question)(command_for(analysis))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model as a transformers folder."""
    folder = tmp_path_factory.mktemp("planted")
    model, _ = planted_model()
    model.hf_model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def story(tmp_path: Path) -> Path:
    """Text of the planted model's filler words."""
    rng = np.random.default_rng(0)
    words = ["cat", "dog", "bird", "tree", "house", "river", "stone", "sun", "moon"]
    lines = [
        f"a {a} is in a {b}. the {c} runs in the {d}." for a, b, c, d in rng.choice(words, (120, 4))
    ]
    path = tmp_path / "story.txt"
    path.write_text("\n".join(dict.fromkeys(lines)))
    return path


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    """Needles in the planted model's words."""
    path = tmp_path / "facts.jsonl"
    rows = [
        {
            "sentence": f"the secret word of {place} is {secret}.",
            "answer": secret,
            "question": f"what is the secret word of {place}?",
            "lead": f"the secret word of {place} is",
        }
        for place, secret in zip(PLACES * 3, SECRETS, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def run(model: Path | str, *more: str) -> int:
    return invoke(app, ["run", "retrieval-heads", "--model", str(model), *more])


def test_the_planted_head_is_found_and_needed(
    planted: Path, home: Path, story: Path, facts: Path
) -> None:
    assert run(planted, "--data", str(story), "--needles", str(facts), *QUICK) == 0
    (view,) = list_runs(home / "runs")
    assert view.status == "finished"
    applies = view.table("applies").set_index("part")
    assert applies["applies"].to_dict() == dict.fromkeys(
        ("retrieval", "ablation", "single", "types", "shapes", "composition", "low-rank"), True
    )
    rows = view.measurements
    scores = rows[rows["measure"] == "retrieval_score"].set_index(["block", "head"])["value"]
    assert scores[HEADS["copy"]] == pytest.approx(1.0)
    # The induction head looks at whatever followed "is", at the needle's answer among others, in near equal shares.
    assert scores.drop([HEADS["copy"], HEADS["induction"]]).max() == 0
    assert scores[HEADS["induction"]] < 0.9
    induction = rows[(rows["measure"] == "induction_score") & rows["variant"].isna()]
    best = induction.loc[induction["value"].astype(float).idxmax()]
    assert (best["block"], best["head"]) == HEADS["induction"]

    table = view.table("ablation")
    one = table[(table["mode"] == "zero") & (table["k"] == 1)].set_index(["target", "measure"])
    assert one["value"]["top", "needle_accuracy"] < 0.3
    assert one["value"]["random", "needle_accuracy"] == 1
    assert one["over_random_high"]["top", "needle_accuracy"] < 0
    assert one["over_random_low"]["top", "control_logprob"] == pytest.approx(0, abs=0.05)
    whole = rows[(rows["measure"] == "needle_accuracy") & rows["variant"].isna()]
    assert whole["value"].tolist() == [1.0]
    assert set(rows["variant"].dropna()) >= {"zero=top1", "mean=random2"}
    assert {"needle_accuracy", "copying_score"} <= set(view.measures)
    grid = view.table("ablation_grid")
    assert set(grid["depth"]) == {0.2, 0.5, 0.8}
    assert (
        grid[grid["variant"].isna() & (grid["measure"] == "needle_accuracy")]["value"] == 1
    ).all()

    single = view.table("single")
    lost = single[single["measure"] == "answer_logprob"].set_index(["block", "head"])["difference"]
    assert set(lost.nsmallest(2).index) == {HEADS["copy"], HEADS["previous"]}  # which it reads from

    ranks = sorted(set(view.table("low_rank")["rank"]))
    assert ranks[:-1] == [4**power for power in range(len(ranks) - 1)]

    shown = view.table("attention_rows")
    copy = shown[(shown["block"] == HEADS["copy"][0]) & (shown["head"] == HEADS["copy"][1])]
    roles = view.table("attention_tokens").set_index("position")["role"]
    seen = copy.loc[copy["weight"].astype(float).idxmax(), "position"]
    assert roles[seen] == "needle"
    pairs = view.table("composition")
    keys = pairs[(pairs["kind"] == "K") & pairs["component"].isna()]
    top = keys.loc[(keys["value"] - keys["floor"]).astype(float).idxmax()]
    assert (top["block_from"], top["head_from"]) == HEADS["previous"]
    found = verdict(RunData.of(view))
    assert found.headline.startswith("2 of 12 heads")
    assert "score as retrieval heads" in found.headline
    assert "hurts more than random heads" in found.headline


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--parts", "ablations"], "did you mean 'ablation'"),
        (["--lengths", "long"], "'long' is no whole number"),
        (["--lengths", "20"], "numbers from 64"),
        (["--depths", "0.5,2"], "from 0 to 1"),
        (["--ablation-modes", "none"], "at least one"),
        (["--ablation-modes", "average"], "Allowed: all, mean, none, zero"),
        (["--random-sets", "2"], "3"),
        (["--mode", "greedy"], "forced"),
        (["--needles", "facts.xyz"], "facts.xyz"),
        (["--data", "refrence"], "did you mean 'reference'"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_run(
    planted: Path, home: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(planted, *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert not list_runs(home / "runs")


def test_an_encoder_has_attention_from_the_question_only(
    tiny_model: Path, home: Path, tmp_path: Path
) -> None:
    from zoo import texts

    path = tmp_path / "words.txt"
    path.write_text("\n".join(f"{text}." for text in dict.fromkeys(texts(400, seed=3, longest=12))))
    needles = tmp_path / "needles.csv"
    needles.write_text(
        "sentence,answer,question\n"
        "the cat likes the red stone.,red stone,one cat likes\n"
        "the king likes the old tree.,old tree,one king likes\n"
    )
    more = ["--data", str(path), "--needles", str(needles), "--lengths", "64", "--trials", "4"]
    assert run(tiny_model, *more) == 0
    (view,) = list_runs(home / "runs")
    applies = view.table("applies").set_index("part")
    assert applies["applies"].to_dict() == {
        "retrieval": True, "ablation": False, "single": False, "types": True, "shapes": True,
        "composition": True, "low-rank": False,
    }  # fmt: skip
    for part in ("ablation", "single", "low-rank"):
        assert "encoder: it says no answer" in applies.loc[part, "reason"]
    measured = set(view.measurements["measure"])
    assert "query_mass" in measured
    assert not {"retrieval_score", "induction_score"} & measured
    assert (view.path / "report.html").stat().st_size > 1000


@pytest.mark.parametrize(
    ("lines", "size"), [(2, "50 bytes"), (8, "56 tokens")], ids=["before loading", "after"]
)
def test_a_text_too_short_for_the_lengths_ends_the_run_in_one_line(
    lines: int,
    size: str,
    planted: Path,
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "short.txt"
    path.write_text("\n".join(f"the {a} is in the house." for a in _NAMES[:lines]))
    assert run(planted, "--data", str(path), "--lengths", "70,90") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "the text has" in line]
    assert len(said) == 1
    assert f"the text has {size}, too few for a context of 90 tokens" in said[0]
    (view,) = list_runs(home / "runs")
    assert view.status == "failed"
    assert "applies" not in view.tables()
    assert "trials" not in view.tables()


def test_a_lead_of_ones_own_is_needed_for_no_needle(story: Path, facts: Path) -> None:
    """Without a lead the reply completes the sentence; with one that leads nowhere, the reason shows what was said."""
    model, _ = planted_model()
    rows = [json.loads(line) for line in facts.read_text().splitlines()]
    parts = frozenset({"retrieval", "ablation"})
    plan = HeadPlan(parts, TrialPlan(4, (70,), (0.5,), needles=NeedlePlan(str(facts))))
    for lead, answered in (("", True), ("a cat", False)):
        facts.write_text("\n".join(json.dumps({**row, "lead": lead}) for row in rows))
        found = Findings()
        study_heads(model, story.read_text().splitlines(), plan, found)
        reasons = found.tables["applies"].set_index("part")["reason"]
        assert (found.tables["trials"]["answered"] == answered).all()
        if answered:
            assert pd.isna(reasons["retrieval"])
            continue
        assert reasons["retrieval"].count("but the model said") == 2
        assert "lead" in reasons["retrieval"]
        assert "no trial was answered verbatim" in reasons["ablation"]


def test_parts_that_need_trials_say_so_where_none_was_run(story: Path) -> None:
    found = Findings()
    plan = HeadPlan(frozenset({"single"}))
    study_heads(planted_model()[0], story.read_text().splitlines(), plan, found)
    assert "no trial was run" in found.tables["applies"]["reason"][0]


def test_a_stopped_run_repeats_no_trial(
    planted: Path, home: Path, story: Path, facts: Path
) -> None:
    script = Path(__file__).parents[2] / "analyses" / "retrieval_heads.py"
    words = ["--model", str(planted), "--data", str(story), "--needles", str(facts)]
    words += ["--lengths", "70,90", "--trials", "200", "--no-early-stop", "--parts", "retrieval"]
    process = subprocess.Popen(
        [sys.executable, str(script), *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, "ended before it could be stopped"
        views = list_runs(home / "runs")
        if views and "head_trials" in views[0].tables():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    (view,) = list_runs(home / "runs")
    assert view.status == "interrupted"
    before = view.table("trials")
    assert 1 <= len(before) < 200
    assert invoke(app, ["run", "--resume", view.slug]) == 0
    view = RunView(view.path)
    assert view.status == "finished"
    after = view.table("trials")
    assert len(after) == 200
    pd.testing.assert_frame_equal(after.iloc[: len(before)], before)


def test_trials_before_a_stop_are_not_measured_again(
    home: Path, story: Path, facts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the part `retrieval`, before any part was finished, and at every place that writes."""
    model, _ = planted_model()
    lines = story.read_text().splitlines()
    trials = TrialPlan(12, (70, 90), (0.2, 0.8), early_stop=False, needles=NeedlePlan(str(facts)))
    plan = HeadPlan(frozenset({"retrieval"}), trials)
    measured: list[str] = []

    def counted(model: Any, trial: Any, *more: Any) -> Any:
        if len(measured) == 7:
            raise KeyboardInterrupt
        measured.append(trial.needle.name)
        return measure_trial(model, trial, *more)

    monkeypatch.setattr(running_trials, "measure_trial", counted)
    monkeypatch.setattr(retrieving, "AT_LEAST", 0.0)
    monkeypatch.setattr(retrieving, "RARELY", 0)  # writes after each trial
    run = Run.create(home, "retrieval-heads", {})
    assert Previous.of(run) is None
    with pytest.raises(KeyboardInterrupt):
        study_heads(model, lines, plan, run)
    assert "applies" not in RunView(run.path).tables()
    previous = Previous.of(run)
    assert previous is not None
    assert previous.done == {}
    before = len(previous.tables["trials"])
    assert before == 7
    measured.clear()
    monkeypatch.setattr(
        running_trials, "measure_trial", lambda *given: measured.append("") or measure_trial(*given)
    )
    again, whole = Findings(), Findings()
    study_heads(model, lines, plan, again, previous=previous)
    assert len(measured) == 12 - before
    study_heads(model, lines, plan, whole)
    assert len(measured) == 24 - before
    for name in whole.tables:
        pd.testing.assert_frame_equal(again.tables[name], whole.tables[name])


def test_a_run_stopped_before_any_part_was_finished_goes_on_in_other_studies(home: Path) -> None:
    """`applies` is there and empty, which is what the other studies ask of it."""
    run = Run.create(home, "circuits", {})
    run.write_table("tasks", pd.DataFrame({"task": ["ioi"]}))
    previous = Previous.of(run)
    assert previous is not None
    assert previous.done == {}
    assert previous.tables["applies"].to_dict("records") == []
    assert previous.rows_of(["cpr"]).empty


@pytest.mark.slow
@pytest.mark.models
def test_retrieval_heads_of_a_real_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2: few heads retrieve, they are the induction heads of its middle, and without ten of them the answer is
    lost, while plain text is hardly touched."""
    if cache := os.environ.get("FATHOMETER_TEST_CACHE"):
        monkeypatch.setenv("FATHOMETER_CACHE", cache)
    more = ["--dtype", "bfloat16", "--lengths", "250", "--trials", "8", "--ablation-trials", "8"]
    more += ["--top", "10", "--random-sets", "8", "--ablation-modes", "zero"]
    assert run("smollm2", *more, "--parts", "retrieval,ablation,types") == 0
    (view,) = list_runs(home / "runs")
    rows = view.measurements
    scores = rows[rows["measure"] == "retrieval_score"].set_index(["block", "head"])["value"]
    assert len(scores) == 270
    assert (scores == 0).mean() > 0.6
    induction = rows[(rows["measure"] == "induction_score") & rows["variant"].isna()]
    induces = induction.set_index(["block", "head"])["value"].astype(float)
    assert induces[scores.astype(float).nlargest(5).index].mean() > 5 * induces.mean()
    table = view.table("ablation")
    top = table[(table["target"] == "top") & (table["k"] == 10)].set_index("measure")
    assert top["over_random_high"]["answer_logprob"] < 0
    assert top["difference"]["control_logprob"] > 0.2 * top["difference"]["answer_logprob"]
