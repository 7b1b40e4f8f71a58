"""What the pages know: which runs there are, what is in one, and what the budget makes of it.

Everything read is cached by modification times, so that a page never shows stale numbers and never reads twice.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from probes.errors import FathometerError
from probes.exits.walk import Budget, Walk, walk_chains
from probes.files import runs_dir
from probes.report import RunData
from probes.report.data import Cell, mapping
from probes.report.text import is_number, variant_name
from probes.runs import RunView, list_runs
from probes.runs.layout import TABLES

Stamp = tuple[tuple[str, int, int], ...]
_PARTS = (
    "run.json",
    "measurements.parquet",
    "measures.json",
    "decision.json",
    "report.html",
)


@dataclass(frozen=True)
class Shown:
    """A run as the pages show it: the folder's view, its data, and the stamp that both were read at."""

    view: RunView
    data: RunData
    stamp: Stamp

    @property
    def slug(self) -> str:
        return self.view.slug

    @property
    def status(self) -> str:
        return self.view.status


def parent() -> Path:
    """The folder of all runs."""
    return runs_dir()


def _stat(path: Path, name: str) -> tuple[str, int, int]:
    try:
        found = (path / name).stat()
    except OSError:
        return name, 0, 0
    return name, found.st_mtime_ns, found.st_size


def stamp_of(path: Path) -> Stamp:
    """Modification times and sizes of a run's parts, whichever tables it holds."""
    try:
        tables = sorted(entry.name for entry in os.scandir(path / TABLES))
    except OSError:
        tables = []
    names = (*_PARTS, *(f"{TABLES}/{name}" for name in tables if name.endswith(".parquet")))
    return tuple(_stat(path, name) for name in names)


def runs() -> list[RunView]:
    """All runs, newest first; read again only when a run.json changed."""
    root = parent()
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    except OSError:
        return []
    return _runs(str(root), tuple((name, *_stat(root / name, "run.json")[1:]) for name in names))


@st.cache_resource(max_entries=4, show_spinner=False)
def _runs(root: str, stamp: Stamp) -> list[RunView]:
    return list_runs(Path(root))


def load(slug: str) -> Shown:
    """One run by its name from the listing; a run that vanished meanwhile comes as broken."""
    path = parent() / slug
    return _load(str(path), stamp_of(path))


@st.cache_resource(max_entries=16, show_spinner=False)
def _load(path: str, stamp: Stamp) -> Shown:
    view = RunView(Path(path))
    return Shown(view, RunData.of(view), stamp)


@dataclass(frozen=True)
class Outcome:
    """What the walk gives for one budget: the chosen cell with its numbers, or the reason why there is none."""

    budget: Budget
    walk: Walk | None
    cell: Cell | None
    reason: str

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """The chosen step: calibrate_quality, calibrate_share, bound, p; empty without a choice."""
        if self.walk is None or self.walk.chosen is None:
            return {}
        return _step(self.walk, self.walk.chosen)

    def result_of(self, cell: Cell) -> str:
        """What the test says of a cell: passed, failed, or not tested."""
        if self.walk is None:
            return "This run holds no test tables."
        steps = self.walk.steps
        names = [variant_name(None if pd.isna(v) else v) for v in steps["variant"]]
        same = (steps["layer"] == cell.layer) & (steps["dim"] == cell.dim)
        rows = steps[same & pd.Series(names, index=steps.index).eq(cell.variant)]
        if rows.empty:
            return "It was not tested, because a cell that is no dearer is at least as good on the tune part."
        row = rows.iloc[-1]
        if row["order"] == 0:
            return "It is the full model."
        if row["passed"]:
            return "It passes at this budget."
        if row["tested"]:
            return "It fails at this budget."
        return "It is not tested at this budget, because a dearer cell before it fails."


def outcome(shown: Shown, budget: Budget) -> Outcome:
    """The choice for `budget`, recomputed from the run's tables; no model is needed."""
    return _outcome(str(shown.view.path), shown.stamp, budget, shown)


@st.cache_resource(max_entries=256, show_spinner=False)
def _outcome(path: str, stamp: Stamp, budget: Budget, _shown: Shown) -> Outcome:
    data = _shown.data
    tables = data.once(
        "test tables", lambda: [data.table(name) for name in ("chains", "share_draws", "losses")]
    )
    if any(table is None for table in tables):
        return Outcome(budget, None, None, "this run holds no test tables (yet)")
    try:
        walk = walk_chains(*tables, budget)  # type: ignore[arg-type]
    except (FathometerError, KeyError, ValueError, TypeError) as error:
        return Outcome(budget, None, None, f"the test tables cannot be used: {error}")
    if walk.chosen is None:
        return Outcome(budget, walk, None, walk.reason)
    step = _step(walk, walk.chosen)
    variant = variant_name(None if pd.isna(step["variant"]) else step["variant"])
    return Outcome(budget, walk, Cell(variant, int(step["layer"]), int(step["dim"])), "")


def _step(walk: Walk, name: str) -> dict[str, Any]:
    """The last step of a candidate; `Walk.row` makes every row on the way, which a slider would feel."""
    held = walk.steps["name"].tolist()
    at = len(held) - 1 - held[::-1].index(name)
    return {key: walk.steps[key].iloc[at] for key in walk.steps.columns}


def has_budget(shown: Shown) -> bool:
    """Whether a budget means anything to this run: it chooses an exit, or it has chosen one."""
    data = shown.data
    asked = "min_quality" in data.part("options") or "max_loss" in data.part("options")
    return asked or data.decision is not None or "chains" in data.table_names


def own_budget(data: RunData) -> Budget:
    """The budget a run was made with, the defaults where it does not say."""
    decision = mapping(data.decision)
    asked = mapping(decision.get("budget")) or data.part("options")
    confidence = decision.get("confidence", data.part("options").get("confidence"))
    try:
        return Budget(
            float(asked["min_quality"]) if is_number(asked.get("min_quality")) else 0.95,
            float(asked["max_loss"]) if is_number(asked.get("max_loss")) else None,
            float(confidence) if is_number(confidence) else 0.95,
        )
    except FathometerError:
        return Budget()
