"""The command line `fathometer`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from probes import __version__
from probes import analysis as analyses
from probes.cli.export import export
from probes.cli.inspect import datasets_app, doctor, models_app
from probes.cli.run import RunsOption, add_analyses, print_result, progress_bar, run_app
from probes.cli.shell import console, invoke
from probes.errors import InputError
from probes.files import runs_dir
from probes.runs import find_run

app = typer.Typer(
    name="fathometer",
    help=(
        "After which layer and at which width can a transformer stop, how sure is that, and why? "
        "Start with: fathometer demo. Every command takes --debug, which shows a traceback."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(run_app, name="run")
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="datasets")
app.command()(export)
app.command()(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"fathometer {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Measure how deep a transformer has to be."""


@app.command()
def demo(
    runs: RunsOption = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="A quarter of the data: a quick check that all works.")
    ] = False,
) -> None:
    """Choose an exit for the real MiniLM model on built-in real text (topics of docstrings), and write the report.

    Pulls the model once (83 MB), takes at most three minutes on two cores.
    """
    analysis = analyses.load_analysis("exit-layers")
    given = {"limit": 300} if fast else {}
    with progress_bar() as progress:
        path = analyses.execute(analysis, given, runs=runs_dir(runs), progress=progress)
    print_result(analysis, path)


@app.command()
def capture(
    model: Annotated[str, typer.Argument(help="Model: a catalogue name, a folder, or a hub id.")],
    dataset: Annotated[str, typer.Argument(help="Dataset: a built-in name or a file.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder of the store, reused when it fits; default in the cache."
        ),
    ] = None,
    sites: Annotated[str, typer.Option(help="Sites, separated by commas.")] = "exit",
    layers: Annotated[
        str | None, typer.Option(help="Layers or blocks, separated by commas; default all.")
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="mean, last, first, max, weighted or none; default the model's own."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    max_length: Annotated[int | None, typer.Option(help="Longest text in tokens.")] = None,
    special_tokens: Annotated[
        bool, typer.Option(help="Let special tokens take part in the pooling.")
    ] = True,
    columns: Annotated[str | None, typer.Option(help="text=review,label=stars")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="Run Python code that comes with the model.")
    ] = False,
) -> None:
    """Capture activations of every text of a dataset into a store that scripts can read.

    Read it back with: probes.open_store(OUT)["exit", 3].
    """
    from probes.capture import capture as capture_texts
    from probes.datasets import load_dataset, load_texts
    from probes.models import load_model

    roles = analyses.parse_columns(columns)
    texts = load_dataset(dataset, **roles).all_texts() if roles else load_texts(dataset)
    texts = tuple(dict.fromkeys(texts))
    wanted = None if layers is None else [_whole(part) for part in layers.split(",")]
    loaded = load_model(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    store = capture_texts(
        loaded,
        texts,
        sites=[site.strip() for site in sites.split(",")],
        pooling=pooling,
        layers=wanted,
        out=out,
        cache=out is None,
        max_length=max_length,
        special_tokens=special_tokens,
        progress=True,
    )
    table = Table("site", "layers or blocks", "shape of one")
    for site in store.sites():
        numbers = store.layers(site)
        table.add_row(site, ", ".join(map(str, numbers)), str(store[site, numbers[0]].shape))
    console.print(table)
    console.print(f"store: {store.path} ({len(texts):,} different texts)", markup=False)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(
            f"--layers {text!r}: whole numbers separated by commas are needed"
        ) from None


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="Name or path of a run.")], runs: RunsOption = None
) -> None:
    """Write report.html and report.md of a run again, from its tables."""
    from probes.report import build_report

    view = find_run(runs_dir(runs), run)
    build_report(view.path)
    console.print(f"report: {view.path / 'report.html'}", markup=False)


@app.command()
def dashboard(
    runs: RunsOption = None,
    port: Annotated[
        int | None, typer.Option(help="Port; default a free one.", min=1, max=65535)
    ] = None,
) -> None:
    """Open the dashboard on the run folders, on this machine only. Ends with Ctrl-C or SIGTERM."""
    from probes.cli.dashboard import launch

    raise SystemExit(launch(runs_dir(runs), port))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    add_analyses()
    sys.exit(invoke(app, arguments))
