"""The order in which candidates were tested, and what came out of each test."""

from __future__ import annotations

from typing import Any, cast

import pandas as pd

from probes.report.data import RunData, whole
from probes.report.tables import Table
from probes.report.text import NOTHING, clean, is_number, number, percent

_SHOWN = 40


def chain_table(data: RunData) -> Table | None:
    """The steps of every chain from `tables/chains.parquet`, None when there is none."""
    frame = data.table("chains")
    needed = {"chain", "order", "layer", "dim", "tune_quality", "calibrate_share", "p"}
    if frame is None or frame.empty or not needed <= set(frame.columns):
        return None
    every = cast("list[dict[str, Any]]", frame.to_dict("records"))
    tested = [step for step in every if step.get("tested", True)]
    steps = tested[:_SHOWN]
    note = (
        "Each chain is walked from the full model towards cheaper candidates and stops at its first failure. "
        "The share is of the full quality, on the calibrate part."
    )
    if len(frame) > len(steps):
        note += (
            f" Showing {len(steps)} of {len(frame)} steps: those behind a failure are not tested."
        )
    columns = (
        "chain",
        "step",
        "layer",
        "dims",
        "tune quality",
        "share",
        "lower bound",
        "p",
        "result",
    )
    rows = tuple(_step(step) for step in steps)
    return Table("Order of the test", columns, rows, frozenset(range(1, 8)), note)


def _step(step: dict[str, Any]) -> tuple[str, ...]:
    p = step.get("p")
    small = is_number(p) and 0 < float(str(p)) < 0.001
    return (
        clean(step["chain"], 40),
        str(whole(step["order"])),
        str(whole(step["layer"])),
        str(whole(step["dim"])),
        number(step["tune_quality"]),
        percent(step["calibrate_share"]),
        percent(step.get("bound")),
        "< 0.001" if small else number(p),
        _result(step),
    )


def _result(step: dict[str, Any]) -> str:
    if whole(step["order"]) == 0:
        return "full model"
    if "passed" not in step or pd.isna(step["passed"]):
        return NOTHING
    if step["passed"]:
        return "passed"
    return "failed"
