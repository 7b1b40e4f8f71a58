"""Whether a model needs its best heads, in words: ablated, against as many random ones, and on plain text."""

from __future__ import annotations

from typing import Any

from probes.report.collapse_study import excludes_zero, ordered, records
from probes.report.collapse_table import gain
from probes.report.data import RunData
from probes.report.figures.head_ablation import MEASURES, measure_words
from probes.report.frames import only
from probes.report.head_tables import held
from probes.report.text import count, is_number

Row = dict[str, Any]
_K = 10  # ablated heads that words speak of, where the run has that many


def ablations(data: RunData, mode: str | None = None) -> list[Row]:
    """Rows of the best heads against random ones at the k that words speak of: one per mode and measure."""
    frame = held(data, "ablation")
    if frame is None:
        return []
    rows = [row for row in records(only(frame, target="top")) if is_number(row["over_random"])]
    ks = sorted({row["k"] for row in rows})
    if not ks:
        return []
    at = max((k for k in ks if k <= _K), default=ks[0])
    return [row for row in rows if row["k"] == at and mode in (None, row["mode"])]


def strongest(data: RunData) -> Row | None:
    """The row that answers whether the heads are needed: needle accuracy, else log-probability; zero, else mean."""
    rows = [row for row in ablations(data) if row["measure"] != "control_logprob"]
    measures = ordered([row["measure"] for row in rows], list(MEASURES))
    modes = ordered([row["mode"] for row in rows], ["zero", "mean"])
    return min(
        rows,
        key=lambda row: (measures.index(row["measure"]), modes.index(row["mode"])),
        default=None,
    )


def hurts(row: Row) -> bool:
    """Whether the best heads are shown to cost more than random ones."""
    return excludes_zero(row["over_random_low"], row["over_random_high"]) and row["over_random"] < 0


def over_random(row: Row) -> str:
    return gain(row["over_random"], row["over_random_low"], row["over_random_high"])


def needed(data: RunData) -> str:
    """The other measures and modes beside the one in the headline."""
    first = strongest(data)
    if first is None:
        return ""
    told_of = {(first["measure"], first["mode"])}
    rest = [
        row
        for row in ablations(data)
        if row["measure"] != "control_logprob" and (row["measure"], row["mode"]) not in told_of
    ]
    if not rest:
        return ""
    told = [
        f"{measure_words(row['measure'])} ({'set to zero' if row['mode'] == 'zero' else 'set to their mean'}) "
        f"{gain(row['over_random'], row['over_random_low'], row['over_random_high'])}" + _doubt(row)
        for row in rest
    ]
    return f"Best {count(first['k'])} heads against random ones, also: {'; '.join(told)}."


def _doubt(row: Row) -> str:
    if not is_number(row["over_random_low"]):
        return " (without an interval)"
    return "" if hurts(row) else ", which may be chance"


def spared(data: RunData) -> str:
    """Whether a task that needs no retrieval stays as it was."""
    rows = [row for row in ablations(data) if row["measure"] == "control_logprob"]
    if not rows:
        return ""
    row = min(rows, key=lambda held_: held_["mode"] != "zero")
    lost = gain(row["difference"], row["difference_low"], row["difference_high"])
    without = f"in log-probability without the best {count(row['k'])}"
    what = f"Other text, which needs no retrieval, changes by {lost} {without}"
    if not (excludes_zero(row["difference_low"], row["difference_high"]) and row["difference"] < 0):
        return f"{what}: it is not shown to be hurt."
    over = gain(row["over_random"], row["over_random_low"], row["over_random_high"])
    if hurts(row):
        return (
            f"{what}, more than without random heads ({over}): these heads do more than retrieve."
        )
    return f"{what}; that is not shown to be more than without random heads ({over})."
