"""`fathometer run`: options drawn from the analysis, one line per mistake, runs that can be continued."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from probes.analysis import Option, load_analyses, load_analysis, parse_columns
from probes.cli.run import command_for, run_app
from probes.cli.shell import invoke
from probes.errors import InputError
from probes.runs import RunView, list_runs


def app_for_toy() -> typer.Typer:
    app = typer.Typer()
    group = typer.Typer()
    group.registered_callback = run_app.registered_callback
    analysis = load_analysis("toy-count")
    group.command("toy-count", help=analysis.question)(command_for(analysis))
    app.add_typer(group, name="run")
    return app


def call(*arguments: str) -> int:
    return invoke(app_for_toy(), ["run", *arguments])


def test_a_run_is_made_reported_and_summarised(
    toy_analysis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        call(
            "toy-count",
            "--share",
            "0.25",
            "--careful",
            "--runs",
            str(toy_analysis),
            "--name",
            "one",
        )
        == 0
    )
    view = RunView(toy_analysis / "one")
    assert view.status == "finished"
    assert view.info["options"] == {
        "share": 0.25,
        "break_with": "nothing",
        "limit": None,
        "careful": True,
    }
    assert view.measurements["value"].tolist() == [0.25]
    out = capsys.readouterr().out
    assert "share 0.25 [not markup]" in out
    assert str(toy_analysis / "one" / "report.html") in out.replace("\n", "")
    assert (toy_analysis / "one" / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy-count", "--share", "2"], "--share 2.0: at least 0 and at most 1 is allowed"),
        (["toy-count", "--share", "nan"], "--share nan"),
        (["toy-count", "--share", "much"], "--share"),
        (["toy-count", "--break-with", "dta"], "did you mean 'data'"),
        (["toy-count", "--shar", "1"], "--shar"),
        (["toy-cont"], "toy-cont"),
        ([], "which analysis? One of: toy-count"),
        (["toy-count", "--name", "../evil"], "bad run name"),
        (["--resume", "nothing"], "holds no runs yet"),
    ],
)
def test_a_mistake_is_one_line_exit_code_2_and_leaves_nothing_behind(
    toy_analysis: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("FATHOMETER_RUNS", str(toy_analysis))
    assert call(*arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert message in lines[0]
    assert list_runs(toy_analysis) == []


def test_bad_data_keeps_the_run_with_its_reason(
    toy_analysis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("toy-count", "--break-with", "data", "--runs", str(toy_analysis)) == 2
    err = capsys.readouterr().err
    assert "line 7 of data.csv" in err
    assert "Traceback" not in err
    (view,) = list_runs(toy_analysis)
    assert view.status == "failed"
    assert "line 7" in view.log


def test_a_defect_is_exit_code_1_and_shows_its_traceback_only_with_debug(
    toy_analysis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("toy-count", "--break-with", "defect", "--runs", str(toy_analysis)) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert call("toy-count", "--break-with", "defect", "--runs", str(toy_analysis), "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupted_run_is_continued_with_its_own_options(
    toy_analysis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["toy-count", "--break-with", "ctrl-c", "--share", "0.75"]
    assert call(*arguments, "--runs", str(toy_analysis), "--name", "cut") == 130
    assert RunView(toy_analysis / "cut").status == "interrupted"
    assert call("--resume", "cut", "--runs", str(toy_analysis)) == 0
    view = RunView(toy_analysis / "cut")
    assert view.status == "finished"
    assert view.measurements["value"].tolist() == [0.75]
    assert (view.path / "attempts.txt").read_text() == "xx"


def test_analyses_of_the_project_are_found_and_declare_what_they_need() -> None:
    assert "exit-layers" in load_analyses()
    for name in load_analyses():
        analysis = load_analysis(name)
        assert analysis.name == name
        assert analysis.question.endswith("?")
        assert {"model", "data", "seed"} <= {option.name for option in analysis.options}
        assert analysis.check({})["data"]


def test_options_check_their_type_range_and_choices() -> None:
    option = Option("k", int, 3, "", low=1, high=5)
    assert option.check("4") == 4
    for bad in ("x", 0, 6, None):
        with pytest.raises(InputError, match="--k"):
            option.check(bad)
    assert Option("k", int, None, "").check(None) is None


@pytest.mark.parametrize("text", ["text", "=a", "a=", "a=b,c"])
def test_bad_column_lists(text: str) -> None:
    with pytest.raises(InputError, match="role=column"):
        parse_columns(text)
