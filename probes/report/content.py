"""The report's content in reading order, before it becomes HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import pandas as pd

from probes.report import facts
from probes.report.data import RunData
from probes.report.facts import Table, Verdict
from probes.report.figures import FigureCard, cards
from probes.report.text import clean


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
    tables = [facts.alternatives(data), facts.chain_table(data)]
    return Report(
        head(data, slug),
        facts.verdict(data),
        facts.caveats(data),
        cards(data),
        [table for table in tables if table is not None],
        facts.command(data),
        facts.provenance(data),
        data.measurements,
    )


def head(data: RunData, slug: str) -> Head:
    """Title and the line below it."""
    info = data.info
    analysis = clean(info.get("analysis") or "run", 64)
    model = model_name(info)
    names = ", ".join(dataset_names(info))
    title = " on ".join(part for part in (model, names) if part) or slug
    created = clean(info.get("created") or "", 40).replace("T", " ").replace("+00:00", " UTC")
    seconds = info.get("seconds")
    took = f"took {seconds:.0f} s" if isinstance(seconds, int | float) and seconds >= 1 else ""
    byline = " · ".join(part for part in (clean(slug, 80), created, took) if part)
    return Head(f"Fathometer · {analysis}", title, byline)


def model_name(info: Mapping[str, Any]) -> str:
    """Name of the model a run was made with, as far as it says."""
    model = info.get("model")
    options = info.get("options")
    given = model.get("name") if isinstance(model, Mapping) else None
    given = given or (options.get("model") if isinstance(options, Mapping) else None) or ""
    return clean(_short(given), 80)


def dataset_names(info: Mapping[str, Any]) -> list[str]:
    """Names of the datasets a run was made with."""
    held = info.get("datasets")
    names = (
        [d.get("name") for d in held if isinstance(d, Mapping)] if isinstance(held, list) else []
    )
    if not names and isinstance(info.get("options"), Mapping):
        names = [info["options"].get("data")]
    return [clean(_short(name), 80) for name in names if name]


def _short(name: Any) -> str:
    text = str(name)
    return PurePath(text).name or text if text.startswith(("/", "./", "../", "~")) else text
