"""The tables of retrieval-heads and circuits runs as figures, verdicts and pages ask for them.

Every table may be absent, half-written or damaged: what cannot be read is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import Schema, numbers_of, read_schema, records
from probes.report.data import RunData
from probes.report.frames import column, names, only, where

HEADS, CIRCUITS = "retrieval-heads", "circuits"  # the analyses
RETRIEVAL = "retrieval_score"
THRESHOLD = 0.1  # a head that scores more is called a retrieval head (Wu et al. 2024)
TYPES = ("induction_score", "previous_token_score", "duplicate_token_score")
SHAPES = ("attention_entropy", "sink_share", "attention_distance", "max_column_mass", "local_share")
HEAD_MEASURES = (RETRIEVAL, "query_mass", "copy_contribution", *TYPES, *SHAPES)

HeadId = tuple[int, int]  # block, head
_SPAN = ("low", "high", "n")

TABLES = {
    "running": Schema((), ("trial", "overlap")),
    "ablation": Schema(
        ("target", "measure"),
        ("k", "value"),
        (
            *_SPAN,
            *(f"{name}{end}" for name in ("difference", "over_random") for end in ("", "_low", "_high")),
        ),
        ("mode",),
    ),
    "ablation_grid": Schema(("measure",), ("tokens", "depth", "value"), _SPAN, ("variant",)),
    "single": Schema(
        ("measure",),
        ("block", "head", "score", "difference"),
        ("difference_low", "difference_high", *_SPAN),
    ),
    "attention_tokens": Schema(("token",), ("example", "position"), (), ("role",)),
    "attention_rows": Schema(
        (), ("example", "block", "head", "row", "position", "weight"), ("query_position",), ("emitted",)
    ),
    "composition": Schema(
        ("kind",),
        ("block_from", "head_from", "block_to", "head_to", "value"),
        ("component", "floor", "floor_low", "floor_high", "floor_max_high"),
    ),
    "head_spectra": Schema(("circuit",), ("block", "head", "rank", "singular_value")),
    "low_rank": Schema(("circuit", "heads", "measure"), ("rank", "value"), _SPAN),
    "tasks": Schema(
        ("task",),
        ("accuracy",),
        (*_SPAN, "skipped", "logit_difference_clean", "logit_difference_corrupted"),
        ("reason", "example_clean", "example_corrupted", "answer", "wrong"),
    ),
    "attribution": Schema(("task", "component"), ("value",), ("block", "head", *_SPAN)),
    "patching": Schema(
        ("task", "method", "level"), ("value",), ("layer", "block", "head", *_SPAN), ("positions",)
    ),
    "strongest": Schema(("task",), ("block", "head", "value"), ("fresh", *_SPAN)),
    "agreement": Schema(("task", "level"), ("pearson",), _SPAN),
    "faithfulness": Schema(("task", "ranking"), ("heads_kept", "value"), ("share", *_SPAN)),
    "lens": Schema(
        ("task",),
        ("layer", "logprob"),
        (
            "rank",
            "n",
            "logit_difference",
            "top1",
            *(f"{name}_{end}" for name in ("logprob", "logit_difference", "top1") for end in ("low", "high")),
        ),
    ),
    "saliency": Schema(("flow",), ("block", "value"), _SPAN, ("variant",)),
    "graph": Schema(
        (),
        ("layer", "context", "energy"),
        (
            *_SPAN,
            *(f"{name}{end}" for name in ("permuted", "difference") for end in ("", "_low", "_high")),
        ),
        ("variant",),
    ),
    "graph_nodes": Schema(("word",), ("layer", "node", "x", "y")),
    "graph_edges": Schema((), ("a", "b")),
    "neurons": Schema(("measure",), ("block", "value"), _SPAN, ("variant",)),
}  # fmt: skip


@dataclass(frozen=True)
class HeadFocus:
    """What a reader looks at: a head, a measure of heads, a task, and a token of the answer in an example."""

    head: HeadId | None = None
    measure: str | None = None
    task: str | None = None
    example: int | None = None
    row: int | None = None


def held(data: RunData, name: str) -> pd.DataFrame | None:
    """A table of the run with plain numpy columns; None if absent or damaged."""
    return data.once(("held", name), lambda: _read(data, name))


def _read(data: RunData, name: str) -> pd.DataFrame | None:
    frame = read_schema(data, name, TABLES[name])
    if name != "single" or frame is None:
        return frame
    # The interval is that of the difference, the only one there is: figures take it as low and high.
    ends = {end: column(frame, end) for end in ("low", "high")}
    ends = {
        e: np.where(np.isfinite(v), v, column(frame, f"difference_{e}")) for e, v in ends.items()
    }
    return frame.assign(**ends).drop(columns=["difference_low", "difference_high"])


def is_heads(data: RunData) -> bool:
    """Whether the run looked for retrieval heads."""
    return data.info.get("analysis") == HEADS


def is_circuits(data: RunData) -> bool:
    """Whether the run traced circuits."""
    return data.info.get("analysis") == CIRCUITS


def head_name(block: float, head: float) -> str:
    """A head as it is printed.

    >>> head_name(16, 3)
    '16.3'
    """
    return f"{block:.0f}.{head:.0f}"


def head_of(name: Any) -> HeadId | None:
    """The head that a name means, None for anything else.

    >>> head_of("16.3"), head_of("x.3"), head_of(None)
    ((16, 3), None, None)
    """
    block, dot, head = str(name).partition(".")
    plain = block.isascii() and head.isascii() and block.isdigit() and head.isdigit()
    return (int(block), int(head)) if dot and plain and len(block + head) < 9 else None


def head_measures(data: RunData) -> list[str]:
    """Measures that the run holds head by head, in the order of reading."""
    if not is_heads(data):
        return []
    return [name for name in HEAD_MEASURES if len(head_rows(data, name))]


def head_rows(data: RunData, measure: str, variant: str = "") -> pd.DataFrame:
    """A measure head by head: columns block, head (int), value, low, high, n; of the model itself or a control."""
    return data.once(("head rows", measure, variant), lambda: _head_rows(data, measure, variant))


def _head_rows(data: RunData, measure: str, variant: str) -> pd.DataFrame:
    rows = only(numbers_of(data, measure, "block"), variant=variant)
    rows = where(rows, np.isfinite(column(rows, "head"))).reset_index(drop=True)
    return rows.astype({"head": int}).drop_duplicates(["block", "head"], ignore_index=True)


def values_of(rows: pd.DataFrame) -> dict[HeadId, dict[str, Any]]:
    """Rows of a table of heads by head."""
    return {(int(row["block"]), int(row["head"])): row for row in records(rows)}


def ranking(data: RunData, measure: str = RETRIEVAL) -> list[dict[str, Any]]:
    """Rows of a measure, the highest first; heads of one value in the order of the model."""
    return data.once(
        ("ranking", measure),
        lambda: records(
            head_rows(data, measure).sort_values(
                ["value", "block", "head"], ascending=[False, True, True], kind="stable"
            )
        ),
    )


def heads_of(data: RunData) -> list[HeadId]:
    """All heads that any table of heads names, the best retrieval heads first."""
    return data.once("heads of", lambda: _heads_of(data))


def _heads_of(data: RunData) -> list[HeadId]:
    found: dict[HeadId, None] = {}
    for row in ranking(data):
        found[int(row["block"]), int(row["head"])] = None
    for measure in head_measures(data):
        found |= dict.fromkeys(values_of(head_rows(data, measure)))
    if is_circuits(data):
        for name in ("attribution", "patching"):
            frame = held(data, name)
            rows = None if frame is None else where(frame, np.isfinite(column(frame, "head")))
            if rows is not None and len(rows):
                pairs = zip(column(rows, "block"), column(rows, "head"), strict=True)
                found |= dict.fromkeys(sorted({(int(b), int(h)) for b, h in pairs if b == b}))
    return list(found)


def run_number(data: RunData, measure: str, first: str = "") -> dict[str, Any] | None:
    """A number of the whole run (value, low, high, n), of the variant `first` where it has several; None if absent."""
    rows = records(numbers_of(data, measure, ""))
    return min(rows, key=lambda row: row["variant"] != first, default=None)


def tasks_of(data: RunData) -> list[str]:
    """Tasks of a run of circuits in its order."""
    return data.once("tasks of", lambda: _tasks_of(data))


def _tasks_of(data: RunData) -> list[str]:
    found: dict[str, None] = {}
    for name in ("tasks", "attribution", "patching", "faithfulness", "lens"):
        frame = held(data, name) if is_circuits(data) else None
        if frame is not None:
            found |= dict.fromkeys(names(frame, "task"))
    return list(found)


def of_task(data: RunData, name: str, focus: HeadFocus) -> tuple[pd.DataFrame, str] | None:
    """The rows of the task in focus (of the first by default) and its name; None where the table has none."""
    frame = held(data, name) if is_circuits(data) else None
    if frame is None:
        return None
    present = set(names(frame, "task"))
    there = [task for task in tasks_of(data) if task in present]
    task = focus.task if focus.task in there else there[0]
    return only(frame, task=task), str(task)


def missing(data: RunData) -> dict[str, list[tuple[str, str]]]:
    """Parts that do not apply: for each the tasks (empty text for all) with their reasons."""
    frame = data.once(
        ("held", "applies with task"),
        lambda: read_schema(data, "applies", Schema(("part",), (), (), ("reason", "task"))),
    )
    if frame is None or "applies" not in frame.columns:
        return {}
    found: dict[str, list[tuple[str, str]]] = {}
    for row in records(frame):
        if row["applies"] is not None and row["applies"] is not pd.NA and not row["applies"]:
            found.setdefault(row["part"], []).append((row["task"], row["reason"]))
    return found
