"""From a finished run to a verified folder; what goes wrong is told in one line and deletes nothing."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from probes.cli.main import app
from probes.cli.shell import invoke
from probes.errors import InputError, RunError
from probes.exits.export import export_exit
from probes.exits.export.source import open_exit, parse_candidate
from probes.exits.export.verify import Timing, Verification
from probes.runs import RunView

NO_TIME = Timing(seconds=0)
CHECKS = ["process", "embeddings", "quality", "time", "files"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "candidate"),
    [("pairs", "raw:2x32"), ("retrieval", "raw:1x16"), ("labelled", None)],
)
def test_a_run_becomes_a_model_that_keeps_its_promise(study_run, tmp_path, kind, candidate):
    run = study_run(kind)
    timing = Timing(seconds=0.1, min_rounds=3, max_rounds=4)
    done = export_exit(run, tmp_path / "small", candidate, timing=timing)
    found = done.verification
    assert found is not None
    assert [check.name for check in found.checks] == CHECKS
    for name in ("process", "embeddings", "quality", "files"):
        assert found.check(name).passed, found.check(name).text
    assert (found.check("time").found or 0) > 0
    assert found.check("embeddings").found < 1e-5
    written = json.loads((tmp_path / "small" / "verification.json").read_text())
    assert written["candidate"] == done.candidate
    decision = json.loads((tmp_path / "small" / "decision.json").read_text())
    assert decision["exported"]["name"] == done.candidate
    card = (tmp_path / "small" / "README.md").read_text()
    assert "embeddings: passed" in card
    assert f"{decision['exported']['quality']:.3f}" in card
    assert str(tmp_path) not in card
    assert (kind == "labelled") == (tmp_path / "small" / "labels.json").exists()


@pytest.mark.slow
def test_a_model_that_does_something_else_fails_its_checks_and_stays(
    study_run, tmp_path, monkeypatch, capsys
):
    from probes.exits.export import export

    honest = export.write_stock

    def spoilt(folder, exit_):
        honest(folder, exit_)
        weights = load_file(folder / "model.safetensors")
        name = next(n for n in weights if n.endswith("output.dense.weight"))
        weights[name] = np.random.default_rng(0).normal(size=weights[name].shape).astype(np.float32)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(export, "write_stock", spoilt)
    out = tmp_path / "small"
    words = ["export", str(study_run("pairs")), "--to", str(out), "--candidate", "raw:2x32"]
    assert invoke(app, [*words, "--seconds", "0"]) == 2
    told = capsys.readouterr()
    assert told.err.strip().splitlines()[-1].startswith("error: the exported model fails a check: ")
    assert (out / "model.safetensors").exists()
    assert json.loads((out / "verification.json").read_text())["passed"] is False
    assert "embeddings: FAILED" in (out / "README.md").read_text()


def test_the_command_refuses_what_it_cannot_do(study_run, tmp_path, capsys):
    run = str(study_run("pairs"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    cases = {
        "is not empty": ["--to", str(tmp_path / "full")],
        "unknown format 'onnx'": ["--to", str(tmp_path / "a"), "--format", "onnx"],
        "write VARIANT:LAYERxDIM": ["--to", str(tmp_path / "a"), "--candidate", "best"],
        "does not exist: ": ["--to", str(tmp_path / "a"), "--candidate", "raw:9x8"],
        "unknown candidate with a recipe": ["--to", str(tmp_path / "a"), "--candidate", "sparse:1x8"],
        "--with-code": [
            "--to", str(tmp_path / "a"), "--candidate", "raw:1x8", "--format", "transformers",
        ],
    }  # fmt: skip
    for text, words in cases.items():
        assert invoke(app, ["export", run, *words]) == 2
        err = capsys.readouterr().err
        assert text in err.replace("\n", " "), err
        assert "defect" not in err
    assert not (tmp_path / "a").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_without_verification_the_card_says_so(study_run, tmp_path):
    done = export_exit(study_run("pairs"), tmp_path / "m", "raw:1x8", verify=False)
    assert done.verification is None
    assert "was not verified" in (done.path / "README.md").read_text()


@pytest.fixture
def copied(study_run, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(study_run("pairs"), run)
    return run


def change(run, file, edit):
    told = json.loads((run / file).read_text())
    edit(told)
    (run / file).write_text(json.dumps(told))


def test_nothing_chosen_other_weights_and_unfinished_runs_are_told(copied):
    change(copied, "decision.json", lambda d: d.update(status="infeasible", reason="too few"))
    with pytest.raises(InputError, match=r"too few.*--candidate"):
        open_exit(RunView(copied))
    change(copied, "run.json", lambda d: d["model"].update(weights_hash="0"))
    with pytest.raises(RunError, match=r"weights of .* have changed"):
        open_exit(RunView(copied), "raw:1x8")
    change(copied, "run.json", lambda d: d.update(status="running"))
    with pytest.raises(RunError, match="is running"):
        open_exit(RunView(copied), "raw:1x8")
    change(copied, "run.json", lambda d: d.update(analysis="circuits"))
    with pytest.raises(RunError, match="belongs to circuits"):
        open_exit(RunView(copied), "raw:1x8")


def test_other_data_than_the_runs_are_told_and_the_folder_stays(copied, tmp_path):
    change(copied, "run.json", lambda d: d["datasets"][0].update(hash="0"))
    with pytest.raises(RunError, match="was written, but not verified: the data"):
        export_exit(copied, tmp_path / "m", "raw:1x8", timing=NO_TIME)
    assert (tmp_path / "m" / "model.safetensors").exists()


def test_names_of_candidates_come_back():
    for name in ("raw:3x64", "translated:0x8", "tau=0.8:12x384"):
        assert parse_candidate(name).name == name


def test_a_check_that_was_not_done_fails_nothing():
    assert Verification((), "x", 0).passed
