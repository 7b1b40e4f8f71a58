"""One line per concept: what it is, how many examples, what a guess gets, and what a reader must know of its curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from probes.concepts.tasks import ConceptTask
from probes.probing import rise_above
from probes.probing.curves import Curve


def concept_row(task: ConceptTask, notes: Sequence[str], above_bag: bool | None) -> dict[str, Any]:
    """The line of `tables/concepts` for a task; `above_bag`: does some layer clearly beat the bag of words?"""
    classes = None if task.kind in ("numbers", "minimal-pairs") else len(np.unique(task.labels))
    return {
        "concept": task.name,
        "family": task.family,
        "kind": task.kind,
        "dataset": task.dataset.name,
        "measure": task.measure,
        "n": task.n,
        "classes": classes,
        "chance": chance_of(task),
        "groups": None if task.groups is None else len(set(task.groups.tolist())),
        "above_bag": above_bag,
        "note": "; ".join(notes) or None,
    }


def chance_of(task: ConceptTask) -> float:
    """What guessing gets: the share of the largest class, a half for minimal pairs, nothing for numbers."""
    if task.kind == "numbers":
        return 0.0
    if task.kind == "minimal-pairs":
        return 0.5
    counts = np.bincount(np.unique(task.labels, return_inverse=True)[1])
    return float(counts.max() / counts.sum())


def above_bag(curve: Curve, bag: Curve | None, draws: int, seed: int) -> bool | None:
    """Whether some layer clearly beats the bag of words, paired by example; None without a bag."""
    return None if bag is None else rise_above(curve, bag, draws=draws, seed=seed).significant
