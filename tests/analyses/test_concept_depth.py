"""Concept depth from the command line on a tiny model: run folder, report, what is printed, mistakes in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from probes.analysis import load_analysis
from probes.cli.main import app
from probes.cli.run import command_for, run_app
from probes.cli.shell import invoke
from probes.runs import RunView, list_runs

SHARED = Path(__file__).parents[3] / "shared" / "data"
QUICK = ["--probe", "ridge", "--folds", "3", "--draws", "200", "--workers", "1"]


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not any(command.name == "concept-depth" for command in run_app.registered_commands):
        analysis = load_analysis("concept-depth")
        run_app.command("concept-depth", help=analysis.question)(command_for(analysis))


def run(model: Path | str, data: Path | str, *more: str) -> int:
    return invoke(
        app, ["run", "concept-depth", "--model", str(model), "--data", str(data), *QUICK, *more]
    )


def test_a_list_of_concepts_gives_tables_a_report_and_a_verdict(
    tiny_model: Path, home: Path, labels_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"{labels_csv},tense,agreement,years"
    assert run(tiny_model, data, "--limit", "120", "--conditions", "pooling=last") == 0
    (view,) = list_runs(home / "runs")
    assert view.status == "finished"
    assert [entry["name"] for entry in view.info["datasets"]] == [
        "labels", "tense", "agreement", "years",
    ]  # fmt: skip
    concepts = view.table("concepts")
    assert concepts["concept"].tolist() == ["labels", "tense", "agreement", "years"]
    assert concepts["kind"].tolist() == ["classes", "classes", "minimal-pairs", "numbers"]
    rows = view.measurements
    assert set(rows["variant"].dropna()) >= {
        "shuffled", "control-task", "untrained", "bag-of-words", "pooling=last",
    }  # fmt: skip
    for name in ("report.html", "report.md", "measurements.csv"):
        assert (view.path / name).stat().st_size > 1000
    said = capsys.readouterr().out
    assert "of 4 concepts" in said
    assert "robust depth" in said


def test_a_toml_list_with_columns_and_filters(
    tiny_model: Path, home: Path, labels_csv: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.toml").write_text(
        f'[mine]\ndata = "{labels_csv.name}"\nfamily = "own"\ncolumns = {{ text = "text" }}\n'
    )
    assert run(tiny_model, tmp_path / "list.toml", "--parts", "none", "--no-untrained") == 0
    (view,) = list_runs(home / "runs")
    table = view.table("concepts")
    assert table[["concept", "family"]].to_numpy().tolist() == [["mine", "own"]]
    assert "untrained" not in set(view.measurements["variant"].dropna())
    assert set(view.tables()) == {"concepts", "examples", "predictions"}


@pytest.mark.parametrize(
    ("data", "more", "words"),
    [
        ("citys", [], "did you mean 'cities'"),
        ("cities", ["--parts", "mdl,erasure2"], "did you mean 'erasure'"),
        ("cities", ["--conditions", "noise=loud"], "unknown condition noise 'loud'"),
        ("cities", ["--template", "no place for it"], "{} is needed once"),
        ("cities", ["--probe", "tree"], "unknown --probe 'tree'"),
        ("docstrings", [], "no concept"),
        ("cities", ["--columns", "lable=x"], "did you mean 'label'"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_run(
    tiny_model: Path,
    home: Path,
    data: str,
    more: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tiny_model, data, *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert not list_runs(home / "runs")


def test_a_stopped_run_leaves_no_process_and_is_continued(tiny_model: Path, home: Path) -> None:
    script = Path(__file__).parents[2] / "analyses" / "concept_depth.py"
    words = ["--model", str(tiny_model), "--data", "cities,tense,sentiment"]
    words += ["--parts", "mdl", "--workers", "2", "--draws", "200", "--limit", "400"]
    process = subprocess.Popen(
        [sys.executable, str(script), *words],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:  # until the first concept is being probed by the workers
        assert process.poll() is None
        views = list_runs(home / "runs")
        if views and "capture tense" in views[0].log:
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    for _ in range(100):  # the group is empty as soon as the workers are gone
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("worker processes outlived the run")
    (view,) = list_runs(home / "runs")
    assert view.status == "interrupted"
    assert invoke(app, ["run", "--resume", view.slug]) == 0
    assert RunView(view.path).status == "finished"
    assert len(RunView(view.path).table("concepts")) == 3


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared data sets are not at {SHARED}")
def test_real_concepts_of_a_real_model(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MiniLM: topic is a matter of words, truth is not in it, and part of speech needs few layers."""
    cache = os.environ.get("FATHOMETER_TEST_CACHE")
    if cache:
        monkeypatch.setenv("FATHOMETER_CACHE", cache)
    (home / "few.toml").write_text(
        f'[topic]\ndata = "{SHARED}/classification/ag_news.csv"\n'
        f'[cities]\ndata = "{SHARED}/truth/cities.csv"\n'
        f'[pos]\ndata = "{SHARED}/probing/ud_tokens.jsonl"\n'
        'columns = { words = "tokens", tags = "upos" }\n'
    )
    assert (
        run("minilm", home / "few.toml", "--limit", "300", "--parts", "none", "--no-untrained") == 0
    )
    (view,) = list_runs(home / "runs")
    rows = view.measurements
    best = {
        name: float(own[own["variant"].isna() & own["layer"].notna()]["value"].max())
        for name, own in rows[rows["measure"] == "accuracy"].groupby("concept")
    }
    assert best["topic"] > 0.8
    assert best["cities"] < 0.7
    assert best["pos"] > 0.7
    shuffled = rows[(rows["measure"] == "accuracy") & (rows["variant"] == "shuffled")]
    assert (
        float(shuffled[shuffled["concept"] == "topic"]["value"].max()) < 0.4
    )  # a quarter by chance
