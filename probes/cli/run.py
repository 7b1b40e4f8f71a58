"""`fathometer run ANALYSIS`: a command drawn from the options that the analysis declares."""

from __future__ import annotations

import inspect
import shlex
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from probes import analysis as analyses
from probes.analysis import Analysis, Option
from probes.cli.decision import print_decision
from probes.cli.findings import print_findings
from probes.cli.shell import console, errors, print_lines
from probes.errors import InputError
from probes.files import runs_dir
from probes.runs import RunView, find_run

_SECONDS_BETWEEN_LINES = (
    15  # of progress where the output is no terminal, so that a log stays short
)

RunsOption = Annotated[
    Path | None,
    typer.Option(
        "--runs", help="Folder of all runs.", envvar="FATHOMETER_RUNS", show_default="./runs"
    ),
]


def _parameter(option: Option) -> inspect.Parameter:
    notes = option.help
    if option.choices:
        notes += f" One of: {', '.join(option.choices)}."
    flags = [option.flag]
    if option.type is bool:
        flags = [f"{option.flag}/--no-{option.flag[2:]}"]
    declared: Any = option.type | None if option.default is None else option.type
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=option.default,
        annotation=Annotated[declared, typer.Option(*flags, help=notes)],
    )


def command_for(analysis: Analysis) -> Callable[..., None]:
    """A function whose signature is the analysis' options, for Typer to read."""

    def command(**given: Any) -> None:
        runs, name = runs_dir(given.pop("runs")), given.pop("name")
        with progress_bar() as progress:
            path = analyses.execute(analysis, given, runs=runs, name=name, progress=progress)
        print_result(analysis, path)

    shared = [
        inspect.Parameter(
            "runs", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=RunsOption
        ),
        inspect.Parameter(
            "name",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None,
                typer.Option(
                    "--name", help="Name of the run's folder: 1 to 64 of A-Z a-z 0-9 . _ -"
                ),
            ],
        ),
    ]
    parameters = [_parameter(option) for option in analysis.options] + shared
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__name__ = analysis.name.replace("-", "_")
    return command


def print_result(analysis: Analysis, path: Path) -> None:
    """The summary of a finished run, its decision if it made one, and where to look next."""
    view = RunView(path)
    print_lines(analysis.summary(view))
    if view.decision is not None:
        print_decision(view)
    else:
        print_findings(view)
    console.print(f"report:    {path / 'report.html'}", markup=False)
    words = ["fathometer", "dashboard"]
    if path.parent.resolve() != runs_dir().resolve():
        words += ["--runs", str(path.parent)]
    console.print(f"dashboard: {shlex.join(words)}", markup=False)


@contextmanager
def progress_bar() -> Generator[analyses.Progress]:
    """A progress bar on standard error with rate and time left; one line per stage of the work."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        disable=not errors.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    said = 0.0

    def tell(done: int, total: int | None, text: str) -> None:
        nonlocal said
        if text.startswith(analyses.NOTE):
            errors.print(text, markup=False, style="yellow")
            return
        if text not in tasks:
            # Stages follow each other: a new one means that the others are done.
            for task in bar.tasks:
                bar.update(task.id, completed=task.total)
            tasks[text] = bar.add_task(text, total=total or 1, rate="")
            if bar.disable:
                errors.print(text, markup=False, style="dim")
                said = time.monotonic()
        elif bar.disable and total and time.monotonic() - said > _SECONDS_BETWEEN_LINES:
            errors.print(f"{text}: {done:,} of {total:,}", markup=False, style="dim")
            said = time.monotonic()
        speed = bar.tasks[bar.task_ids.index(tasks[text])].speed
        rate = f"{speed:,.0f}/s" if speed else ""
        bar.update(tasks[text], completed=done, total=total or 1, rate=rate)

    with bar:
        yield tell


run_app = typer.Typer(
    help="Run an analysis on a model and data: a run folder with tables, figures and a report.",
    no_args_is_help=False,
)


@run_app.callback(invoke_without_command=True)
def run_callback(
    context: typer.Context,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue the run with this name or path.")
    ] = None,
    runs: RunsOption = None,
) -> None:
    """Run an analysis, or continue one with --resume."""
    if resume is None:
        if context.invoked_subcommand is None:
            names = ", ".join(analyses.load_analyses())
            raise InputError(f"which analysis? One of: {names}. Or continue one with --resume RUN")
        return
    if context.invoked_subcommand is not None:
        raise InputError("--resume takes no analysis: the run knows its own. Leave the name away")
    view = find_run(runs_dir(runs), resume)
    if view.problem:
        raise InputError(f"run {view.slug!r} cannot be continued: {view.problem}")
    analysis = analyses.load_analysis(str(view.info.get("analysis")))
    with progress_bar() as progress:
        path = analyses.execute(analysis, {}, runs=view.path.parent, resume=view, progress=progress)
    print_result(analysis, path)


def add_analyses() -> None:
    """One sub-command per script in `analyses/`."""
    for name in analyses.load_analyses():
        analysis = analyses.load_analysis(name)
        run_app.command(name, help=analysis.question, short_help=analysis.title)(
            command_for(analysis)
        )
