"""What a study of collapse found, in plain words and one table: whether, from which length and layer, what helped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import (
    CONTROL,
    excludes_zero,
    held,
    is_collapse,
    of_dataset,
    reasons,
    records,
)
from probes.report.collapse_table import gain, layer_table, lengths, onsets, remedies_of, slopes
from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.figures.collapse_remedies import remedy_words
from probes.report.figures.collapse_temperature import chosen, measure_title
from probes.report.frames import column, only
from probes.report.text import clean, count, interval, is_number, number, sentence
from probes.report.verdict import Verdict, conclusion, unfinished

NOT_MEASURED = "Whether embeddings collapse with length was not measured"
_NEAR = 0.1  # bits per token that a smaller head may cost and still be as good


@conclusion("collapse")
def collapse_verdict(data: RunData) -> Verdict | None:
    """The headline, what stands out, and the table of layers; None for a run of another analysis."""
    if not is_collapse(data):
        return None
    table = layer_table(data)
    partial = unfinished(data)
    if partial is not None:
        return replace(partial, table=table)
    told = (_layers, _onset, _control, _temperature, _remedies, _chunking, _index, _head, _mask)
    found = [words for tell in told if (words := tell(data))]
    return Verdict("found", headline(data), (*found, *_absent(data)), table)


def headline(data: RunData) -> str:
    """Whether mean cosine grows with length at the last layer, as its 95 % interval says."""
    rows = slopes(data)
    if not rows:
        return NOT_MEASURED
    last = rows[-1]
    if excludes_zero(last["low"], last["high"]):
        size = f"{number(abs(last['value']))} {interval(last['low'], last['high'])}"
        if last["value"] > 0:
            return f"Embeddings collapse with length: the mean cosine rises by {size} per doubling"
        size = f"{number(abs(last['value']))} {interval(-last['high'], -last['low'])}"
        return f"Embeddings spread with length: the mean cosine falls by {size} per doubling"
    if any(_rises(row) for row in rows):
        return "Layers inside the model collapse with length, its last layer is not shown to"
    return "No collapse with length is shown at any layer"


def at_layer(data: RunData, layer: float) -> str:
    """A layer in a sentence: “the last layer” where it is that, else its number."""
    return "the last layer" if int(layer) == data.n_layers else f"layer {int(layer)}"


def _rises(row: dict[str, Any]) -> bool:
    return excludes_zero(row["low"], row["high"]) and row["value"] > 0


def _layers(data: RunData) -> str:
    rows = slopes(data)
    rising = [row for row in rows if _rises(row)]
    if not rows:
        return ""
    if not rising:
        return f"At none of {len(rows)} layers does the interval of the rise lie above zero."
    most = max(rising, key=lambda row: row["value"])
    return (
        f"It is seen at {len(rising)} of {len(rows)} layers ({_runs([row['layer'] for row in rising])}), most at layer "
        f"{most['layer']}: {gain(most['value'], most['low'], most['high'])} per doubling."
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
    found, rows, ends = onsets(data), slopes(data), lengths(data)
    if not found or not rows:
        return ""
    last = rows[-1]["layer"]
    first = min(found, key=lambda layer: (found[layer], layer != last, layer))
    beside = "" if ends is None else f" than at {count(ends[0])} tokens"
    place = at_layer(data, first)
    words = f"From {count(found[first])} tokens on the mean cosine is shown to be higher{beside} at {place}"
    if last == first or last not in found:
        return f"{words}."
    return f"{words}, from {count(found[last])} on at {at_layer(data, last)}."


def _control(data: RunData) -> str:
    rows, control = slopes(data), slopes(data, CONTROL)
    if not rows or not control:
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


def _temperature(data: RunData) -> str:
    frame = held(data, "temperature")
    if frame is None:
        return ""
    best = chosen(of_dataset(frame, None))
    if best.empty:
        return ""
    row = records(best)[-1]
    if row["tau"] == 1:
        return f"At {at_layer(data, row['layer'])} the calibrate part chose τ = 1: no other temperature is better."
    size = gain(row["difference"], row["difference_low"], row["difference_high"])
    sure = excludes_zero(row["difference_low"], row["difference_high"])
    doubt = "" if sure else ", which may be chance"
    return (
        f"Attention temperature τ = {number(row['tau'], 2)}, chosen on the calibrate part, changes "
        f"{measure_title(data, best)} at {at_layer(data, row['layer'])} by {size} on the test part{doubt}."
    )


def _remedies(data: RunData) -> str:
    rows = remedies_of(data)
    frame = held(data, "remedies")
    if not rows or frame is None:
        return ""
    sure = [r for r in rows if excludes_zero(r["difference_low"], r["difference_high"])]
    helps = [row for row in sure if row["difference"] > 0]
    harms = [remedy_words(row["remedy"]) for row in sure if row["difference"] < 0]
    best = (helps or rows)[0]
    size = gain(best["difference"], best["difference_low"], best["difference_high"])
    name, quality = remedy_words(best["remedy"]), measure_title(data, frame)
    place = at_layer(data, best["layer"])
    does = "do" if len(harms) > 1 else "does"
    harm = f" {sentence(f'{listed(harms)} {does} harm')}" if harms else ""
    if not helps:
        return f"None of {len(rows)} remedies is shown to help at {place}; the best, {name}: {size} {quality}.{harm}"
    return (
        f"Of {len(rows)} remedies {len(helps)} help{'s' if len(helps) == 1 else ''} at {place}, most {name}: "
        f"{size} {quality} (the best of several looks better than it is).{harm}"
    )


def _chunking(data: RunData) -> str:
    frame = held(data, "chunking")
    late = None if frame is None else only(frame, method="late").sort_values("layer")
    if frame is None or late is None or late.empty or not is_number(late["difference"].iloc[-1]):
        return ""
    row = records(late)[-1]
    low, high = row["difference_low"], row["difference_high"]
    size = f"{gain(row['difference'], low, high)} {measure_title(data, frame)}"
    if not excludes_zero(low, high):
        return f"Late chunking is not shown to differ from chunking first at {at_layer(data, row['layer'])}: {size}."
    word = "better" if row["difference"] > 0 else "worse"
    return f"Late chunking is {word} than chunking first at {at_layer(data, row['layer'])}: {size}."


def _index(data: RunData) -> str:
    frame = held(data, "index_size")
    if frame is None:
        return ""
    rows = of_dataset(frame, None)
    rows = only(rows, layer=int(column(rows, "layer").max()), k=int(column(rows, "k").max()))
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


def _head(data: RunData) -> str:
    frame = held(data, "bottleneck")
    if frame is None or len(frame) < 2:
        return ""
    rows = frame.sort_values("rank")
    rank, loss = column(rows, "rank"), column(rows, "loss_bits")
    enough = int(np.flatnonzero(loss <= loss[-1] + _NEAR)[0])
    if enough == len(rows) - 1:
        more = f"at rank {count(rank[-2])} it loses {number(loss[-2] - loss[-1], 2)} bits per token"
        return f"The head needs more than {count(rank[-2])} of its {count(rank[-1])} directions: {more}."
    cost = number(max(0.0, loss[enough] - loss[-1]), 2)
    return f"The head does with {count(rank[enough])} of {count(rank[-1])} directions, for {cost} bits per token more."


def _mask(data: RunData) -> str:
    frame = held(data, "mask")
    known = None if frame is None else frame[np.isfinite(column(frame, "ratio"))]
    if known is None or known.empty:
        return ""
    row = min(records(pd.DataFrame(known)), key=lambda r: r["ratio"])
    span = interval(row["ratio_low"], row["ratio_high"], 2)
    words = f"effective rank is {number(row['ratio'], 2)} {span} times that without, at {at_layer(data, row['layer'])}"
    if is_number(row["ratio_high"]) and row["ratio_high"] < 1:
        return f"With [MASK] in the input real tokens have less room: their {words}."
    return f"[MASK] in the input is not shown to take room from real tokens: their {words}."


def _absent(data: RunData) -> list[str]:
    """Parts that do not apply, one sentence per reason."""
    by_reason: dict[str, list[str]] = {}
    for part, why in reasons(data).items():
        by_reason.setdefault(clean(why, 240), []).append(clean(part, 40))
    return [
        sentence(f"not measured: {listed(parts)}" + (f" ({why})" if why else ""))
        for why, parts in by_reason.items()
    ]
