"""The table of tasks of a circuits run: is each done, by which heads, how few keep it."""

from __future__ import annotations

from probes.report.circuits_found import KEPT, done, fewest, strongest, taken_back, task_rows
from probes.report.data import RunData
from probes.report.figures.circuit_tasks import task_words
from probes.report.head_tables import head_name, tasks_of
from probes.report.tables import Table
from probes.report.text import NOTHING, count, interval, number, percent

_NAMED = 3


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
        lost = taken_back(data).get(task)
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
        "those shown to help, with bounds for all heads together. Keep: the fewest heads from which on faithfulness is "
        "shown to be that share or more, MLPs intact. Taken back: log-probability of the answer at the best earlier "
        "layer, chosen on other pairs, less that at the last. A dash: not measured, not "
        "shown, or the task is not done."
    )
    return Table("", columns, tuple(rows), frozenset({1, 2, 3, 4, 6, 7}), note)


def task_names(data: RunData) -> list[str]:
    """Tasks in the table, row by row."""
    return [task for task in tasks_of(data) if task in task_rows(data)]
