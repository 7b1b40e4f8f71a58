"""One concept under one condition: its curve with the controls, its depth, and what its labels cost to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import HashingVectorizer

from probes.concepts.conditions import Condition
from probes.concepts.plan import ConceptPlan
from probes.concepts.states import sides, task_states
from probes.concepts.tasks import ConceptTask
from probes.linalg import normalise_rows
from probes.probing import (
    cross_validate,
    depth_numbers,
    mdl_depth,
    mdl_sweep,
    minimal_pair_sweep,
    regression_sweep,
)
from probes.probing.base import FloatArray
from probes.probing.curves import Curve

WORD_FEATURES = 2048
ORDERS = 2  # of sending the labels: the fewest that give an interval


@dataclass(frozen=True)
class Measured:
    """Rows of one concept under one condition, the curve of the probe itself, and that of the bag of words."""

    rows: pd.DataFrame
    curve: Curve
    bag: Curve | None = None
    notes: tuple[str, ...] = field(default=())


def common(task: ConceptTask, pooling: str) -> dict[str, Any]:
    """The columns that all rows of a task share."""
    return {
        "site": "exit",
        "dataset": task.dataset.name,
        "concept": task.name,
        "pooling": pooling,
    }


def measure_curve(
    task: ConceptTask,
    source: Mapping[int, Any],
    pooling: str,
    plan: ConceptPlan,
    condition: Condition,
) -> Measured:
    """Cross-validated probes at every layer of `source`, with the controls of the plan unless a condition is on."""
    shared: dict[str, Any] = {
        **common(task, pooling),
        "cv": plan.folds,
        "groups": task.groups,
        "seed": plan.seed,
        "draws": plan.draws,
        "variant": condition.variant,
    }
    controls = () if condition.kind else tuple(sorted(plan.controls - {"untrained"}))
    shuffled = tuple(name for name in controls if name == "shuffled")
    bag = None
    if task.kind in ("numbers", "minimal-pairs"):
        table, curves = _without_classes(task, source, {**shared, "controls": shuffled})
        if "bag-of-words" in controls:
            asked = {**shared, "variant": "bag-of-words"}
            words, (bag,) = _without_classes(task, {0: hashed_words(task.reading.texts)}, asked)
            words["layer"] = pd.array([pd.NA] * len(words), dtype="Int64")  # it knows no layers
            table = with_attrs(pd.concat([table, words], ignore_index=True), table)
    else:
        swept = cross_validate(
            plan.make_probe(),
            task_states(task, source),
            task.labels,
            controls=controls,
            texts=task.words if controls else None,
            types=task.types if controls else None,
            **shared,
        )
        table, curves = swept.table, swept.curves
        bag = next(iter(swept.levels), None)
    curve = next(curve for curve in curves if curve.variant == condition.variant)
    return Measured(table, curve, bag, tuple(table.attrs.get("notes", ())))


def _without_classes(
    task: ConceptTask, source: Mapping[int, Any], asked: Mapping[str, Any]
) -> tuple[pd.DataFrame, list[Curve]]:
    """Numbers by ridge regression, minimal pairs by the difference of their states."""
    if task.kind == "numbers":
        return regression_sweep(task_states(task, source), task.labels, **asked)
    good, bad = sides(task, source)
    return minimal_pair_sweep(good, bad, **asked)


def hashed_words(texts: Sequence[str]) -> FloatArray:
    """Words and word pairs of every text, (n, 2048): counts by hash, log-scaled, rows of length one.

    A bag of words that is not fitted on anything, so that it can stand in for the states of a layer.
    """
    options: dict[str, Any] = {"ngram_range": (1, 2), "alternate_sign": False, "norm": None}
    hasher: Any = HashingVectorizer(n_features=WORD_FEATURES, **options)
    counts = hasher.transform(texts).toarray().astype(np.float32)
    return normalise_rows(np.log1p(counts))


def with_attrs(frame: pd.DataFrame, origin: pd.DataFrame) -> pd.DataFrame:
    """`frame` with the notes of `origin`."""
    frame.attrs.update(origin.attrs)
    return frame


def measure_depth(
    task: ConceptTask, curve: Curve, pooling: str, plan: ConceptPlan, n_layers: int
) -> pd.DataFrame:
    """Peak, robust depth and the other depth numbers of a curve; `attrs["notes"]` says which it has not."""
    return depth_numbers(
        curve,
        n_layers,
        draws=plan.draws,
        seed=plan.seed,
        dataset=task.dataset.name,
        pooling=pooling,
    )


def measure_code(
    task: ConceptTask, source: Mapping[int, Any], pooling: str, plan: ConceptPlan
) -> list[pd.DataFrame]:
    """Code length of the labels at every layer, and the layer where it is shortest."""
    states = task_states(task, source)
    shared: dict[str, Any] = {
        **common(task, pooling),
        "groups": task.groups,
        "seed": plan.seed,
    }
    table, bits = mdl_sweep(states, task.labels, orders=ORDERS, **shared)
    guess = float(np.log2(len(np.unique(task.labels))))
    depth = mdl_depth(bits, sorted(states), guess_bits=guess, draws=plan.draws, **shared)
    return [table, depth]


def correct_rows(task: ConceptTask, curve: Curve) -> pd.DataFrame:
    """Which examples the probe had right at which layer (for numbers: its score), sorted by layer."""
    n = len(curve.rows)
    layers = np.repeat(np.asarray(curve.layers, dtype=np.int16), n)
    frame: dict[str, Any] = {
        "concept": pd.Categorical([task.name] * len(layers)),
        "layer": layers,
        "example": np.tile(curve.rows.astype(np.int32), len(curve.layers)),
        "correct": curve.scores.reshape(-1).astype(np.float32),
    }
    return pd.DataFrame(frame)
