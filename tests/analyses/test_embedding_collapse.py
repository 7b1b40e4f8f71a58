"""Embedding collapse from the command line on a tiny model: tables, report, mistakes in one line, a stopped run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from zoo import texts

from probes.analysis import load_analysis
from probes.cli.main import app
from probes.cli.run import command_for, run_app
from probes.cli.shell import invoke
from probes.report import RunData
from probes.report.figures.collapse_remedies import remedy_words
from probes.report.text import interval, number
from probes.report.verdict import verdict
from probes.runs import RunView, list_runs

QUICK = ["--cuts", "8,16,32", "--taus", "0.8,1", "--documents", "40", "--draws", "200"]
QUICK += ["--distractors", "120"]


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not any(command.name == "embedding-collapse" for command in run_app.registered_commands):
        analysis = load_analysis("embedding-collapse")
        run_app.command("embedding-collapse", help=analysis.question)(command_for(analysis))


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    path = tmp_path / "long.txt"
    path.write_text("\n".join(texts(250, seed=5, longest=60)))
    return path


def run(model: Path | str, data: Path | str, *more: str) -> int:
    words = ["run", "embedding-collapse", "--model", str(model), "--data", str(data)]
    return invoke(app, [*words, *QUICK, *more])


def test_all_parts_give_tables_and_a_report(
    tiny_model: Path, home: Path, retrieval_folder: Path, long_file: Path
) -> None:
    assert run(tiny_model, retrieval_folder, "--texts", str(long_file)) == 0
    (view,) = list_runs(home / "runs")
    assert view.status == "finished"
    assert {"length", "temperature", "remedies", "mask", "index_size", "applies"} <= set(
        view.tables()
    )
    applies = view.table("applies").set_index("part")
    assert not applies["applies"]["bottleneck"]
    assert "no language-model head" in applies["reason"]["bottleneck"]
    assert set(view.measurements["measure"]) == {"collapse_slope", "collapse_onset_tokens"}
    assert set(view.measurements["dataset"]) == {"long"}
    assert "collapse_slope" in view.measures
    for name in view.tables():
        table = view.table(name)
        for column in table.select_dtypes("number"):
            assert not table[column].to_numpy(float, na_value=0.0).astype(str).tolist().count("nan")
    for name in ("report.html", "report.md", "measurements.csv"):
        assert (view.path / name).stat().st_size > 1000


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--parts", "lenght"], "did you mean 'length'"),
        (["--taus", "0.8,warm"], "'warm' is no number"),
        (["--taus", "0"], "numbers from 0.01"),
        (["--cuts", "8,1"], "numbers from 2"),
        (["--layers", "first"], "'first' is no whole number"),
        (["--texts", "refrence"], "did you mean 'reference'"),
        (["--distractors", "3"], "at least 10"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_run(
    tiny_model: Path,
    home: Path,
    more: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tiny_model, "docstrings", *more) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert not list_runs(home / "runs")


def test_a_layer_that_the_model_does_not_have_ends_the_run(
    tiny_model: Path, home: Path, labels_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_model, labels_csv, "--layers", "0,12", "--parts", "mask") == 2
    assert "layers 0 to 3" in capsys.readouterr().err
    (view,) = list_runs(home / "runs")
    assert view.status == "failed"


def test_a_stopped_run_is_continued_after_its_last_part(
    tiny_model: Path, home: Path, retrieval_folder: Path, long_file: Path
) -> None:
    script = Path(__file__).parents[2] / "analyses" / "embedding_collapse.py"
    words = ["--model", str(tiny_model), "--data", str(retrieval_folder), "--texts", str(long_file)]
    words += [*QUICK, "--parts", "length,temperature,mask", "--draws", "20000"]
    process = subprocess.Popen(
        [sys.executable, str(script), *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, "ended before it could be stopped"
        views = list_runs(home / "runs")
        if views and "applies" in views[0].tables():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    (view,) = list_runs(home / "runs")
    assert view.status == "interrupted"
    before = view.measurements
    length = os.stat(view.path / "tables" / "length.parquet").st_mtime_ns
    assert invoke(app, ["run", "--resume", view.slug]) == 0
    view = RunView(view.path)
    assert view.status == "finished"
    assert view.table("applies")["part"].tolist() == ["length", "temperature", "mask"]
    assert os.stat(view.path / "tables" / "length.parquet").st_mtime_ns == length  # not done again
    pd.testing.assert_frame_equal(view.measurements, before)


def _said(view: RunView) -> tuple[str, str]:
    """The headline of a run, and all its sentences."""
    found = verdict(RunData.of(view))
    return found.headline, "\n".join(found.sentences)


@pytest.fixture
def real(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of one test; states of real models from the cache of all tests, where one is named."""
    if cache := os.environ.get("FATHOMETER_TEST_CACHE"):
        monkeypatch.setenv("FATHOMETER_CACHE", cache)
    return home


@pytest.mark.slow
@pytest.mark.models
def test_real_embeddings_collapse_with_length(real: Path) -> None:
    """MiniLM: the same documents come closer with every doubling of their length, at every layer; centring takes all of
    the mean cosine; [MASK] takes room from real tokens at the last layer; recall falls with the index. The words say
    what the tables hold."""
    more = ["--parts", "length,remedies,mask,index", "--limit", "60", "--cuts", "8,32,128"]
    assert run("minilm", "docstrings", *more) == 0
    (view,) = list_runs(real / "runs")
    rows = view.measurements
    slopes = rows[(rows["measure"] == "collapse_slope") & (rows["variant"] == "cut")]
    assert (slopes["low"] > 0).all()
    mask = view.table("mask").set_index("layer")
    assert mask["ratio"][0] == pytest.approx(1)
    assert mask["ratio_high"][6] < 1
    index = view.table("index_size")
    last = index[(index["layer"] == 6) & (index["dim"] == 384) & (index["k"] == 1)]
    assert last.sort_values("distractors")["recall"].is_monotonic_decreasing
    headline, text = _said(view)
    row = slopes[slopes["layer"] == 6].iloc[0]
    size = f"{number(row['value'])} {interval(row['low'], row['high'])}"
    assert headline == (
        f"Embeddings collapse with length: the mean cosine rises by {size} per doubling at the last layer "
        "(the same documents, cut)"
    )
    assert "A rise is shown at 7 of 7 layers read (0 to 6)" in text
    remedies = view.table("remedies")
    treated = remedies[(remedies["layer"] == 6) & (remedies["remedy"] != "none")]
    assert treated.set_index("remedy")["anisotropy_difference_high"]["centred"] < 0
    assert treated.set_index("remedy")["anisotropy"]["centred"] == pytest.approx(0, abs=0.05)
    most = treated.sort_values("collapse_slope_difference").iloc[0]
    off = -most["collapse_slope_difference"]
    ends = -most["collapse_slope_difference_high"], -most["collapse_slope_difference_low"]
    assert ends[0] > 0
    told = f"Of those tried {remedy_words(most['remedy'])} lessens the collapse most: it takes "
    assert f"{told}{number(off)} {interval(*ends)} off the rise per doubling" in text
    breaks = view.table("index_breaks")
    narrow = breaks[(breaks["layer"] == 6) & (breaks["dim"] == 8) & (breaks["k"] == 10)].iloc[0]
    assert narrow["high"] < 0
    lost = f"8 dimensions from {narrow['distractors']} documents on"
    assert (
        f"recall at 10 at the last layer is shown to be lower by more than a hundredth with {lost}"
        in text
    )


@pytest.mark.slow
@pytest.mark.models
def test_a_real_language_model_in_bfloat16(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2 at three of its layers: the words hold the last layer's interval and the head's loss as the tables do."""
    monkeypatch.setattr("probes.collapse.bottleneck.MOST_TOKENS", 500)
    more = [
        "--parts",
        "length,bottleneck",
        "--limit",
        "40",
        "--cuts",
        "8,32",
        "--dtype",
        "bfloat16",
    ]
    assert run("smollm2", "docstrings", *more, "--layers", "0,15,30", "--max-length", "32") == 0
    (view,) = list_runs(real / "runs")
    assert view.table("applies")["applies"].all()
    rows = view.measurements
    slopes = rows[(rows["measure"] == "collapse_slope") & (rows["variant"] == "cut")]
    assert slopes["layer"].tolist() == [0, 15, 30]
    last = slopes.iloc[-1]
    headline, text = _said(view)
    assert interval(last["low"], last["high"]) in headline
    assert "per doubling at the last layer (the same documents, cut)" in headline
    head = view.table("bottleneck").set_index("rank")
    assert head.index[-1] == 576
    assert head["difference_low"][1] > 1  # bits: one direction is not enough
    cost = f"{interval(head['difference_low'][512], head['difference_high'][512], 2)}"
    assert ("No smaller rank of the head" in text) == (head["difference_high"][512] >= 0.1)
    if head["difference_high"][512] >= 0.1:
        assert cost in text
