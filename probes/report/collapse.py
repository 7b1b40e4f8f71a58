"""What a study of collapse found, in plain words and one table: whether, from which length and layer, what helped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from probes.report.collapse_helps import chunking_words, remedy_effects, temperature_effects
from probes.report.collapse_room import break_words, head_words, index_words, mask_words
from probes.report.collapse_study import CONTROL, excludes_zero, is_collapse
from probes.report.collapse_table import (
    MODES,
    at_layer,
    gain,
    layer_table,
    lengths,
    mode,
    onsets,
    rise_at,
    slopes,
)
from probes.report.data import RunData
from probes.report.text import count, interval, number
from probes.report.verdict import Verdict, conclusion, not_measured, unfinished

NOT_MEASURED = "Whether embeddings collapse with length was not measured"


@conclusion("collapse")
def collapse_verdict(data: RunData) -> Verdict | None:
    """The headline, what stands out, and the table of layers; None for a run of another analysis."""
    if not is_collapse(data):
        return None
    table = layer_table(data)
    partial = unfinished(data)
    if partial is not None:
        return replace(partial, table=table)
    found = [words for tell in _TOLD if (words := tell(data))]
    return Verdict("found", headline(data), (*found, *not_measured(data)), table)


def headline(data: RunData) -> str:
    """Whether mean cosine grows with length at the last layer read, as its 95 % interval says, and on which texts."""
    rows = slopes(data)
    if not rows:
        return NOT_MEASURED
    last = rows[-1]
    texts = MODES.get(mode(data), "")
    rest = f"per doubling at {at_layer(data, last['layer'])}" + (f" ({texts})" if texts else "")
    low, value, high = last["low"], last["value"], last["high"]
    if not excludes_zero(low, high):
        size = f"the mean cosine changes by {gain(value, low, high)} {rest}"
        if not any(_rises(row) for row in rows):
            what = (
                "at the layer read" if len(rows) == 1 else f"at any of the {len(rows)} layers read"
            )
            return f"No collapse with length is shown {what}: {size}"
        return f"Layers inside the model collapse with length, the last one read is not shown to: {size}"
    if value > 0:
        size = f"{number(value)} {interval(low, high)}"
        return f"Embeddings collapse with length: the mean cosine rises by {size} {rest}"
    size = f"{number(-value)} {interval(-high, -low)}"
    return f"Embeddings spread with length: the mean cosine falls by {size} {rest}"


def _rises(row: dict[str, Any]) -> bool:
    return excludes_zero(row["low"], row["high"]) and row["value"] > 0


def _layers(data: RunData) -> str:
    rows = slopes(data)
    rising = [row for row in rows if _rises(row)]
    if not rows:
        return ""
    if not rising:
        return f"At none of {len(rows)} layers read does the interval of the rise lie above zero."
    most = max(rising, key=lambda row: row["value"])
    return (
        f"A rise is shown at {len(rising)} of {len(rows)} layers read ({_runs([row['layer'] for row in rising])}), "
        f"most at layer {most['layer']}: {gain(most['value'], most['low'], most['high'])} per doubling."
    )


def _runs(layers: list[int]) -> str:
    """Whole numbers in short.

    >>> _runs([1, 3, 4, 5])
    '1, 3 to 5'
    """
    parts: list[list[int]] = []
    for layer in sorted(layers):
        if parts and parts[-1][-1] == layer - 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]} to {p[-1]}" for p in parts)


def _onset(data: RunData) -> str:
    """From which length on the last layer collapses, then the layer where that begins earliest."""
    found, rows, ends = onsets(data), slopes(data), lengths(data)
    if not rows or mode(data) != "cut":
        return ""
    last, total = rows[-1]["layer"], len(rows)
    beside = "the shortest cut" if ends is None else f"{count(ends[0])} tokens"
    place = at_layer(data, last)
    if last in found:
        start = f"From {count(found[last])} tokens on the mean cosine at {place} is shown to be higher than at {beside}"
        words = f"{start}{_there(data, last, found[last])}"
    else:
        words = f"At {place} no length is shown from which on the mean cosine stays above that at {beside}"
    if not found or total == 1:
        return f"{words}."
    first = min(found, key=lambda layer: (found[layer], layer != last, layer))
    if first == last:
        return f"{words}; no other of {total} layers begins earlier."
    size = _there(data, first, found[first])
    return (
        f"{words}; earliest of {total} layers, layer {first}: from {count(found[first])} on{size}."
    )


def _there(data: RunData, layer: int, tokens: float) -> str:
    """The difference to the shortest cut at that length, where it is known."""
    rise = rise_at(data, layer, tokens)
    return f" ({rise} there)" if rise else ""


def _control(data: RunData) -> str:
    rows, control = slopes(data), slopes(data, CONTROL)
    if not rows or not control or mode(data) != "cut":  # cut as the documents are
        return ""
    there, here = control[-1], rows[-1]
    words = f"Random words give {gain(there['value'], there['low'], there['high'])} at {at_layer(data, there['layer'])}"
    if not excludes_zero(there["low"], there["high"]):
        return f"{words}: length alone is not shown to do it."
    if _rises(here) and there["value"] >= here["value"]:
        return f"{words}, no less than real texts do: length alone is enough."
    if _rises(here) and there["value"] > 0:
        return f"{words}, {number(100 * there['value'] / here['value'], 0)} % of the rise with real texts."
    return f"{words}."


_TOLD = (
    _layers, _onset, _control, temperature_effects, remedy_effects, chunking_words, index_words, break_words,
    head_words, mask_words,
)  # fmt: skip
