"""What a circuits run says of label words and of neurons, a sentence each."""

from __future__ import annotations

from typing import Any

from probes.report.collapse_study import records
from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.frames import names, only
from probes.report.head_tables import held, is_circuits
from probes.report.text import clean, interval, is_number, number

Row = dict[str, Any]
_FLOWS = {"wp": "from the texts into label words", "pq": "from label words to the answer"}
_NEURONS = {
    "core_stability": "half a text has the core neurons of the whole (overlap {}; of another text {})",
    "core_similarity": "their overlap goes with the similarity of two texts (rank correlation {}; dealt out anew {})",
}


def label_words(data: RunData) -> str:
    """Where information flows into label words and on to the answer, beside random labels; empty if not measured."""
    frame = held(data, "saliency") if is_circuits(data) else None
    if frame is None:
        return ""
    told: list[str] = []
    for dataset in dict.fromkeys(names(frame, "dataset")):
        rows = only(frame, dataset=dataset)
        parts = [words for flow in _FLOWS if (words := _peak(records(only(rows, flow=flow)), flow))]
        if parts:
            told.append(f"({clean(dataset, 40)}) is strongest {listed(parts)}")
    return f"Information flow {'; '.join(told)}." if told else ""


def _peak(rows: list[Row], flow: str) -> str:
    own = [row for row in rows if not row["variant"]]
    if not own:
        return ""
    best = max(own, key=lambda row: row["value"])
    beside = [row for row in rows if row["variant"] and row["block"] == best["block"]]
    control = f", with random labels {_sized(beside[0])}" if beside else ""
    return f"{_FLOWS[flow]} at block {best['block']:.0f} ({_sized(best)}{control})"


def neuron_words(data: RunData) -> str:
    """Whether core neurons are stable and follow meaning, over blocks; empty if not measured."""
    frame = held(data, "neurons") if is_circuits(data) else None
    if frame is None:
        return ""
    told: list[str] = []
    for measure, words in _NEURONS.items():
        rows = only(frame, measure=measure)
        own = {row["block"]: row for row in records(only(rows, variant=""))}
        by = {row["block"]: row for row in records(only(rows, variant="random"))}
        pairs = [(row, by[block]) for block, row in own.items() if block in by]
        if not pairs:
            continue
        above = sum(
            is_number(row["low"]) and is_number(other["high"]) and row["low"] > other["high"]
            for row, other in pairs
        )
        values = [_span([pair[side] for pair in pairs]) for side in (0, 1)]
        told.append(
            f"{words.format(*values)}, with the whole interval above it in {above} of {len(pairs)} blocks"
        )
    quiet = records(only(frame, measure="activation_sparsity", variant=""))
    if quiet:
        told.insert(0, f"{_span(quiet)} of them are all but silent")
    return f"Neurons of the MLPs by block: {'; '.join(told)}." if told else ""


def _span(rows: list[Row]) -> str:
    values = [row["value"] for row in rows]
    low, high = number(min(values), 2), number(max(values), 2)
    return low if low == high else f"{low} to {high}"


def _sized(row: Row) -> str:
    return f"{number(row['value'])} {interval(row['low'], row['high'])}".strip()
