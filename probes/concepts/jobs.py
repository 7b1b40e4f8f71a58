"""Probing in processes of its own, so that the model reads on meanwhile: what a job is, and who does it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pandas as pd

from probes.concepts.conditions import Condition
from probes.concepts.depths import ELEVEN, layers_at
from probes.concepts.measure import Measured, measure_code, measure_curve, measure_depth
from probes.concepts.plan import ConceptPlan
from probes.concepts.summary import above_bag
from probes.concepts.tasks import ConceptTask
from probes.probing import BelowChanceWarning

T = TypeVar("T")
MOST = 8  # processes: each holds a layer's states and the libraries
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Job:
    """One concept under one condition, its states in the store at `path`."""

    task: ConceptTask
    condition: Condition
    path: Path
    pooling: str
    plan: ConceptPlan
    n_layers: int


@dataclass(frozen=True)
class Result:
    """What a job found: the curve, its depth, its code (where asked for), and whether it is above the bag of words.

    Untrained weights have no depth: `depth` is empty."""

    measured: Measured
    depth: pd.DataFrame
    code: tuple[pd.DataFrame, ...]
    above_bag: bool | None


def probe(job: Job) -> Result:
    """Do a job. Nothing but its argument is needed, so that any process can."""
    from probes.store import open_store

    task, plan, pooling = job.task, job.plan, job.pooling
    plain = job.condition.kind is None
    states: Mapping[int, Any] = open_store(job.path)["exit"]
    fresh = job.condition.kind == "untrained"
    if (
        fresh
    ):  # fresh weights change little from layer to layer: eleven depths draw the control's line
        states = {layer: states[layer] for layer in layers_at(job.n_layers, ELEVEN)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BelowChanceWarning)  # the notes of the table say it too
        measured = measure_curve(task, states, pooling, plan, job.condition)
    depth = pd.DataFrame()
    if not fresh:
        depth = measure_depth(task, measured.curve, pooling, plan, job.n_layers)
    coded = plain and "mdl" in plan.parts and task.kind in ("classes", "pairs", "tokens")
    code = tuple(measure_code(task, states, pooling, plan)) if coded else ()
    above = above_bag(measured.curve, measured.bag, plan.draws, plan.seed)
    return Result(measured, depth, code, above)


def usable_workers() -> int:
    """One process for every processor that this one may use, within reason."""
    usable = getattr(os, "sched_getaffinity", None)
    count = len(usable(0)) if usable is not None else os.cpu_count() or 1
    return max(1, min(MOST, count))


class Workers:
    """Processes that do jobs, or this one where only one is wanted. Use it in `with`: it leaves none behind.

    >>> with Workers(1) as workers:
    ...     workers.submit(len, "abc").result()
    3
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._executor: Any = None

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Have `function(*args)` done; with one worker at once, and here."""
        if self._executor is not None:
            return self._executor.submit(function, *args)
        done: Future[T] = Future()
        try:
            done.set_result(function(*args))
        except Exception as error:  # raised where the result is asked for, as from another process
            done.set_exception(error)
        return done

    def __enter__(self) -> Workers:
        if self.count > 1:
            self._executor = _processes(self.count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=error is None, kill_workers=error is not None)


def _processes(count: int) -> Executor:
    # loky, since the standard library's pool needs a guarded main module and cannot kill what it started
    from loky import ProcessPoolExecutor

    return ProcessPoolExecutor(max_workers=count, timeout=60, env=_ONE_THREAD)
