"""Run folders: written atomically, read whatever state they are in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from probes.errors import DataError, InputError, NonFiniteError, RunError
from probes.runs import Run, RunView, find_run, list_runs
from probes.runs.write import slug_for
from probes.tables import COLUMNS, tidy


def rows() -> pd.DataFrame:
    return tidy(
        [{"measure": "spearman", "layer": 3, "value": 0.8, "low": 0.7, "high": 0.9, "n": 100}]
    )


def test_a_finished_run_reads_back_what_was_written(tmp_path: Path) -> None:
    with Run.create(tmp_path, "exit-layers", {"model": "minilm", "seed": 7}) as run:
        run.describe(model={"name": "minilm", "n_layers": 6}, dataset={"name": "a", "n": 3})
        run.add(rows())
        run.add(rows())
        run.write_table("chains", pd.DataFrame({"order": [1, 2]}))
        run.write_decision({"status": "chosen", "layer": 3})
    view = RunView(run.path)
    assert view.problem is None
    assert view.status == "finished"
    assert view.info["seed"] == 7
    assert view.info["datasets"] == [{"name": "a", "n": 3}]
    assert len(view.measurements) == 2
    assert view.measures["spearman"]["better"] == "up"
    assert view.table("chains")["order"].tolist() == [1, 2]
    assert view.decision == {"status": "chosen", "layer": 3}
    assert view.info["versions"]["python"]
    assert not list(run.path.rglob("*.tmp"))


def test_a_failing_run_keeps_its_log_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError), Run.create(tmp_path, "exit-layers", {}) as run:
        run.progress(0, 3, "reading texts")
        raise DataError("line 7 is empty")
    view = RunView(run.path)
    assert view.status == "failed"
    assert view.info["message"] == "line 7 is empty"
    assert "reading texts" in view.log
    assert "line 7 is empty" in view.log


def test_an_interrupted_run_can_be_continued_and_a_finished_one_cannot(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Run.create(tmp_path, "exit-layers", {"seed": 1}) as run:
        raise KeyboardInterrupt
    assert RunView(run.path).status == "interrupted"
    with Run.reopen(run.path) as again:
        assert again.info["options"] == {"seed": 1}
    assert RunView(run.path).status == "finished"
    with pytest.raises(RunError, match="is finished"):
        Run.reopen(run.path)


def test_nan_never_enters_a_run(tmp_path: Path) -> None:
    with Run.create(tmp_path, "exit-layers", {}) as run:
        with pytest.raises(NonFiniteError, match="spearman"):
            run.add(tidy([{"measure": "spearman", "value": float("nan")}]))
        with pytest.raises(ValueError, match="JSON compliant"):
            run.write_decision({"quality": float("nan")})
    assert RunView(run.path).decision is None


@pytest.mark.parametrize("name", ["../evil", "/abs", "a\0b", "x" * 300, "", ".."])
def test_hostile_run_names_are_refused(tmp_path: Path, name: str) -> None:
    if name == "":
        assert Run.create(tmp_path, "exit-layers", {}, slug=name).path.parent == tmp_path
        return
    with pytest.raises(InputError, match="bad run name"):
        Run.create(tmp_path, "exit-layers", {}, slug=name)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_of_one_name_get_two_folders_unless_the_name_was_asked_for(tmp_path: Path) -> None:
    first = Run.create(tmp_path, "exit-layers", {})
    second = Run.create(tmp_path, "exit-layers", {})
    assert first.path != second.path
    Run.create(tmp_path, "exit-layers", {}, slug="mine")
    with pytest.raises(RunError, match="already"):
        Run.create(tmp_path, "exit-layers", {}, slug="mine")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is missing"),
        ("", "cannot be read"),
        ("[1]", "not an object"),
        ("[" * 200_000, "cannot be read"),
        ('{"schema": ' + "1" * 5000 + "}", "cannot be read"),
        ('{"schema": 99}', "schema 99"),
        ('{"schema": 1, "status": "odd"}', "status 'odd'"),
        ('{"schema": 1, "status": "running"}', "no 'analysis'"),
    ],
)
def test_broken_runs_are_listed_with_what_is_wrong(
    tmp_path: Path, content: str | None, problem: str
) -> None:
    Run.create(tmp_path, "exit-layers", {}, slug="good").finish()
    (tmp_path / "bad").mkdir()
    if content is not None:
        (tmp_path / "bad" / "run.json").write_text(content)
    views = {view.slug: view for view in list_runs(tmp_path)}
    assert views["good"].problem is None
    assert problem in (views["bad"].problem or "")
    assert views["bad"].status == "broken"
    assert views["bad"].measurements.empty
    assert views["bad"].decision is None


@pytest.mark.parametrize(
    "columns",
    [
        {"layer": ["three"]},
        {"value": ["high"]},
        {"value": [[1.0, 2.0]]},
        {"layer": [1.5]},
    ],
)
def test_measurements_of_other_types_are_an_empty_table(
    tmp_path: Path, columns: dict[str, list[object]]
) -> None:
    with Run.create(tmp_path, "exit-layers", {}) as run:
        run.add(rows())
    assert len(RunView(run.path).measurements) == 1
    pd.DataFrame(columns).to_parquet(run.path / "measurements.parquet")
    found = RunView(run.path).measurements
    assert list(found.columns) == list(COLUMNS)
    assert found["layer"].dtype == "Int64"
    assert found.empty


def test_a_damaged_table_is_noticed(tmp_path: Path) -> None:
    with Run.create(tmp_path, "exit-layers", {}) as run:
        run.write_table("big", pd.DataFrame({"x": range(20_000)}))
    path = run.path / "tables" / "big.parquet"
    assert len(RunView(run.path).table("big")) == 20_000
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="cannot be read"):
        RunView(run.path).table("big")


def test_progress_is_readable_while_the_run_is_live(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "exit-layers", {})
    run.progress(1, 4, "capturing")
    seen = json.loads((run.path / "run.json").read_text())
    assert seen["status"] == "running"
    assert seen["progress"] == {"done": 1, "total": 4, "text": "capturing"}


def test_find_run_by_slug_path_and_misspelling(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "exit-layers", {}, slug="first")
    assert find_run(tmp_path, "first").path == run.path
    assert find_run(tmp_path / "elsewhere", str(run.path)).slug == "first"
    with pytest.raises(InputError, match="did you mean 'first'"):
        find_run(tmp_path, "frist")
    with pytest.raises(RunError, match="holds no runs yet"):
        find_run(tmp_path / "elsewhere", "first")


def test_slugs_are_safe_names() -> None:
    assert slug_for("exit-layers", "äöü/../..", "x" * 200) == "exit-layers-" + "x" * 20
    assert slug_for("", "///") == "run"


def test_a_folder_without_write_access_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(Exception, match="no write access"):
        Run.create(tmp_path / "new", "exit-layers", {})
