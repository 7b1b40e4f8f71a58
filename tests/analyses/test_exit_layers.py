"""The main job on a tiny model: run folder, decision, report; and bad input told in one line."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from probes.analysis import execute, load_analysis
from probes.cli.main import app
from probes.cli.run import command_for, run_app
from probes.cli.shell import invoke
from probes.datasets import load_dataset
from probes.runs import RunView, list_runs

QUICK = ["--draws", "200", "--latency-seconds", "1"]
DECISION_KEYS = {
    "status", "layer", "dim", "pooling", "variant", "quality", "quality_full", "share", "share_low",
    "relative_cost", "speedup", "confidence", "guarantee", "baselines", "alternatives", "caveats",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not any(command.name == "exit-layers" for command in run_app.registered_commands):
        analysis = load_analysis("exit-layers")
        run_app.command("exit-layers", help=analysis.question)(command_for(analysis))


def run(model: Path | str, data: Path | str, *more: str) -> int:
    words = ["run", "exit-layers", "--model", str(model), "--data", str(data), *QUICK, *more]
    return invoke(app, words)


@pytest.mark.parametrize(
    ("fixture", "measure"),
    [("pairs_csv", "spearman"), ("labels_csv", "accuracy"), ("retrieval_folder", "ndcg_at_10")],
)
def test_every_kind_of_data_gives_a_decision_and_a_report(
    request: pytest.FixtureRequest, tiny_model: Path, home: Path, fixture: str, measure: str
) -> None:
    assert run(tiny_model, request.getfixturevalue(fixture), "--min-quality", "0.8") == 0
    (view,) = list_runs(home / "runs")
    assert view.status == "finished"
    decision = view.decision
    assert decision is not None
    assert set(decision) >= DECISION_KEYS
    assert decision["status"] in ("chosen", "infeasible")
    assert decision["guarantee"] == "asymptotic"
    names = {entry["name"] for entry in decision["baselines"]}
    assert {"last layer", "depth 1/2", "depth 2/3", "depth 3/4"} <= names
    assert view.info["model"]["n_layers"] == 3
    assert view.info["datasets"][0]["hash"]
    frame = view.measurements
    grid = frame[(frame["measure"] == measure) & (frame["split"] == "all")]
    assert set(grid["layer"]) == {0, 1, 2, 3}
    assert set(grid["dim"]) == {8, 16, 32}
    variants = {"raw", "translated", "translated=mean+sif+table", "translated=table"}
    variants |= set() if measure == "accuracy" else {"centred"}
    assert set(grid["variant"].fillna("raw")) == variants
    assert "translated=mean+sif+table" not in set(view.table("chains")["chain"])  # needs code
    shape = frame[frame["measure"] == "effective_rank"]
    own = load_dataset(request.getfixturevalue(fixture))
    assert set(shape["n"]) == {
        len(set(own.all_texts()))
    }  # of the data alone, not of the texts for translators
    assert {"latency_p50_ms", "relative_cost", "effective_rank", "anisotropy"} <= set(
        frame["measure"]
    )
    assert set(view.tables()) == {
        "chains",
        "losses",
        "share_draws",
        "translators",
        "translator_curve",
    }
    page = (view.path / "report.html").read_text(encoding="utf-8")
    assert "This run is not finished" not in page
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)=[\"']https?:", markup)


def test_a_promise_on_losses_is_finite_sample_and_refused_for_similarity(
    tiny_model: Path,
    home: Path,
    labels_csv: Path,
    pairs_csv: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tiny_model, labels_csv, "--max-loss", "0.3", "--name", "loss") == 0
    decision = RunView(home / "runs" / "loss").decision
    assert decision is not None
    assert decision["guarantee"] == "finite-sample"
    capsys.readouterr()
    assert run(tiny_model, pairs_csv, "--max-loss", "0.3", "--name", "no") == 2
    assert "similarity" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_numbers_and_nothing_is_captured_twice(
    tiny_model: Path, home: Path, pairs_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tiny_model, pairs_csv, "--name", "one") == 0
    stores = list((home / "cache" / "stores").iterdir())
    assert len(stores) == 1
    shards = {path: path.stat().st_mtime_ns for path in stores[0].rglob("*.safetensors")}
    assert run(tiny_model, pairs_csv, "--name", "two") == 0
    assert {path: path.stat().st_mtime_ns for path in stores[0].rglob("*.safetensors")} == shards
    one, two = (RunView(home / "runs" / name).measurements for name in ("one", "two"))
    timed = {"latency_p50_ms", "latency_p95_ms", "relative_cost"}
    one, two = (f[~f["measure"].isin(timed)].reset_index(drop=True) for f in (one, two))
    assert one.equals(two)


def test_the_script_is_the_command(tiny_model: Path, home: Path, pairs_csv: Path) -> None:
    script = Path(__file__).parents[2] / "analyses" / "exit_layers.py"
    words = ["--model", str(tiny_model), "--data", str(pairs_csv), *QUICK, "--name", "script"]
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "report:" in done.stdout
    assert RunView(home / "runs" / "script").status == "finished"


def damaged(model: Path, to: Path, change: str) -> Path:
    """A copy of the model folder with one thing wrong."""
    to.mkdir()
    for file in model.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    weights = to / "model.safetensors"
    if change == "nan":
        tensors = load_file(weights)
        name = next(n for n in tensors if "layer.1" in n and n.endswith("weight"))
        tensors[name] = np.full_like(tensors[name], np.nan)
        save_file(tensors, weights, metadata={"format": "pt"})
    elif change == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif change == "pickle":
        weights.rename(to / "pytorch_model.bin")
    elif change == "no tokenizer":
        for file in to.glob("*token*"):
            file.unlink()
    elif change == "no config":
        (to / "config.json").unlink()
    return to


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nan", "NaN"),
        ("truncated", "[Ss]afetensor"),
        ("pickle", "safetensors"),
        ("no tokenizer", "tokenizer"),
        ("no config", "config.json"),
    ],
)
def test_bad_models_are_one_line(
    tiny_model: Path,
    home: Path,
    pairs_csv: Path,
    capsys: pytest.CaptureFixture[str],
    change: str,
    message: str,
) -> None:
    model = damaged(tiny_model, home / "damaged", change)
    capsys.readouterr()
    assert run(model, pairs_csv) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert re.search(message, error[0])
    assert "Traceback" not in error[0]


@pytest.mark.parametrize(
    ("columns", "rows", "message"),
    [
        (["text", "label"], [("a cat", 1), ("", 0), ("the dog", 0)], "line 3"),
        (["text", "label"], [("a cat", 1), ("a dog", 1)], "two classes are needed"),
        (["text", "label"], [("a cat", 1), ("a dog", "")], "line 3"),
        (["text_a", "text_b", "score"], [("a", "b", 1), ("c", "d", "nan")], "line 3"),
        (["foo", "bar"], [("a cat", 1), ("a dog", 0)], "foo"),
    ],
)
def test_bad_data_is_one_line_with_its_place(
    tiny_model: Path, home: Path, write_csv, capsys: pytest.CaptureFixture[str],
    columns: list[str], rows: list, message: str,
) -> None:  # fmt: skip
    assert run(tiny_model, write_csv("bad.csv", columns, rows)) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert message in error[0]
    (view,) = list_runs(home / "runs")
    assert view.status == "failed"
    assert view.info["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "minlm"], "did you mean 'minilm'"),
        (["--data", "citys"], "did you mean 'cities'"),
        (["--data", "nowhere.csv"], "nowhere.csv"),
        (["--columns", "text=foo,label=label"], "foo"),
        (["--texts", "nowhere.txt"], "nowhere.txt"),
        (["--pooling", "mean2"], "mean"),
        (["--device", "tpu"], "cuda"),
        (["--max-length", "100000"], "max_length|max-length"),
        (["--min-quality", "1.5"], "at most 1"),
    ],
)
def test_misspelt_options_are_one_line(
    tiny_model: Path, home: Path, labels_csv: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    assert run(tiny_model, labels_csv, *words) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1
    assert re.search(message, error[0])
    names = ("--model", "--data", "--pooling", "--device", "--min-quality")
    kept = [] if words[0] in names or words[-1] == "nowhere.txt" else ["failed"]
    assert [
        view.status for view in list_runs(home / "runs")
    ] == kept  # a misspelt name leaves nothing


def test_a_folder_without_write_access_is_one_line(
    tiny_model: Path,
    home: Path,
    labels_csv: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The tests may run as root, whom permissions do not bind: the refusal is injected."""

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    assert run(tiny_model, labels_csv, "--runs", str(home / "new")) == 2
    assert "no write access" in capsys.readouterr().err


def test_a_file_where_the_runs_should_go_is_one_line(
    tiny_model: Path, home: Path, labels_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = home / "blocked"
    blocked.write_text("a file where a folder is needed")
    assert run(tiny_model, labels_csv, "--runs", str(blocked)) == 2
    assert "is a file" in capsys.readouterr().err


def test_too_little_data_is_refused_before_the_model_runs(
    tiny_model: Path, home: Path, write_csv, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    few = write_csv(
        "few.csv", ["text", "label"], [(f"the cat {w}", i % 2) for i, w in enumerate("abcdefgh")]
    )
    assert run(tiny_model, few) == 2
    assert "give more than these 8 examples" in capsys.readouterr().err
    assert not (home / "cache" / "stores").exists()


def test_a_failed_measurement_loses_nothing_already_captured(
    tiny_model: Path,
    home: Path,
    pairs_csv: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The grid fails once; the run is continued and takes the captured states from the cache."""
    import probes.exits.pipeline as pipeline

    real = pipeline.layer_dim_grid

    def broken(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "layer_dim_grid", broken)
    assert run(tiny_model, pairs_csv, "--name", "cut") == 130
    view = RunView(home / "runs" / "cut")
    assert view.status == "interrupted"
    assert "--resume cut" in view.info["message"]
    assert "note: stopped; continue with: fathometer run --resume cut" in capsys.readouterr().err
    monkeypatch.setattr(pipeline, "layer_dim_grid", real)
    before = {p: p.stat().st_mtime_ns for p in (home / "cache").rglob("*.safetensors")}
    assert invoke(app, ["run", "--resume", "cut"]) == 0
    assert RunView(home / "runs" / "cut").status == "finished"
    assert {p: p.stat().st_mtime_ns for p in (home / "cache").rglob("*.safetensors")} == before


def test_options_are_written_down(tiny_model: Path, home: Path, pairs_csv: Path) -> None:
    analysis = load_analysis("exit-layers")
    given = {
        "model": str(tiny_model),
        "data": str(pairs_csv),
        "seed": 5,
        "draws": 200,
        "latency_seconds": 1.0,
    }
    path = execute(analysis, given, runs=home / "runs", name="api")
    info = json.loads((path / "run.json").read_text())
    assert info["options"]["seed"] == info["seed"] == 5
    assert set(info["options"]) == {option.name for option in analysis.options}
    assert info["versions"]["torch"]
    assert info["seconds"] > 0


STAGES = (
    "loading the model",
    "encoding texts",
    "measuring quality at every layer and width",
    "time per layer",
)


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(len(STAGES)))
def test_a_killed_run_is_continued_to_the_same_numbers(
    tiny_model: Path, home: Path, pairs_csv: Path, stage: int
) -> None:
    """kill -9 leaves a run that says it is running; its writer's lock died with it, so that --resume may go on."""
    assert run(tiny_model, pairs_csv, "--name", "whole") == 0
    script = Path(__file__).parents[2] / "analyses" / "exit_layers.py"
    words = ["--model", str(tiny_model), "--data", str(pairs_csv), *QUICK, "--name", "killed"]
    child = subprocess.Popen([sys.executable, str(script), *words], stderr=subprocess.DEVNULL)
    while (
        RunView(home / "runs" / "killed").info.get("progress", {}).get("text") not in STAGES[stage:]
    ):
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert RunView(home / "runs" / "killed").status == "running"
    assert invoke(app, ["run", "--resume", "killed"]) == 0
    timed = {"latency_p50_ms", "latency_p95_ms", "relative_cost"}
    frames = [RunView(home / "runs" / name).measurements for name in ("whole", "killed")]
    whole, killed = (f[~f["measure"].isin(timed)].reset_index(drop=True) for f in frames)
    assert len(whole) > 0
    assert whole.equals(killed)


def test_temperatures_are_candidates_with_a_chain_of_their_own(
    tiny_model: Path, pairs_csv: Path, home: Path
) -> None:
    assert run(tiny_model, pairs_csv, "--min-quality", "0.8", "--temperatures", "0.5,1,2") == 0
    (view,) = list_runs(home / "runs")
    rows = view.measurements
    rows = rows[(rows["measure"] == "spearman") & (rows["split"] == "all") & (rows["dim"] == 32)]
    by = rows.set_index(["variant", "layer"])["value"]
    plain = rows[rows["variant"].isna()].set_index("layer")["value"]
    for tau in ("tau=0.5", "tau=2"):
        assert by[tau, 0] == pytest.approx(plain[0])  # no attention yet
        assert by[tau, 3] != pytest.approx(plain[3], abs=1e-6)
        assert tau in set(view.table("chains")["chain"].astype(str)) | set(
            view.table("chains")["name"].str.partition(":")[0]
        )
    assert "tau=1" not in set(rows["variant"].dropna())


@pytest.mark.parametrize("given", ["0", "-1", "hot", "0.5,,nan", "inf"])
def test_temperatures_that_are_none_are_refused_before_a_folder_is_made(
    tiny_model: Path, pairs_csv: Path, home: Path, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_model, pairs_csv, "--temperatures", given) == 2
    assert "numbers above 0, separated by commas" in capsys.readouterr().err
    assert list_runs(home / "runs") == []


def test_misspelt_parts_of_the_search_space_are_refused_before_a_run(
    tiny_model: Path, pairs_csv: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag, value in (
        ("--poolings", "mean,lst"),
        ("--remedies", "white"),
        ("--precisions", "int7"),
        ("--translators", "ridge+tabel"),
    ):
        assert run(tiny_model, pairs_csv, flag, value) == 2
        assert value.split(",")[-1].split("+")[-1] in capsys.readouterr().err
    assert not list_runs(home / "runs")
