"""Dynamic exits: every input stops at the layer where it is sure enough, under the same guarantee as a static exit.

The names load on first use: rules and calibration come without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.exits.dynamic.calibrate import DynamicCandidate, DynamicChoice, choose_dynamic
    from probes.exits.dynamic.gates import LayerGate, LookGate
    from probes.exits.dynamic.heads import ClassHeads, SpaceHeads
    from probes.exits.dynamic.looks import Look, Top
    from probes.exits.dynamic.passes import LeavingPass
    from probes.exits.dynamic.rules import RULES, Rule
    from probes.exits.dynamic.runtime import DynamicExit, Exits, Policy, measure_policies
    from probes.exits.dynamic.study import DynamicPlan, DynamicStudy, study_dynamic

_HOMES = {
    "ClassHeads": "heads",
    "DynamicCandidate": "calibrate",
    "DynamicChoice": "calibrate",
    "DynamicExit": "runtime",
    "DynamicPlan": "study",
    "DynamicStudy": "study",
    "Exits": "runtime",
    "LayerGate": "gates",
    "LeavingPass": "passes",
    "Look": "looks",
    "LookGate": "gates",
    "Policy": "runtime",
    "RULES": "rules",
    "Rule": "rules",
    "SpaceHeads": "heads",
    "Top": "looks",
    "choose_dynamic": "calibrate",
    "measure_policies": "runtime",
    "study_dynamic": "study",
}

__all__ = [
    "RULES",
    "ClassHeads",
    "DynamicCandidate",
    "DynamicChoice",
    "DynamicExit",
    "DynamicPlan",
    "DynamicStudy",
    "Exits",
    "LayerGate",
    "LeavingPass",
    "Look",
    "LookGate",
    "Policy",
    "Rule",
    "SpaceHeads",
    "Top",
    "choose_dynamic",
    "measure_policies",
    "study_dynamic",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probes.exits.dynamic' has no attribute {name!r}")
    value = getattr(import_module(f"probes.exits.dynamic.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
