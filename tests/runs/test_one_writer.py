"""A run has one writer at a time, and is continued with what it was begun with or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from probes.errors import RunError
from probes.runs import Run, RunView, list_runs

WRITER = """
import sys
from pathlib import Path
from probes.runs import Run
run = Run.create(Path(sys.argv[1]), "exit-layers", {"seed": 0}, slug="x")
print("open", flush=True)
sys.stdin.read()
run.finish() if sys.argv[2] == "finish" else run.fail("stopped", "interrupted")
print("closed", flush=True)
sys.stdin = None
import time
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path: Path):
    """Start a process that writes the run `x` until its input is closed, and lives on after that."""
    started: list[subprocess.Popen[str]] = []

    def begin(end: str = "fail") -> subprocess.Popen[str]:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), end],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        started.append(writer)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        return writer

    yield begin
    for writer in started:
        writer.kill()
        writer.wait()
        for pipe in (writer.stdin, writer.stdout):
            if pipe is not None:
                pipe.close()


def test_a_second_writer_is_refused_by_name_until_the_first_dies(tmp_path: Path, start) -> None:
    writer = start()
    before = (tmp_path / "x" / "run.json").read_bytes()
    with pytest.raises(RunError, match=f"is being written by process {writer.pid}: wait"):
        Run.reopen(tmp_path / "x")
    assert (tmp_path / "x" / "run.json").read_bytes() == before
    assert [view.status for view in list_runs(tmp_path)] == ["running"]  # readers do not care
    writer.kill()  # no word of farewell: the system gives the lock back
    writer.wait()
    with Run.reopen(tmp_path / "x"):
        pass
    assert RunView(tmp_path / "x").status == "finished"


@pytest.mark.parametrize("end", ["finish", "fail"])
def test_a_closed_run_is_free_while_its_process_lives(tmp_path: Path, start, end: str) -> None:
    writer = start(end)
    writer.stdin.close()
    assert writer.stdout.readline() == "closed\n"
    if end == "fail":
        Run.reopen(tmp_path / "x").finish()
    else:
        with pytest.raises(RunError, match="is finished"):
            Run.reopen(tmp_path / "x")
    assert writer.poll() is None


def test_the_same_process_cannot_write_one_run_twice(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "exit-layers", {}, slug="x")
    with pytest.raises(RunError, match=f"process {os.getpid()}"):
        Run.reopen(run.path)
    del run  # a run that was dropped, not closed
    Run.reopen(tmp_path / "x").finish()


def test_a_full_disk_at_the_end_gives_the_lock_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path, "exit-layers", {}, slug="x")

    def full(*_args: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("probes.runs.write.write_json", full)
        with pytest.raises(OSError, match="No space"):
            run.fail("stopped", "interrupted")
    Run.reopen(tmp_path / "x").finish()


def test_a_folder_that_is_no_run_gets_no_lock_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json is missing"):
        Run.reopen(tmp_path)
    assert list(tmp_path.iterdir()) == []


def stopped(tmp_path: Path) -> Path:
    run = Run.create(tmp_path, "exit-layers", {}, slug="x")
    run.describe(model={"name": "m", "weights_hash": "a" * 64})
    run.describe(dataset={"name": "d", "hash": "b" * 64})
    run.fail("stopped", "interrupted")
    return run.path


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": {"name": "m", "weights_hash": "c" * 64}}, "weights of model 'm' changed"),
        ({"dataset": {"name": "d", "hash": "c" * 64}}, "data of 'd' changed"),
    ],
)
def test_other_data_or_weights_are_not_mixed_into_a_run(
    tmp_path: Path, changed: dict[str, dict[str, str]], said: str
) -> None:
    path = stopped(tmp_path)
    for _ in range(2):  # the refusal itself does not make the change true
        with pytest.raises(RunError, match=f"{said}.*start a new run"), Run.reopen(path) as run:
            run.describe(**changed)
        assert RunView(path).status == "failed"
    assert RunView(path).info["datasets"] == [{"name": "d", "hash": "b" * 64}]


def test_the_same_data_and_weights_go_on(tmp_path: Path) -> None:
    with Run.reopen(stopped(tmp_path)) as run:
        run.describe(model={"name": "m", "weights_hash": "a" * 64, "device": "cuda"})
        run.describe(dataset={"name": "d", "hash": "b" * 64})
        run.describe(dataset={"name": "another", "hash": "e" * 64})
    assert [d["name"] for d in RunView(run.path).info["datasets"]] == ["d", "another"]
