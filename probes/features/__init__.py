"""The study that `analyses/sae.py` runs: autoencoders trained, measured beside baselines, and read.

Public names load on first use: the command line needs only `probes.features.names`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.features.material import different_texts
    from probes.features.plan import LookPlan, SaePlan, TrainPlan
    from probes.features.study import Study, study_autoencoders

_HOMES = {
    "different_texts": "probes.features.material",
    "LookPlan": "probes.features.plan",
    "SaePlan": "probes.features.plan",
    "Study": "probes.features.study",
    "TrainPlan": "probes.features.plan",
    "study_autoencoders": "probes.features.study",
}

__all__ = [
    "LookPlan",
    "SaePlan",
    "Study",
    "TrainPlan",
    "different_texts",
    "study_autoencoders",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
