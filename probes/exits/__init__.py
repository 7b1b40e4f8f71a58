"""After which layer, and at which width, a model can stop: measured quality, measured time, a stated confidence.

The names load on first use: `probes.exits.walk` (what the budget slider needs) comes without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.exits.candidates import Candidate, CandidateScores
    from probes.exits.choose import choose
    from probes.exits.decision import Decision
    from probes.exits.grid import default_dims, layer_dim_grid
    from probes.exits.latency import LatencyPlan, measure_latency
    from probes.exits.pipeline import ExitStudy, StudyPlan, choose_exit, study_exits
    from probes.exits.tasks import make_task
    from probes.exits.translate import Translator, TranslatorFitter
    from probes.exits.walk import Budget, walk_chains

_HOMES = {
    "Budget": "walk",
    "Candidate": "candidates",
    "CandidateScores": "candidates",
    "Decision": "decision",
    "ExitStudy": "pipeline",
    "LatencyPlan": "latency",
    "StudyPlan": "pipeline",
    "Translator": "translate",
    "TranslatorFitter": "translate",
    "choose": "choose",
    "choose_exit": "pipeline",
    "default_dims": "grid",
    "layer_dim_grid": "grid",
    "make_task": "tasks",
    "measure_latency": "latency",
    "study_exits": "pipeline",
    "walk_chains": "walk",
}

__all__ = [
    "Budget",
    "Candidate",
    "CandidateScores",
    "Decision",
    "ExitStudy",
    "LatencyPlan",
    "StudyPlan",
    "Translator",
    "TranslatorFitter",
    "choose",
    "choose_exit",
    "default_dims",
    "layer_dim_grid",
    "make_task",
    "measure_latency",
    "study_exits",
    "walk_chains",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probes.exits' has no attribute {name!r}")
    value = getattr(import_module(f"probes.exits.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
