"""The whole study: every part on every task; what does not apply leaves its reason, and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from probes.errors import DoesNotApply
from probes.heads.circuits.draws import Draws
from probes.heads.circuits.names import PARTS, TASK_PARTS, TASKS
from probes.heads.circuits.passes import differences
from probes.heads.circuits.plan import CircuitPlan
from probes.heads.circuits.tasks import Task, build_task, load_task
from probes.heads.circuits.tidied import MEASURES
from probes.models.completions import require_language_model
from probes.runs import Keep, Previous, Progress, do_parts
from probes.stats import wilson_interval
from probes.tables import tidy, typed

if TYPE_CHECKING:
    from probes.models import Model

Rows = Iterable[Mapping[str, Any]]
TABLES = {
    "attribution": ("attribution",),
    "patching": ("patching", "strongest", "agreement"),
    "faithfulness": ("faithfulness",),
    "lens": ("lens",),
    "flow": ("saliency",),
    "graph": ("graph", "graph_nodes", "graph_edges"),
    "neurons": ("neurons",),
}
MEASURES_OF = {
    "attribution": ("direct_logit_attribution",),
    "patching": ("activation_patching", "patching_agreement"),
    "faithfulness": ("cpr", "cmd"),
    "lens": ("answer_suppression",),
    **MEASURES,
}
_APPLIES = ["part", "task", "applies", "reason"]
_INTEGERS = (
    "layer", "block", "head", "heads_kept", "fresh", "skipped", "context", "node", "a", "b", "n", "seed",
)  # fmt: skip
_WORDS = (
    "task", "component", "method", "level", "positions", "ranking", "reason", "example_clean", "example_corrupted",
    "answer", "wrong", "dataset", "flow", "variant", "word", "measure", "part",
)  # fmt: skip


@dataclass
class Study:
    """A study under way: what it works on, and the tables so far."""

    model: Model
    plan: CircuitPlan
    keep: Keep
    progress: Progress
    tasks: dict[str, Task] = field(default_factory=dict[str, Task])
    tables: dict[str, pd.DataFrame] = field(default_factory=dict[str, pd.DataFrame])

    def patched(self, task: Task) -> Task:
        """The pairs that heads are patched and ranked on: the first ones."""
        return task.part(range(min(self.plan.patched, len(task))))

    def draws(self, task: Task) -> Draws:
        return Draws.make(len(task), self.plan.draws, self.plan.seed)

    def add(self, rows: Rows) -> None:
        """Tidy rows."""
        found = [dict(row) for row in rows]
        if found:
            self.keep.add(tidy(found))

    def extend(self, name: str, rows: Rows | pd.DataFrame) -> None:
        """Write a table down with rows added to what it holds."""
        frame = _typed(_frame(rows))
        if name in self.tables:
            frame = pd.concat([self.tables[name], frame], ignore_index=True)
        self._write(name, frame)

    def replace(self, name: str, rows: Rows | pd.DataFrame) -> None:
        """Write a table down in place of what it holds."""
        self._write(name, _typed(_frame(rows)))

    def _write(self, name: str, frame: pd.DataFrame) -> None:
        self.tables[name] = frame
        self.keep.write_table(name, frame)


def _frame(rows: Rows | pd.DataFrame) -> pd.DataFrame:
    return rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows), dtype=object)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    return typed(frame, integers=_INTEGERS, words=_WORDS, truths=("applies",))


def study_circuits(
    model: Model,
    plan: CircuitPlan,
    keep: Keep,
    progress: Progress = lambda done, total, text: None,
    *,
    previous: Previous | None = None,
) -> Study:
    """Which heads and MLPs of `model` do the tasks, and how information flows; all that is found goes to `keep`.

    Every part writes its tables after every task; what does not apply leaves its reason in the table `applies`. Parts
    that `previous` holds are taken over.
    """
    from probes.heads.circuits.parts import MODEL_PARTS, TASK_FUNCTIONS

    study = Study(model, plan, keep, progress)
    outcomes = _build_tasks(study)
    done = {} if previous is None else _resumed(study, previous)
    keys: list[tuple[str, str | None]] = []
    for part in (name for name in PARTS if name in plan.parts):
        keys += [(part, task) for task in study.tasks] if part in TASK_PARTS else [(part, None)]
    by_name = {_name(*key): key for key in keys}

    def do(name: str) -> None:
        part, task = by_name[name]
        if task is None:
            MODEL_PARTS[part](study)
        else:
            TASK_FUNCTIONS[part](study, study.tasks[task])

    def write(rows: list[dict[str, Any]]) -> None:
        found = list(outcomes)
        for row in rows:
            part, task = by_name[row["part"]]
            reason = row["reason"]
            found.append({"part": part, "task": task, "applies": row["applies"], "reason": reason})
        study.replace("applies", pd.DataFrame(found, columns=_APPLIES, dtype=object))

    done = {name: row for name, row in done.items() if name in by_name}
    write([done[name] for name in by_name if name in done])
    do_parts(list(by_name), done, do, write, progress)
    return study


def _name(part: str, task: str | None) -> str:
    return part if task is None else f"{part}: {task}"


def _build_tasks(study: Study) -> list[dict[str, Any]]:
    """Put the tasks that apply into the study, with the table of tasks; outcomes of those that do not."""
    plan, model = study.plan, study.model
    wanted = set(plan.parts) & set(TASK_PARTS)
    outcomes: list[dict[str, Any]] = []
    try:
        require_language_model(model)
    except DoesNotApply as reason:
        return [
            {"part": part, "task": None, "applies": False, "reason": str(reason)}
            for part in TASK_PARTS
            if part in wanted
        ]
    if plan.path is not None and wanted:
        own = load_task(model, plan.path, plan.pairs, plan.seed)
        name = own.name if own.name not in TASKS else f"{own.name}-file"
        study.tasks[name] = Task(name, own.rows, own.skipped)
    for name in (name for name in TASKS if name in plan.tasks and wanted):
        try:
            study.tasks[name] = build_task(model, name, plan.pairs, plan.seed)
        except DoesNotApply as reason:
            outcomes.append(
                {"part": "tasks", "task": name, "applies": False, "reason": str(reason)}
            )
    rows = [_judge(study, task) for task in study.tasks.values()]
    if rows:
        study.replace("tasks", rows)
    return outcomes


def _judge(study: Study, task: Task) -> dict[str, Any]:
    """The row of the table of tasks, with the measurement and a note where the model does not do the task."""
    study.progress(0, None, f"{task.name}: does the model do it?")
    clean, corrupted = differences(study.model, task)
    n, right = len(task), int((clean > 0).sum())
    low, high = wilson_interval(right, n)
    own = {"value": right / n, "low": low, "high": high, "n": n, "seed": study.plan.seed}
    study.add([{"measure": "task_accuracy", "dataset": task.name, **own}])
    if low <= 0.5:
        study.keep.note(
            f"{task.name}: the answer is not shown to beat the wrong one more often than chance (accuracy "
            f"{right / n:.2f}, {low:.2f} to {high:.2f}): what carries this task here says little"
        )
    first = task.rows[0]
    decode: Any = study.model.require_tokenizer().decode
    reasons = "; ".join(f"{reason} ({count})" for reason, count in task.skipped.items())
    return {
        "task": task.name, "n": n, "skipped": sum(task.skipped.values()), "reason": reasons or None,
        "accuracy": right / n, "low": low, "high": high,
        "logit_difference_clean": float(clean.mean()),
        "logit_difference_corrupted": float(corrupted.mean()),
        "example_clean": decode(list(first.clean)), "example_corrupted": decode(list(first.corrupted)),
        "answer": " | ".join(decode([i]).strip() for i in first.answers),
        "wrong": " | ".join(decode([i]).strip() for i in first.wrongs),
    }  # fmt: skip


def _resumed(study: Study, previous: Previous) -> dict[str, dict[str, Any]]:
    """Outcomes of what was done before, by name, with its tables and measurements taken over."""
    rows: list[dict[str, Any]] = [
        {k: None if v is pd.NA else v for k, v in row.items()}
        for row in previous.tables["applies"].to_dict("records")
    ]
    rows = [row for row in rows if row["part"] in PARTS]
    done = {_name(row["part"], row["task"]): row for row in rows}
    for part in PARTS:
        finished = {row["task"] for row in rows if row["part"] == part}
        for name in TABLES[part]:
            frame: Any = previous.tables.get(name)
            if frame is None or not finished:
                continue
            kept = frame[frame["task"].isin(list(finished))] if "task" in frame else frame
            study.tables[name] = kept.reset_index(drop=True)
        measured: Any = previous.rows_of(MEASURES_OF.get(part, ()))
        if part in TASK_PARTS:
            measured = measured[measured["dataset"].isin([t for t in finished if t])]
        if len(measured) and finished:
            study.keep.add(measured)
    return {name: {**row, "part": name} for name, row in done.items()}
