"""What a study of circuits found, in plain words and one table: is the task done, by which heads, by how few."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probes.report.circuits_flow import label_words, neuron_words
from probes.report.circuits_found import (
    KEPT,
    curve_of,
    done,
    fewest,
    first_guess_from,
    strongest,
    taken_back,
    task_rows,
    tasks_done,
)
from probes.report.circuits_table import task_names, task_table
from probes.report.collapse_study import excludes_zero, records
from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.figures.circuit_flow import taught_energy
from probes.report.figures.circuit_patching import LEVELS
from probes.report.figures.circuit_tasks import task_words
from probes.report.frames import only
from probes.report.head_tables import head_name, held, is_circuits, missing, tasks_of
from probes.report.text import clean, count, interval, is_number, number, percent, sentence
from probes.report.verdict import Verdict, conclusion, unfinished

__all__ = ["circuits_verdict", "headline", "task_names"]
Row = dict[str, Any]
NOT_MEASURED = "No task was measured"
TRUSTED = 0.8  # correlation from whose lower end on attribution patching stands in for activation patching
_NAMED = 3


@conclusion("circuits")
def circuits_verdict(data: RunData) -> Verdict | None:
    """The headline, what stands out, and the table of tasks; None for a run of another analysis."""
    if not is_circuits(data):
        return None
    table = task_table(data)
    partial = unfinished(data)
    if partial is not None:
        return replace(partial, table=table)
    told = [words for tell in _TOLD if (words := tell(data))]
    return Verdict("found", headline(data), (*told, *_absent(data)), table)


def headline(data: RunData) -> str:
    """Which of the tasks the model does, and by how few heads the clearest of them is kept."""
    rows = [task_rows(data)[task] for task in tasks_of(data) if task in task_rows(data)]
    if not rows:
        return NOT_MEASURED
    does = [row for row in rows if done(row)]
    if not does:
        which = "the task" if len(rows) == 1 else f"any of the {len(rows)} tasks"
        return f"The model is not shown to do {which}: what carries {'it' if len(rows) == 1 else 'them'} means little"
    named = listed([task_words(row["task"]) for row in does[:_NAMED]]) + (
        f" and {len(does) - _NAMED} more" if len(does) > _NAMED else ""
    )
    start = f"The model does {len(does)} of {len(rows)} tasks ({named})"
    best = [(few, row) for row in does if (few := fewest(data, row["task"])) is not None]
    if not best:
        return start
    few, row = min(best, key=lambda pair: pair[0]["heads_kept"])
    heads = f"{count(few['heads_kept'])} of {count(few['all'])} heads"
    return f"{start}; {heads}, with all MLPs, keep {percent(KEPT, 0)} of {task_words(row['task'])}"


def _undone(data: RunData) -> str:
    rows = [row for row in task_rows(data).values() if not done(row)]
    if not rows or len(rows) == len(task_rows(data)):
        return ""
    told = [
        f"{task_words(row['task'])} ({percent(row['accuracy'], 0)} {interval(row['low'], row['high'], 2)})"
        for row in reversed(rows)
    ]
    return f"Not shown to be done: {listed(told)}; which heads carry that means little."


def _heads(data: RunData) -> str:
    told: list[str] = []
    seen: list[Row] = []
    for task in tasks_done(data):
        heads = strongest(data, task)[:_NAMED]
        seen += heads
        if heads:
            named = [
                f"{head_name(row['block'], row['head'])} ({number(row['value'], 2)} "
                f"{interval(row['low'], row['high'], 2)})"
                for row in heads
            ]
            told.append(f"{task_words(task)} by {listed(named)}")
    if not told:
        return ""
    frame = held(data, "patching")
    patched = frame is not None and not only(frame, level="head", method="activation").empty
    how = (
        "share of the answer that patching it alone brings back"
        if patched
        else "logits written towards the answer"
    )
    fresh = all(row.get("fresh") == 1 for row in seen)
    where_ = (
        "on other pairs than those that picked the heads"
        if fresh
        else "on the pairs that picked the heads, which flatters them"
    )
    return f"Heads that carry most ({how}, {where_}; bounds for all heads together): {'; '.join(told)}."


def _few(data: RunData) -> str:
    told: list[str] = []
    for task in tasks_done(data):
        few, control = fewest(data, task), fewest(data, task, "random")
        if few is None:
            if held(data, "faithfulness") is not None:
                told.append(
                    f"{task_words(task)} is not kept by any number of heads tried short of all{_passing(data, task)}"
                )
            continue
        beside = (
            "no number of random ones tried does"
            if control is None
            else f"{count(control['heads_kept'])} random ones do"
        )
        told.append(
            f"{task_words(task)} is kept by {count(few['heads_kept'])} of {count(few['all'])} heads, {beside}"
        )
    kept = f"Kept at {percent(KEPT, 0)} or more (lower end of the interval, at all larger numbers too; MLPs intact): "
    return f"{kept}{'; '.join(told)}." if told else ""


def _passing(data: RunData, task: str) -> str:
    """What is said of a curve that rises above the whole with few heads and falls again: some work against it."""
    sure = [row for row in curve_of(data, task) if is_number(row["low"]) and row["low"] >= 1]
    if not sure:
        return ""
    best = max(sure, key=lambda row: row["value"])
    size = (
        f"{percent(best['value'], 0)} {interval(100 * best['low'], 100 * best['high'], 0)}".strip()
    )
    heads = f"{count(best['heads_kept'])} {'head' if best['heads_kept'] == 1 else 'heads'}"
    return f" (with the best {heads} it is even {size} of the whole and falls with more: some work against the answer)"


def _trusted(data: RunData) -> str:
    """Whether attribution patching may be used in place of activation patching."""
    frame = held(data, "agreement")
    if frame is None:
        return ""
    rows = [row for row in records(frame) if row["task"] in tasks_done(data)]
    if not rows:
        return ""
    ends = [row["low"] if is_number(row["low"]) else row["pearson"] for row in rows]
    low, high = min(row["pearson"] for row in rows), max(row["pearson"] for row in rows)
    span = f"{number(low, 2)} to {number(high, 2)}"
    if min(ends) >= TRUSTED:
        return f"Attribution patching may be trusted here: it goes with activation patching by {span} (correlation)."
    worst = rows[int(np.argmin(ends))]
    least = f"{number(worst['pearson'], 2)} {interval(worst['low'], worst['high'], 2)}".strip()
    at = f"{task_words(worst['task'])}, {clean(LEVELS.get(worst['level'], worst['level']), 20)}: {least}"
    if max(ends) < TRUSTED:
        return f"Attribution patching is not shown to be trustworthy here: correlation with activation patching {span}."
    return f"Attribution patching may be trusted in part: correlation {span}, lowest for {at}."


def _lens(data: RunData) -> str:
    frame = held(data, "lens")
    if frame is None:
        return ""
    told: list[str] = []
    for task in tasks_done(data):
        rows = records(only(frame, task=task))
        first = first_guess_from(data, task)
        if first is not None:
            told.append(
                f"{task_words(task)} from layer {first} on the first guess in half of the texts or more"
            )
        elif rows:
            best = max(rows, key=lambda row: row["logprob"])
            told.append(f"{task_words(task)} most likely at layer {best['layer']:.0f}")
    return f"Where the answer appears (logit lens): {'; '.join(told)}." if told else ""


def _suppressed(data: RunData) -> str:
    rows = [row for task, row in taken_back(data).items() if task in tasks_done(data)]
    if not rows:
        return ""
    sure = [row for row in rows if excludes_zero(row["low"], row["high"]) and row["value"] > 0]
    if not sure:
        return "The last layers are not shown to take the answer back."
    told = [
        f"{task_words(row['dataset'])} {number(row['value'], 2)} {interval(row['low'], row['high'], 2)}"
        for row in sure
    ]
    how = "log-probability at the best earlier layer, chosen on other pairs, less that at the last"
    return f"The last layers take the answer back ({how}): {'; '.join(told)}."


def _graph(data: RunData) -> str:
    frame = held(data, "graph") if is_circuits(data) else None
    if frame is None:
        return ""
    taught = taught_energy(frame)
    if taught is None:
        return "Whether the graph of words forms in the states is not known: no walk without the graph to compare with."
    shown, best = taught
    size = f"{number(best['difference'], 3)} {interval(best['difference_low'], best['difference_high'], 3)}"
    verb = "forms in the states" if shown else "is not shown to form in the states"
    at = f"after {count(best['context'])} tokens the energy at layer {best['layer']:.0f} is {number(best['energy'], 2)}"
    return (
        f"The graph of words {verb}: {at}, {size} against the same words after a walk on another graph "
        "(bounds for all layers together)."
    )


def _absent(data: RunData) -> list[str]:
    """What does not apply: one sentence per reason, with its parts and tasks."""
    by_reason: dict[str, dict[str, list[str]]] = {}
    for part, entries in missing(data).items():
        for task, why in entries:
            by_reason.setdefault(clean(why, 240), {}).setdefault(clean(part, 40), []).append(task)
    told: list[str] = []
    for why, parts in by_reason.items():
        named = [
            part if not all(tasks) or len(tasks) == len(tasks_of(data)) else _of_tasks(part, tasks)
            for part, tasks in parts.items()
        ]
        told.append(sentence(f"not measured: {listed(named)}" + (f" ({why})" if why else "")))
    return told


def _of_tasks(part: str, tasks: list[str]) -> str:
    return f"{part} of {listed([task_words(task) for task in tasks])}"


_TOLD = (_undone, _heads, _few, _trusted, _lens, _suppressed, label_words, _graph, neuron_words)
