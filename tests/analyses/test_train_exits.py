"""Training for exits from the command line: what is written, mistakes, and a run that goes on where it was stopped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from probes.analysis import load_analysis
from probes.cli.main import app
from probes.cli.run import command_for, run_app
from probes.cli.shell import invoke
from probes.exits.training import train as train_module
from probes.models import load_model
from probes.runs import RunView

pytest.importorskip("sentence_transformers")
pytest.importorskip("datasets")
QUICK = ["--steps", "6", "--batch-size", "8", "--draws", "200", "--checkpoint-every", "2"]


@pytest.fixture(scope="module", autouse=True)
def _commands() -> None:
    if not any(command.name == "train-exits" for command in run_app.registered_commands):
        analysis = load_analysis("train-exits")
        run_app.command("train-exits", help=analysis.question)(command_for(analysis))


def run(model: Path, data: Path, *more: str) -> int:
    words = ["run", "train-exits", "--model", str(model), "--data", str(data), *QUICK, *more]
    return invoke(app, words)


@pytest.mark.parametrize(
    ("fixture", "measure"), [("pairs_csv", "spearman"), ("retrieval_folder", "ndcg_at_10")]
)
def test_pairs_and_retrieval_give_grids_models_and_a_report(
    request: pytest.FixtureRequest, tiny_model: Path, home: Path, fixture: str, measure: str
) -> None:
    data = request.getfixturevalue(fixture)
    assert run(tiny_model, data, "--losses", "starbucks,plain", "--name", "one") == 0
    view = RunView(home / "runs" / "one")
    assert view.status == "finished"
    grid = view.measurements[view.measurements["measure"] == measure]
    found = set(grid["variant"].fillna("before"))
    assert {"before", "trained=starbucks", "trained=plain"} <= found
    assert set(view.tables()) == {"training", "training_loss", "fusion", "fusion_weights"}
    changes = view.table("training")
    own = changes[(changes["against"] == "before") & (changes["loss"] == "starbucks")]
    assert len(own) == 4 * 3
    pairs = own[own["trained_pair"]]
    assert set(zip(pairs["layer"], pairs["dim"], strict=True)) == {(1, 8), (2, 16), (3, 32)}
    after = grid[
        (grid["variant"] == "trained=starbucks") & (grid["layer"] == 1) & (grid["dim"] == 8)
    ]
    row = own[(own["layer"] == 1) & (own["dim"] == 8)].iloc[0]
    assert float(after["value"].iloc[0]) == pytest.approx(row["after"])
    assert set(view.table("training_loss")["loss"]) == {"starbucks", "plain"}
    model = load_model(view.path / "trained" / "starbucks" / "model")
    assert model.n_layers == 3
    page = (view.path / "report.html").read_text(encoding="utf-8")
    assert "This run is not finished" not in page
    assert "trained=starbucks" in page
    assert "layer 1, 8 dimensions" in page
    assert re.search(r"over the last one: scalar-mix \S+ \[.*importance", page)
    assert "which may be chance" in page or "the full model goes from" in page
    assert not list(view.path.rglob("checkpoint-*"))


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_finds_the_same(
    tiny_model: Path, home: Path, pairs_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ["--losses", "starbucks", "--dims", "8,32"]
    assert run(tiny_model, pairs_csv, *only, "--name", "whole") == 0
    marked = train_module.mark_complete

    def stop(path: Path) -> None:
        marked(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "mark_complete", stop)
    assert run(tiny_model, pairs_csv, *only, "--name", "cut") != 0
    monkeypatch.setattr(train_module, "mark_complete", marked)
    assert RunView(home / "runs" / "cut").status == "interrupted"
    assert invoke(app, ["run", "--resume", "cut"]) == 0
    one, two = (RunView(home / "runs" / name) for name in ("whole", "cut"))
    assert one.measurements.equals(two.measurements)
    assert one.table("training").equals(two.table("training"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--losses", "starbuck"], "did you mean 'starbucks'"),
        (["--pairs", "2by8"], "write LAYERxDIM"),
        (["--pairs", "9x8"], "layers 0 to 3"),
        (["--losses", ","], "--losses is empty"),
    ],
)
def test_mistakes_cost_one_line(
    tiny_model: Path, home: Path, pairs_csv: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], told: str,
) -> None:  # fmt: skip
    assert run(tiny_model, pairs_csv, *words) == 2
    assert told in capsys.readouterr().err


def test_labelled_texts_are_refused(
    tiny_model: Path, home: Path, labels_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_model, labels_csv) == 2
    assert "scored pairs or on a retrieval set" in capsys.readouterr().err
