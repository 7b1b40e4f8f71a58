"""Concept depth: what each layer of a model knows, with controls, and whether the model uses it.

`study_concepts` runs the whole study that `fathometer run concept-depth` writes down; its steps are plain functions
on states and can be used alone (see `probes.probing` and `probes.erasure`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.concepts.conditions import Condition, parse_conditions
    from probes.concepts.jobs import usable_workers
    from probes.concepts.load import load_tasks
    from probes.concepts.plan import ConceptPlan
    from probes.concepts.states import Places
    from probes.concepts.study import study_concepts
    from probes.concepts.tasks import ConceptTask, make_task

_PLACES = {
    "ConceptPlan": "plan",
    "ConceptTask": "tasks",
    "Condition": "conditions",
    "Places": "states",
    "load_tasks": "load",
    "make_task": "tasks",
    "parse_conditions": "conditions",
    "study_concepts": "study",
    "usable_workers": "jobs",
}

__all__ = [
    "ConceptPlan",
    "ConceptTask",
    "Condition",
    "Places",
    "load_tasks",
    "make_task",
    "parse_conditions",
    "study_concepts",
    "usable_workers",
]


def __getattr__(name: str) -> Any:
    """Loaded on use: the command line reads names and options of this package at every start."""
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
