"""The report's content in reading order, before it becomes HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pandas as pd

from probes.report.chains import chain_table
from probes.report.circuits import circuits_verdict
from probes.report.collapse import collapse_verdict
from probes.report.concepts import depth_test_table
from probes.report.data import RunData, mapping, sequence
from probes.report.figures import FigureCard, cards
from probes.report.heads import heads_verdict
from probes.report.quality import quality_verdict
from probes.report.sae import sae_verdict
from probes.report.sae_list import autoencoder_table
from probes.report.tables import Table, command, provenance
from probes.report.text import clean
from probes.report.training_exits import training_verdict
from probes.report.verdict import Verdict, alternatives, caveats, verdict

CONCLUSIONS = (
    collapse_verdict,
    quality_verdict,
    heads_verdict,
    circuits_verdict,
    sae_verdict,
    training_verdict,
)  # registered as they are loaded; `verdict` asks each
_NAMED = 3  # datasets that a title names one by one


@dataclass(frozen=True)
class Head:
    """What stands above everything: what kind of run, its name, when and how long."""

    eyebrow: str
    title: str
    byline: str


@dataclass(frozen=True)
class Report:
    """All that a report says."""

    head: Head
    verdict: Verdict
    caveats: list[str]
    figures: list[FigureCard]
    tables: list[Table]
    command: str | None
    provenance: list[Table]
    measurements: pd.DataFrame


def compose(data: RunData, slug: str) -> Report:
    """Read a run's parts into a report; absent parts leave out their sections."""
    tables = [
        alternatives(data),
        chain_table(data),
        depth_test_table(data),
        autoencoder_table(data),
    ]
    return Report(
        head(data, slug),
        verdict(data),
        caveats(data),
        cards(data),
        [table for table in tables if table is not None],
        command(data),
        provenance(data),
        data.measurements,
    )


def head(data: RunData, slug: str) -> Head:
    """Title and the line below it."""
    info = data.info
    analysis = clean(info.get("analysis") or "run", 64)
    model = model_name(info)
    title = " on ".join(part for part in (model, datasets_text(info)) if part) or slug
    created = clean(info.get("created") or "", 40).replace("T", " ").replace("+00:00", " UTC")
    seconds = info.get("seconds")
    took = f"took {seconds:.0f} s" if isinstance(seconds, int | float) and seconds >= 1 else ""
    byline = " · ".join(part for part in (clean(slug, 80), created, took) if part)
    return Head(f"Fathometer · {analysis}", title, byline)


def model_name(info: Mapping[str, Any]) -> str:
    """Name of the model a run was made with, as far as it says."""
    given = mapping(info.get("model")).get("name") or mapping(info.get("options")).get("model")
    return _short(given) if given else ""


def dataset_names(info: Mapping[str, Any]) -> list[str]:
    """Names of the datasets a run was made with."""
    found = [mapping(entry).get("name") for entry in sequence(info.get("datasets"))]
    found = found or [mapping(info.get("options")).get("data")]
    return [_short(name) for name in found if name]


def datasets_text(info: Mapping[str, Any]) -> str:
    """The datasets in a title: their names, or how many they are.

    >>> datasets_text({"datasets": [{"name": "cities"}, {"name": "years"}]})
    'cities, years'
    >>> datasets_text({"datasets": [{"name": f"set {k}"} for k in range(12)]})
    '12 datasets'
    """
    found = dataset_names(info)
    return ", ".join(found) if len(found) <= _NAMED else f"{len(found)} datasets"


def _short(name: Any) -> str:
    """The last part of a path; anything else as it is."""
    text = clean(name, 400)
    short = PurePath(text).name if text.startswith(("/", "./", "../", "~")) else text
    return clean(short or text, 80)
