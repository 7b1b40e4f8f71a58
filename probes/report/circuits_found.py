"""What the tables of a circuits run show of a task: whether it is done, by which heads, how few keep it, from where."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from probes.report.collapse_study import numbers_of, records
from probes.report.data import RunData
from probes.report.figures.circuit_attribution import located
from probes.report.figures.circuit_patching import head_effects
from probes.report.frames import column, only
from probes.report.head_tables import held, is_circuits, tasks_of
from probes.report.text import is_number

Row = dict[str, Any]
KEPT = 0.8  # share of the logit difference that counts as kept
_RANKINGS = ("activation", "attribution", "dla")  # the first that was measured is asked


def task_rows(data: RunData) -> dict[str, Row]:
    """Accuracy and logit differences by task."""
    frame = held(data, "tasks") if is_circuits(data) else None
    return {} if frame is None else {row["task"]: row for row in reversed(records(frame))}


def done(row: Row) -> bool:
    """Whether the right answer is shown to be ahead in more than half of the pairs."""
    return is_number(row["low"]) and row["low"] > 0.5


def tasks_done(data: RunData) -> list[str]:
    """Tasks that the model is shown to do."""
    held_rows = task_rows(data)
    return [task for task in tasks_of(data) if task in held_rows and done(held_rows[task])]


def curve_of(data: RunData, task: str, ranking: str | None = None) -> list[Row]:
    """Faithfulness by number of heads kept, short of all; without `ranking` of the best one that was measured."""
    frame = held(data, "faithfulness") if is_circuits(data) else None
    if frame is None:
        return []
    rows = only(frame, task=task)
    for name in _RANKINGS if ranking is None else (ranking,):
        own = only(rows, ranking=name).sort_values("heads_kept")
        if len(own):
            total = float(column(rows, "heads_kept").max())
            return [{**row, "all": total} for row in records(own) if row["heads_kept"] < total]
    return []


def fewest(data: RunData, task: str, ranking: str | None = None) -> Row | None:
    """The smallest number of heads from which on the task is kept: the lower end of its faithfulness is 80 % or more,
    and so it is with every larger number tried; by one ranking, activation patching where it was measured.
    """
    reach: Row | None = None
    for row in reversed(curve_of(data, task, ranking)):
        if not is_number(row["low"]) or row["low"] < KEPT:
            break
        reach = row
    return reach


def strongest(data: RunData, task: str) -> list[Row]:
    """Heads that are shown to help, the most helpful first; bounds hold for all heads that were looked at together.

    Patched alone on pairs that did not pick them (`fresh` 1) or on the same (0); by direct attribution where nothing
    was patched, with Bonferroni's wider bounds.
    """
    frame = held(data, "strongest") if is_circuits(data) else None
    rows = [] if frame is None else records(only(frame, task=task))
    if not rows:
        rows = _widened(data, task)
    sure = [row for row in rows if is_number(row["low"]) and row["low"] > 0]
    return sorted(sure, key=lambda row: -row["value"])


def _widened(data: RunData, task: str) -> list[Row]:
    """Heads whose intervals are pointwise, with those widened to bounds for all heads."""
    for name in ("patching", "attribution"):
        frame = held(data, name) if is_circuits(data) else None
        if frame is None:
            continue
        rows = only(frame, task=task)
        own = records(head_effects(rows) if name == "patching" else located(rows, component="head"))
        if own:
            return [{**row, **_wide(row, len(own))} for row in own]
    return []


def _wide(row: Row, heads: int) -> Row:
    if not (is_number(row["low"]) and is_number(row["n"]) and row["n"] > 1):
        return {"low": np.nan, "high": np.nan}
    one, all_ = (float(stats.t.ppf(1 - 0.025 / k, row["n"] - 1)) for k in (1, heads))
    by = all_ / one
    return {end: row["value"] + by * (row[end] - row["value"]) for end in ("low", "high")}


def first_guess_from(data: RunData, task: str) -> int | None:
    """The layer from which on, to the last, the answer is shown to be the first guess in half of the texts or more."""
    frame = held(data, "lens") if is_circuits(data) else None
    found: int | None = None
    rows = [] if frame is None else records(only(frame, task=task).sort_values("layer"))
    for row in reversed(rows):
        if not is_number(row["top1_low"]) or row["top1_low"] < 0.5:
            break
        found = int(row["layer"])
    return found


def taken_back(data: RunData) -> dict[str, Row]:
    """Suppression by the last layers, by task."""
    return {
        row["dataset"]: row for row in reversed(records(numbers_of(data, "answer_suppression", "")))
    }
