"""What a larger index, a smaller head and [MASK] do, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import held, of_dataset, records
from probes.report.collapse_table import at_layer, gain
from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.frames import column, only
from probes.report.text import count, interval, is_number, number

_NEAR = 0.1  # bits per token that a smaller head may cost and still be as good


def index_words(data: RunData) -> str:
    """How recall falls with the index at the last layer read."""
    frame = held(data, "index_size")
    if frame is None:
        return ""
    rows = _at_the_end(frame)
    dims = sorted({int(d) for d in column(rows, "dim")})
    falls = [records(only(rows, dim=dim).sort_values("distractors")) for dim in (dims[-1], dims[0])]
    (first, *_), last = falls[0], falls[0][-1]
    words = (
        f"Recall at {first['k']:.0f} at {at_layer(data, first['layer'])} goes from {number(first['recall'])} among "
        f"{count(first['distractors'])} documents to {number(last['recall'])} {interval(last['low'], last['high'])} "
        f"among {count(last['distractors'])}"
    )
    if len(dims) == 1:
        return f"{words}."
    return f"{words}; with {dims[0]} of {dims[-1]} dimensions to {number(falls[1][-1]['recall'])}."


def _at_the_end(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first dataset at the last layer and for the most results."""
    rows = of_dataset(frame, None)
    return only(rows, layer=int(column(rows, "layer").max()), k=int(column(rows, "k").max()))


def break_words(data: RunData) -> str:
    """From how many documents on a smaller width is shown to lose to the full one."""
    frame = held(data, "index_breaks")
    if frame is None:
        return ""
    rows = records(_at_the_end(frame).sort_values("dim"))
    broken = [row for row in rows if is_number(row["distractors"])]
    whole = [count(row["dim"]) for row in rows if not is_number(row["distractors"])]
    place = f"recall at {rows[0]['k']:.0f} at {at_layer(data, rows[0]['layer'])}"
    sound = (
        f"{listed(whole)} dimensions {'is' if len(whole) == 1 else 'are'} not shown to, at any size"
    )
    if not broken:
        return f"No smaller width is shown to lose more than a hundredth of {place}, at any size of the index."
    told = [
        f"{count(row['dim'])} dimensions from {count(row['distractors'])} documents on "
        f"({gain(row['difference'], row['low'], row['high'])})"
        for row in broken
    ]
    more = f"; {sound}" if whole else ""
    return f"Against the full width {place} is shown to be lower by more than a hundredth with {listed(told)}{more}."


def head_words(data: RunData) -> str:
    """The smallest rank of the head whose loss is shown to be near that of the whole head."""
    frame = held(data, "bottleneck")
    if frame is None or len(frame) < 2:
        return ""
    rows = records(frame.sort_values("rank"))
    full, below = rows[-1], rows[-2]
    enough = next((row for row in rows[:-1] if row["difference_high"] < _NEAR), None)
    if enough is not None:
        return (
            f"The head does with {count(enough['rank'])} of {count(full['rank'])} directions, for "
            f"{_cost(enough, full)} bits per token more: the smallest rank tried that is shown to cost less than "
            f"{number(_NEAR, 1)}."
        )
    return (
        f"No smaller rank of the head is shown to cost less than {number(_NEAR, 1)} bits per token: "
        f"{count(below['rank'])} of {count(full['rank'])} directions cost {_cost(below, full)}."
    )


def _cost(row: dict[str, Any], full: dict[str, Any]) -> str:
    known = is_number(row["difference"])
    value = row["difference"] if known else row["loss_bits"] - full["loss_bits"]
    return (
        f"{number(value, 2)} {interval(row['difference_low'], row['difference_high'], 2)}".strip()
    )


def mask_words(data: RunData) -> str:
    """What [MASK] takes from real tokens at the last layer read."""
    frame = held(data, "mask")
    known = None if frame is None else frame[np.isfinite(column(frame, "ratio"))]
    if known is None or known.empty:
        return ""
    row = records(pd.DataFrame(known).sort_values("layer"))[-1]
    span = interval(row["ratio_low"], row["ratio_high"], 2)
    words = f"effective rank is {number(row['ratio'], 2)} {span} times that without, at {at_layer(data, row['layer'])}"
    if is_number(row["ratio_high"]) and row["ratio_high"] < 1:
        return f"With [MASK] in the input real tokens have less room: their {words}."
    return f"[MASK] in the input is not shown to take room from real tokens: their {words}."
