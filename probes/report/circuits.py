"""What a study of circuits found, in plain words and one table: is the task done, by which heads, by how few."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from probes.report.collapse_study import excludes_zero, numbers_of, records
from probes.report.data import RunData
from probes.report.figures.card import listed
from probes.report.figures.circuit_attribution import located
from probes.report.figures.circuit_flow import taught_energy
from probes.report.figures.circuit_patching import LEVELS, head_effects
from probes.report.figures.circuit_tasks import task_words
from probes.report.frames import column, only
from probes.report.head_tables import head_name, held, is_circuits, missing, tasks_of
from probes.report.tables import Table
from probes.report.text import NOTHING, clean, count, interval, is_number, number, percent, sentence
from probes.report.verdict import Verdict, conclusion, unfinished

Row = dict[str, Any]
NOT_MEASURED = "No task was measured"
KEPT = 0.8  # share of the logit difference that counts as kept
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


def task_rows(data: RunData) -> dict[str, Row]:
    """Accuracy and logit differences by task."""
    frame = held(data, "tasks") if is_circuits(data) else None
    return {} if frame is None else {row["task"]: row for row in reversed(records(frame))}


def done(row: Row) -> bool:
    """Whether the right answer is shown to be ahead in more than half of the pairs."""
    return is_number(row["low"]) and row["low"] > 0.5


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
    return f"{start}; {heads} keep {percent(KEPT, 0)} of {task_words(row['task'])}"


def fewest(
    data: RunData, task: str, rankings: tuple[str, ...] = ("activation", "attribution", "dla")
) -> Row | None:
    """The smallest number of heads whose faithfulness is shown (lower end) to be 80 % or more, and is so with more."""
    frame = held(data, "faithfulness") if is_circuits(data) else None
    if frame is None:
        return None
    rows = only(frame, task=task)
    total = float(column(rows, "heads_kept").max()) if len(rows) else 0.0
    found: list[Row] = []
    for ranking in rankings:
        curve = records(only(rows, ranking=ranking).sort_values("heads_kept"))
        kept = [row for row in curve if row["heads_kept"] < total]
        below = [at for at, row in enumerate(kept) if row["value"] < KEPT]
        kept = (
            kept[below[-1] + 1 :] if below else kept
        )  # a curve may rise above the whole and fall again
        reach = next((row for row in kept if is_number(row["low"]) and row["low"] >= KEPT), None)
        if reach is not None:
            found.append({**reach, "all": total})
    return min(found, key=lambda row: row["heads_kept"], default=None)


def strongest(data: RunData, task: str) -> list[Row]:
    """Heads by how much patching them alone brings back, those shown to help; by direct attribution where unpatched."""
    for name in ("patching", "attribution"):
        frame = held(data, name) if is_circuits(data) else None
        if frame is None:
            continue
        rows = only(frame, task=task)
        rows = head_effects(rows) if name == "patching" else located(rows, component="head")
        if len(rows):
            sure = [
                r for r in records(rows) if r["value"] > 0 and excludes_zero(r["low"], r["high"])
            ]
            return sorted(sure, key=lambda row: -row["value"])
    return []


def _undone(data: RunData) -> str:
    rows = [row for row in task_rows(data).values() if not done(row)]
    if not rows or len(rows) == len(task_rows(data)):
        return ""
    told = [
        f"{task_words(row['task'])} ({percent(row['accuracy'], 0)} {interval(row['low'], row['high'], 2)})"
        for row in reversed(rows)
    ]
    return f"Not shown to be done: {listed(told)}; which heads carry that means little."


def _does(data: RunData) -> list[str]:
    return [
        task for task in tasks_of(data) if task in task_rows(data) and done(task_rows(data)[task])
    ]


def _heads(data: RunData) -> str:
    told: list[str] = []
    for task in _does(data):
        heads = strongest(data, task)[:_NAMED]
        if heads:
            named = [
                f"{head_name(row['block'], row['head'])} ({number(row['value'], 2)})"
                for row in heads
            ]
            told.append(f"{task_words(task)} by {listed(named)}")
    frame = held(data, "patching")
    patched = frame is not None and not only(frame, level="head", method="activation").empty
    how = (
        "share of the answer that patching it alone brings back"
        if patched
        else "logits written towards the answer"
    )
    return f"Heads that carry most ({how}): {'; '.join(told)}." if told else ""


def _few(data: RunData) -> str:
    told: list[str] = []
    for task in _does(data):
        few, control = fewest(data, task), fewest(data, task, ("random",))
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
    kept = f"Kept at {percent(KEPT, 0)} or more (lower end of the interval): "
    return f"{kept}{'; '.join(told)}." if told else ""


def _passing(data: RunData, task: str) -> str:
    """What is said of a curve that rises above the whole with few heads and falls again: some work against it."""
    frame: Any = held(data, "faithfulness")
    rows = only(only(frame, task=task), ranking="activation")
    sure = [row for row in records(rows) if is_number(row["low"]) and row["low"] >= 1]
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
    rows = [row for row in records(frame) if row["task"] in _does(data)]
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
    for task in _does(data):
        rows = records(only(frame, task=task).sort_values("layer"))
        first = next(
            (row["layer"] for row in rows if is_number(row["top1_low"]) and row["top1_low"] >= 0.5),
            None,
        )
        if first is not None:
            told.append(
                f"{task_words(task)} from layer {first:.0f} on the first guess in half of the texts or more"
            )
        elif rows:
            best = max(rows, key=lambda row: row["logprob"])
            told.append(f"{task_words(task)} most likely at layer {best['layer']:.0f}")
    return f"Where the answer appears (logit lens): {'; '.join(told)}." if told else ""


def _suppressed(data: RunData) -> str:
    rows = records(numbers_of(data, "answer_suppression", ""))
    rows = [row for row in rows if row["dataset"] in _does(data)]
    if not rows:
        return ""
    sure = [row for row in rows if excludes_zero(row["low"], row["high"]) and row["value"] > 0]
    if not sure:
        return "The last layers are not shown to take the answer back."
    told = [
        f"{task_words(row['dataset'])} {number(row['value'], 2)} {interval(row['low'], row['high'], 2)}"
        for row in sure
    ]
    return f"The last layers take the answer back (log-probability below its best layer): {'; '.join(told)}."


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


def task_table(data: RunData) -> Table | None:
    """One row per task: is it done, who carries it, how few keep it; None without any."""
    rows: list[tuple[str, ...]] = []
    held_rows = task_rows(data)
    for task in tasks_of(data):
        row = held_rows.get(task)
        if row is None:
            continue
        carry = (
            strongest(data, task)[:_NAMED] if done(row) else []
        )  # else there is nothing to carry
        heads = ", ".join(head_name(h["block"], h["head"]) for h in carry)
        few = fewest(data, task) if done(row) else None
        lost = next(
            (
                r
                for r in records(numbers_of(data, "answer_suppression", ""))
                if r["dataset"] == task
            ),
            None,
        )
        rows.append((
            task_words(task),
            count(row["n"]),
            f"{number(row['accuracy'], 2)} {interval(row['low'], row['high'], 2)}".strip(),
            number(row["logit_difference_clean"], 2),
            number(row["logit_difference_corrupted"], 2),
            heads or NOTHING,
            NOTHING if few is None else count(few["heads_kept"]),
            NOTHING if lost is None else f"{number(lost['value'], 2)} {interval(lost['low'], lost['high'], 2)}".strip(),
        ))  # fmt: skip
    if not rows:
        return None
    columns = (
        "task", "pairs", "right ahead", "logits", "corrupted", "strongest heads",
        f"keep {percent(KEPT, 0)}", "taken back",
    )  # fmt: skip
    note = (
        "Right ahead: share of pairs in which the right answer is, with a 95 % interval; above 0.5 the model does the "
        "task. Logits: right minus wrong, in clean and in corrupted texts. Strongest heads: by patching each alone, "
        "those shown to help. Keep: the fewest heads whose faithfulness is shown to reach that share. Taken "
        "back: log-probability of the answer at its best layer less that at the last. A dash: not measured, not "
        "shown, or the task is not done."
    )
    return Table("", columns, tuple(rows), frozenset({1, 2, 3, 4, 6, 7}), note)


def task_names(data: RunData) -> list[str]:
    """Tasks in the table, row by row."""
    return [task for task in tasks_of(data) if task in task_rows(data)]


_TOLD = (_undone, _heads, _few, _trusted, _lens, _suppressed, _graph)
