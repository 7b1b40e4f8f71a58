"""The whole study: every concept under every condition, then what connects concepts, written down as it is found."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from probes.concepts.conditions import PLAIN, UNTRAINED, Condition
from probes.concepts.jobs import Job, Result, Workers, probe
from probes.concepts.measure import correct_rows
from probes.concepts.parts import EACH, TOGETHER
from probes.concepts.plan import ConceptPlan
from probes.concepts.states import LayerStates, capture_reading, task_states
from probes.concepts.summary import concept_row
from probes.concepts.tasks import ConceptTask, Reading
from probes.errors import DataError, FathometerError, InputError
from probes.probing.curves import Curve
from probes.runs import Keep, Progress

if TYPE_CHECKING:
    from probes.models import Model
    from probes.store import Store


@dataclass
class Study:
    """A study under way: what it works on and what later steps need of earlier ones."""

    model: Model
    tasks: tuple[ConceptTask, ...]
    plan: ConceptPlan
    keep: Keep
    progress: Progress
    curves: dict[str, Curve] = field(default_factory=dict[str, Curve])  # plain, by concept
    # concepts that are done, and whether they rise above the bag of words
    done: dict[str, bool | None] = field(default_factory=dict[str, bool | None])
    given_up: dict[str, str] = field(default_factory=dict[str, str])
    notes: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    tables: dict[str, list[pd.DataFrame]] = field(default_factory=dict[str, list[pd.DataFrame]])

    @property
    def n_layers(self) -> int:
        return self.model.n_layers

    @property
    def measured(self) -> tuple[ConceptTask, ...]:
        """The tasks that were not given up."""
        return tuple(task for task in self.tasks if task.name not in self.given_up)

    def store(
        self, task: ConceptTask, condition: Condition = PLAIN, model: Model | None = None
    ) -> Store:
        """States of a task; what was captured before comes from the cache."""
        text = f"capture {task.name}" + (f" ({condition.variant})" if condition.variant else "")
        return capture_reading(
            model or self.model,
            condition.reading(task.reading, self.plan.seed),
            self.plan.places,
            pooling=condition.pooling,
            dtype=condition.dtype,
            progress=self._telling(text),
        )

    def states(self, task: ConceptTask) -> LayerStates:
        """Layer -> one row per example, under the plain condition."""
        return task_states(task, self.store(task)["exit"])

    def read(
        self, reading: Reading, text: str, site: str = "exit", pooling: str | None = None
    ) -> Store:
        """States of other texts."""
        return capture_reading(
            self.model,
            reading,
            self.plan.places,
            site=site,
            pooling=pooling,
            progress=self._telling(text),
        )

    def _telling(self, text: str) -> Any:
        def tell(done: int, total: int) -> None:
            self.progress(done, total, text)

        return tell

    def pooling(self, task: ConceptTask, condition: Condition = PLAIN) -> str:
        """What the pooling column says."""
        places = self.plan.places
        if condition.pooling:
            return condition.pooling
        if task.reading.spans is not None:
            return places.span_pooling
        return places.pooling or self.model.embedding.pooling

    def add(self, rows: pd.DataFrame, task: ConceptTask | None = None) -> None:
        """Write rows down, and, where they belong to a task, what they say beside."""
        if len(rows):
            self.keep.add(rows)
        for note in () if task is None else rows.attrs.get("notes", ()):
            if not note.startswith("no layer is a "):  # a number that does not exist is no caveat
                self.tell(task, note)

    def extend(self, name: str, frame: pd.DataFrame) -> None:
        """Add rows to a table and write it down."""
        parts = self.tables.setdefault(name, [])
        if len(frame):
            parts.append(frame)
            self.keep.write_table(name, pd.concat(parts, ignore_index=True))

    def tell(self, task: ConceptTask | None, text: str) -> None:
        """Write down what a reader must know, of a concept or of all."""
        if task is not None:
            self.notes.setdefault(task.name, []).append(text)
            text = f"{task.name}: {text}"
        self.keep.note(text)


def study_concepts(
    model: Model,
    tasks: Sequence[ConceptTask],
    plan: ConceptPlan,
    keep: Keep,
    progress: Progress = lambda done, total, text: None,
    *,
    workers: int = 1,
) -> Study:
    """Measure every task at every layer of `model` and write all that is found to `keep`.

    Rows and tables come as each concept is done, so that what is there survives a stop. A part that does not apply
    (no language-model head, too little data) leaves a note instead of rows. With more than one of `workers`, probes
    are fitted in processes of their own while the model reads on; the numbers are the same.
    """
    names = [task.name for task in tasks]
    if len(set(names)) < len(names):
        raise InputError(f"concepts need different names: {', '.join(names)}")
    study = Study(model, tuple(tasks), plan, keep, progress)
    with Workers(workers) as pool:
        _probe_all(study, pool)
    for name, part in TOGETHER.items():
        if name in plan.parts:
            progress(0, None, f"{name.replace('-', ' ')} over all concepts")
            _guarded(study, None, name, part)
    _summarise(study)
    return study


def _probe_all(study: Study, pool: Workers) -> None:
    """Capture concept after concept, condition after condition; results are written down in that order."""
    conditions = [PLAIN, *study.plan.conditions]
    if "untrained" in study.plan.controls:
        conditions.insert(1, UNTRAINED)
    total = len(conditions) * len(study.tasks)
    waiting: deque[tuple[Job, Future[Result]]] = deque()
    for condition in conditions:
        changed = condition.model(study.model, study.plan.seed)
        for task in study.tasks:
            job = _job(study, task, condition, changed)
            if job is not None:
                waiting.append((job, pool.submit(probe, job)))
            while waiting and waiting[0][1].done():
                _write_down(study, *waiting.popleft())
    while waiting:
        study.progress(total - len(waiting), total, "probe concepts")
        _write_down(study, *waiting.popleft())


def _job(study: Study, task: ConceptTask, condition: Condition, model: Model) -> Job | None:
    """States captured, to be probed; None where the condition does not apply, or the concept was given up."""
    if condition.kind is not None and task.name in study.given_up:
        return None
    try:
        store = study.store(task, condition, model)
    except InputError as error:
        if condition.kind is None:
            raise  # an option that no concept can be captured with
        # noise where states are taken at given places
        study.tell(task, f"not measured under {condition.variant}: {error}")
        return None
    except DataError as error:
        _give_up(study, task, condition, error)
        return None
    pooling = study.pooling(task, condition)
    return Job(task, condition, store.path, pooling, study.plan, study.n_layers)


def _write_down(study: Study, job: Job, future: Future[Result]) -> None:
    """What a job found; after a plain one, also what needs only this concept."""
    task = job.task
    try:
        result = future.result()
    except FathometerError as error:
        _give_up(study, task, job.condition, error)
        return
    study.add(result.measured.rows)
    if job.condition.kind is not None:
        if len(result.depth):
            study.add(result.depth)
        return
    for note in result.measured.notes:
        study.tell(task, note)
    study.add(result.depth, task)
    for rows in result.code:
        study.add(rows)
    study.curves[task.name] = result.measured.curve
    study.extend("predictions", correct_rows(task, result.measured.curve))
    study.extend("examples", _examples(task))
    for name, part in EACH.items():
        if name in study.plan.parts:
            _guarded(study, task, name, part)
    study.done[task.name] = result.above_bag
    _summarise(study)


def _give_up(study: Study, task: ConceptTask, condition: Condition, error: Exception) -> None:
    """A concept whose data do not fit is left out, with its reason; an error once none is left."""
    if condition.kind is not None:
        study.tell(task, f"not measured under {condition.variant}: {error}")
        return
    study.tell(task, f"left out: {error}")
    study.given_up[task.name] = str(error)
    if len(study.given_up) == len(study.tasks):
        raise DataError(f"concept {task.name!r}: {error}")


def _guarded(study: Study, task: ConceptTask | None, name: str, part: Any) -> None:
    """A part that does not apply leaves a note; the rest of the study goes on."""
    try:
        part(study) if task is None else part(study, task)
    except FathometerError as error:
        study.tell(task, f"no {name.replace('-', ' ')}: {error}")


def _examples(task: ConceptTask) -> pd.DataFrame:
    """Text and label of every example, for those who want to see what is got wrong."""
    names = task.target.names
    if task.kind == "minimal-pairs":
        labels = [""] * task.n
    elif task.kind == "numbers":
        labels = [", ".join(f"{value:g}" for value in row) for row in task.labels]
    else:
        labels = [names[int(code)] for code in task.labels]
    return pd.DataFrame(
        {
            "concept": task.name,
            "example": range(task.n),
            "text": task.shown(),
            "label": labels,
        }
    )


def _summarise(study: Study) -> None:
    """The table of concepts as far as they are done."""
    rows = [
        concept_row(task, study.notes.get(task.name, []), study.done[task.name])
        for task in study.tasks
        if task.name in study.done
    ]
    study.keep.write_table("concepts", pd.DataFrame(rows))
