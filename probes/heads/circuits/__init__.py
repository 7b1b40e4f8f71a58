"""Circuits: which heads and MLPs do a task, found by attribution and patching, and how few of them suffice."""

from __future__ import annotations

from probes.heads.circuits.attribution import Component, Contributions, attribute
from probes.heads.circuits.draws import Draws
from probes.heads.circuits.faithfulness import Curve, HeadMeans, faithfulness_curves
from probes.heads.circuits.files import read_pairs
from probes.heads.circuits.lens import Lens, read_lens
from probes.heads.circuits.measures import (
    ACTIVATION_PATCHING,
    ANSWER_SUPPRESSION,
    CMD,
    CPR,
    DIRECT_ATTRIBUTION,
    PATCHING_AGREEMENT,
    TASK_ACCURACY,
)
from probes.heads.circuits.pairs import SOURCES, Pair
from probes.heads.circuits.patching import (
    Effects,
    Patch,
    agreement,
    list_patches,
    patch_activations,
    patch_attributions,
)
from probes.heads.circuits.plan import CircuitPlan
from probes.heads.circuits.study import Study, study_circuits
from probes.heads.circuits.tasks import Row, Task, build_task, load_task, make_task

__all__ = [
    "ACTIVATION_PATCHING",
    "ANSWER_SUPPRESSION",
    "CMD",
    "CPR",
    "DIRECT_ATTRIBUTION",
    "PATCHING_AGREEMENT",
    "SOURCES",
    "TASK_ACCURACY",
    "CircuitPlan",
    "Component",
    "Contributions",
    "Curve",
    "Draws",
    "Effects",
    "HeadMeans",
    "Lens",
    "Pair",
    "Patch",
    "Row",
    "Study",
    "Task",
    "agreement",
    "attribute",
    "build_task",
    "faithfulness_curves",
    "list_patches",
    "load_task",
    "make_task",
    "patch_activations",
    "patch_attributions",
    "read_lens",
    "read_pairs",
    "study_circuits",
]
