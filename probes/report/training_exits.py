"""What training for exits gained and cost, in plain words and one table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from probes.report.collapse_study import excludes_zero, records
from probes.report.data import RunData
from probes.report.frames import names, only
from probes.report.tables import Table
from probes.report.text import NOTHING, clean, interval, number
from probes.report.verdict import Verdict, conclusion, unfinished

ANALYSIS = "train-exits"
_NEEDED = {"against", "loss", "layer", "dim", "trained_pair", "before", "after", "change"}
_COLUMNS = ("loss", "layer", "dims", "before", "after", "change", "over translated")


def changes(data: RunData, against: str = "before") -> pd.DataFrame | None:
    """The table of changes against the model before training, or against translated layers; None where absent."""
    if data.info.get("analysis") != ANALYSIS:
        return None
    frame = data.table("training")
    if frame is None or not set(frame.columns) >= _NEEDED:
        return None
    found = only(frame, against=against)
    return None if found.empty else found


def ends(rows: pd.DataFrame) -> tuple[dict[str, Any], dict[str, Any]]:
    """The shallowest trained place and the full model, of one loss."""
    held = records(rows)
    full = max(held, key=lambda r: (r["layer"], r["dim"]))
    pairs = [r for r in held if r["trained_pair"] and r is not full]
    inner = [r for r in held if 0 < r["layer"] < full["layer"] and r["dim"] == full["dim"]]
    pool = pairs or inner or held
    return min(pool, key=lambda r: (r["layer"], r["dim"])), full


@conclusion("training")
def training_verdict(data: RunData) -> Verdict | None:
    """The best loss at its shallowest place, every loss's gain and price; None for runs of other analyses."""
    rows = changes(data)
    if rows is None:
        return None
    table = _table(data, rows)
    partial = unfinished(data)
    if partial is not None:
        return replace(partial, table=table)
    told = {loss: ends(only(rows, loss=loss)) for loss in dict.fromkeys(names(rows, "loss"))}
    best = max(told, key=lambda loss: told[loss][0]["change"])
    shallow = told[best][0]
    gained = excludes_zero(shallow.get("low"), shallow.get("high")) and shallow["change"] > 0
    headline = (
        f"Training with {clean(best, 40)} raises {_place(shallow)} by {_size(shallow)}"
        if gained
        else f"No loss is shown to raise its shallowest place: {clean(best, 40)} changes {_place(shallow)} "
        f"by {_size(shallow)}"
    )
    words = [_sentence(loss, *pair) for loss, pair in told.items()]
    return Verdict("found", headline, (*words, *_translated(data), *_fusion(data)), table)


def _place(row: dict[str, Any]) -> str:
    return f"layer {row['layer']:.0f}, {row['dim']:.0f} dimensions"


def _size(row: dict[str, Any]) -> str:
    return f"{number(row['change'])} {interval(row.get('low'), row.get('high'))}".strip()


def _sentence(loss: str, shallow: dict[str, Any], full: dict[str, Any]) -> str:
    from_to = f"from {number(shallow['before'])} to {number(shallow['after'])}"
    price = f"the full model goes from {number(full['before'])} to {number(full['after'])} ({_size(full)})"
    if not excludes_zero(full.get("low"), full.get("high")):
        price += ", which may be chance"
    return f"{clean(loss, 40)}: {_place(shallow)} {from_to}; {price}."


def _translated(data: RunData) -> list[str]:
    """How trained layers compare with the same layers translated, which needs no training, at full width."""
    rows = changes(data, "translated")
    if rows is None:
        return []
    found: list[str] = []
    for loss in dict.fromkeys(names(rows, "loss")):
        held = records(only(rows, loss=loss))
        full = [r for r in held if r["dim"] == max(r["dim"] for r in held)]
        better = [r for r in full if r["low"] > 0]
        worse = [r for r in full if r["high"] < 0]
        found.append(
            f"Against the same layers translated, {clean(loss, 40)} is better at {len(better)} and worse at "
            f"{len(worse)} of {len(full)} layers (full width)."
        )
    return found


def _fusion(data: RunData) -> list[str]:
    frame = data.table("fusion")
    if frame is None or not {"kind", "over_full", "over_full_low"} <= set(frame.columns):
        return []
    told = [
        f"{clean(r['kind'], 20)} {number(r['over_full'])} {interval(r['over_full_low'], r['over_full_high'])}"
        for kind in ("scalar-mix", "importance")
        for r in records(only(frame, kind=kind))
    ]
    return [f"Reading all layers at once, over the last one: {'; '.join(told)}."] if told else []


def _table(data: RunData, rows: pd.DataFrame) -> Table:
    beside = changes(data, "translated")
    others = {} if beside is None else {
        (r["loss"], r["layer"], r["dim"]): r for r in records(beside)
    }  # fmt: skip
    held = records(rows)
    widest = max(r["dim"] for r in held)
    shown = [r for r in held if r["trained_pair"] or r["dim"] == widest]
    lines = tuple(
        (
            clean(r["loss"], 40), f"{r['layer']:.0f}", f"{r['dim']:.0f}", number(r["before"]),
            number(r["after"]), _size(r),
            _size(others[key]) if (key := (r["loss"], r["layer"], r["dim"])) in others else NOTHING,
        )
        for r in shown
    )  # fmt: skip
    note = "Measured on examples that were not trained on. Intervals: 95 %, paired resamples."
    return Table("Before and after training", _COLUMNS, lines, frozenset({1, 2, 3, 4, 5, 6}), note)
