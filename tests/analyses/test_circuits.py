"""Circuits from the command line on a tiny model: tables, report, mistakes in one line, a stopped run; SmolLM2."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from zoo import WORDS, hf_model, tokenizer

from probes.analysis import load_analysis
from probes.cli.main import app
from probes.cli.run import command_for, run_app
from probes.cli.shell import invoke
from probes.runs import RunView, list_runs

QUICK = ["--draws", "200", "--patched", "10"]
TASK_PARTS = "attribution,patching,faithfulness,lens"


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not any(command.name == "circuits" for command in run_app.registered_commands):
        analysis = load_analysis("circuits")
        run_app.command("circuits", help=analysis.question)(command_for(analysis))


@pytest.fixture(scope="module")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-block Llama with random weights as a transformers folder."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    hf_model("llama").save_pretrained(folder)
    tokenizer("decoder").save_pretrained(folder)
    return folder


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """Prompts that differ in their last word: a random model tells these apart in the same way each time."""
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["clean", "corrupted", "answer", "wrong"])
        for word in WORDS[:24]:
            writer.writerow(
                [f"the old {word} sees sun", f"the old {word} sees iron", "red", "blue"]
            )
    return path


def run(model: Path | str, *more: str) -> int:
    return invoke(app, ["run", "circuits", "--model", str(model), *QUICK, *more])


def test_a_users_pairs_give_tables_and_a_report(
    tiny_decoder: Path, home: Path, pairs_file: Path
) -> None:
    assert run(tiny_decoder, "--data", str(pairs_file), "--parts", TASK_PARTS) == 0
    (view,) = list_runs(home / "runs")
    assert view.status == "finished"
    assert {"tasks", "attribution", "lens", "applies"} <= set(view.tables())
    applies = view.table("applies")
    assert set(applies["task"]) == {"mine"}
    assert applies["part"].tolist() == TASK_PARTS.split(",")
    assert applies["applies"].all(), applies["reason"].tolist()
    assert {"patching", "agreement", "faithfulness"} <= set(view.tables())
    assert "direct_logit_attribution" in view.measures
    assert set(view.measurements["dataset"]) == {"mine"}
    assert [data["name"] for data in view.info["datasets"]] == ["mine"]
    for name in ("report.html", "report.md", "measurements.csv"):
        assert (view.path / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--parts", "patchign"], "did you mean 'patching'"),
        (["--data", "oio"], "did you mean 'ioi'"),
        (["--pairs", "1"], "at least 4"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--data", "pairs.doc"], "pairs.doc"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_run(
    tiny_decoder: Path,
    home: Path,
    more: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tiny_decoder, *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert not list_runs(home / "runs")


def test_an_encoder_leaves_reasons(tiny_model: Path, home: Path) -> None:
    assert run(tiny_model, "--parts", f"{TASK_PARTS},flow,graph") == 0
    (view,) = list_runs(home / "runs")
    assert view.status == "finished"
    applies = view.table("applies")
    assert not applies["applies"].any()
    assert applies["reason"].str.len().min() > 20


def test_a_stopped_run_is_continued_after_its_last_part(
    tiny_decoder: Path, home: Path, pairs_file: Path
) -> None:
    script = Path(__file__).parents[2] / "analyses" / "circuits.py"
    words = ["--model", str(tiny_decoder), "--data", str(pairs_file)]
    words += ["--parts", "attribution,patching", "--draws", "10000", "--patched", "20"]
    process = subprocess.Popen(
        [sys.executable, str(script), *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, "ended before it could be stopped"
        views = list_runs(home / "runs")
        if views and "attribution" in views[0].tables() and len(views[0].table("applies")):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    (view,) = list_runs(home / "runs")
    assert view.status == "interrupted"
    before = view.measurements
    written = os.stat(view.path / "tables" / "attribution.parquet").st_mtime_ns
    assert invoke(app, ["run", "--resume", view.slug]) == 0
    view = RunView(view.path)
    assert view.status == "finished"
    assert view.table("applies")["part"].tolist() == ["attribution", "patching"]
    assert os.stat(view.path / "tables" / "attribution.parquet").st_mtime_ns == written
    rows = view.measurements
    kept = rows["measure"] == "direct_logit_attribution"
    earlier = before[before["measure"] == "direct_logit_attribution"]
    pd.testing.assert_frame_equal(rows[kept].reset_index(drop=True), earlier.reset_index(drop=True))


@pytest.mark.slow
@pytest.mark.models
def test_a_real_model_finds_the_receiver(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2 on indirect objects: it does the task, few heads do most of it, and the gradient tells which."""
    if cache := os.environ.get("FATHOMETER_TEST_CACHE"):
        monkeypatch.setenv("FATHOMETER_CACHE", cache)
    words = ["run", "circuits", "--model", "smollm2", "--data", "ioi", "--parts", TASK_PARTS]
    assert invoke(app, [*words, "--pairs", "20", "--patched", "8", "--draws", "500"]) == 0
    (view,) = list_runs(home / "runs")
    assert view.table("applies")["applies"].all()
    assert view.table("tasks")["low"].item() > 0.5
    parts = view.table("attribution")
    total = parts[parts["component"] == "total"]["value"].item()
    rest = parts[parts["component"] != "total"]["value"]
    assert rest.sum() == pytest.approx(total, abs=1e-3 * rest.abs().max())
    patching = view.table("patching")
    whole = patching[(patching["level"] == "resid") & (patching["positions"] == "all")]
    activation = whole[whole["method"] == "activation"]["value"]
    assert (activation - 1).abs().max() < 1e-4
    agreed = view.table("agreement").set_index("level")["pearson"]
    assert (agreed > 0.8).all(), agreed  # with a single gradient the residual stream has 0.58
    again = view.table("strongest")
    assert again["fresh"].all()
    assert again["low"].max() > 0
    areas = view.measurements[view.measurements["measure"] == "cpr"].set_index("variant")["value"]
    assert areas["activation"] > areas["random"]
    lens = view.table("lens").set_index("layer")
    assert lens["rank"][30] < 5 < lens["rank"][10]
