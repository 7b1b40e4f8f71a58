"""`fathometer export`: the exit of a run as a model folder, with its checks on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from probes.cli.run import RunsOption
from probes.cli.shell import console, errors
from probes.errors import ExportError


def export(
    run: Annotated[str, typer.Argument(help="Name or path of a finished exit-layers run.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to make.")],
    candidate: Annotated[
        str | None,
        typer.Option(help="Such as translated:3x64 or raw:3x64; default the chosen one."),
    ] = None,
    format: Annotated[
        str, typer.Option("--format", help="sentence-transformers or transformers.")
    ] = "sentence-transformers",
    with_code: Annotated[
        bool,
        typer.Option(
            "--with-code",
            help="Allow a small Python file in the folder where stock classes cannot express the exit.",
        ),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(help="Check embeddings, quality and time in a process without Fathometer."),
    ] = True,
    seconds: Annotated[
        float, typer.Option(help="Time spent on measuring time again; 0: none.", min=0, max=600)
    ] = 10.0,
    runs: RunsOption = None,
) -> None:
    """Write the exit that a run chose as a model of its own, and prove that it does what the run promised.

    The folder loads with SentenceTransformer(DIR), without Fathometer. A check that fails deletes nothing and ends with
    exit code 2.
    """
    from probes.exits.export.export import export_exit
    from probes.exits.export.verify import Timing

    done = export_exit(
        run,
        to,
        candidate,
        format=format,
        with_code=with_code,
        verify=verify,
        timing=Timing(seconds),
        runs=runs,
        progress=lambda text: errors.print(text, style="dim", markup=False),
    )
    console.print(f"model: {done.path} ({done.candidate})", markup=False)
    if done.verification is None:
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("check")
    table.add_column("")
    table.add_column("found")
    for check in done.verification.checks[1:]:
        word = {True: "passed", False: "failed", None: "not done"}[check.passed]
        table.add_row(check.name, word, check.text)
    console.print(table, markup=False)
    if not done.verification.passed:
        raise ExportError(
            f"the exported model fails a check: {done.verification.first_failure}. {done.path} stays as it is"
        )
