"""Commands that show what there is: models, datasets, and the state of the installation."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from probes.cli.shell import console
from probes.errors import FathometerError
from probes.files import cache_dir, runs_dir
from probes.runs.environment import hardware, versions

models_app = typer.Typer(help="Models of the catalogue.", no_args_is_help=True)
datasets_app = typer.Typer(help="Built-in datasets, and a look at any other.", no_args_is_help=True)


@models_app.command("list")
def models_list() -> None:
    """Models that can be pulled by name, and which of them are here."""
    from probes.models import list_models

    table = Table("name", "here", "size", "licence", "what")
    for entry in list_models():
        here = "yes" if entry.present else "no"
        table.add_row(entry.name, here, f"{entry.size / 1e6:.0f} MB", entry.licence, entry.summary)
    console.print(table)
    console.print("Any other name is a local folder or a hub id (safetensors or GGUF only).")


@models_app.command("pull")
def models_pull(name: Annotated[str, typer.Argument(help="A name of `models list`.")]) -> None:
    """Download a model of the catalogue into the cache and check its SHA-256."""
    from probes.models import pull

    console.print(str(pull(name)), markup=False)


@datasets_app.command("list")
def datasets_list() -> None:
    """Built-in datasets."""
    from probes.datasets import dataset_entries

    table = Table("name", "kind", "licence", "what")
    for entry in dataset_entries():
        table.add_row(entry.name, entry.kind, entry.licence, entry.summary)
    console.print(table)
    console.print("Files: CSV, TSV, JSONL, Parquet, retrieval folders, hf:NAME[:CONFIG][:SPLIT].")


@datasets_app.command("show")
def datasets_show(
    name: Annotated[str, typer.Argument(help="A built-in name or a path.")],
    columns: Annotated[str | None, typer.Option(help="text=review,label=stars")] = None,
) -> None:
    """What a dataset holds: kind, size, classes, lengths, licence, examples."""
    from probes.analysis import parse_columns
    from probes.datasets import builtin_datasets, describe, describe_entry, load_dataset

    if name in builtin_datasets() and columns is None:
        show_mapping(describe_entry(name))
    else:
        show_mapping(describe(load_dataset(name, **parse_columns(columns))))


def show_mapping(values: Mapping[str, Any], indent: str = "") -> None:
    """Print nested values, one per line; texts are never interpreted as markup."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            console.print(f"{indent}{key}:", markup=False)
            show_mapping(value, indent + "  ")
        elif isinstance(value, list | tuple):
            console.print(f"{indent}{key}:", markup=False)
            for item in value:
                console.print(f"{indent}  - {item}", markup=False)
        else:
            console.print(f"{indent}{key}: {value}", markup=False)


def _can_write(folder: Path) -> bool:
    """Whether files can be made in `folder`, or in the nearest parent that exists; nothing is left behind."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def doctor() -> None:
    """Versions, device, models found, write access: what to paste into a bug report."""
    importlib.import_module("torch")  # `hardware` asks it for accelerators only where it is loaded

    from probes.models import list_models

    console.print("[bold]versions[/bold]")
    show_mapping(versions(), "  ")
    console.print("[bold]hardware[/bold]")
    show_mapping(hardware(), "  ")
    console.print("[bold]models[/bold]")
    show_mapping({e.name: "here" if e.present else "not pulled" for e in list_models()}, "  ")
    console.print("[bold]folders[/bold]")
    folders = {"cache": cache_dir(), "runs": runs_dir().absolute()}
    can = {name: _can_write(path) for name, path in folders.items()}
    words = {True: "writable", False: "NOT writable"}
    show_mapping({name: f"{folders[name]} ({words[can[name]]})" for name in folders}, "  ")
    if not all(can.values()):
        raise FathometerError("a folder is not writable: set FATHOMETER_CACHE or FATHOMETER_RUNS")
