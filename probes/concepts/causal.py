"""Whether the model uses a concept: its preference for true statements with the concept erased, or steered along."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.concepts.depths import layers_at
from probes.concepts.tasks import ConceptTask, Reading
from probes.erasure import (
    CausalOptions,
    CompletionPairs,
    causal_effect,
    fit_inlp,
    fit_leace,
    statement_pairs,
)
from probes.errors import DataError, DoesNotApply
from probes.probing import MassMeanProbe
from probes.types import LabelledTexts

if TYPE_CHECKING:
    from probes.concepts.study import Study

EDITED_AT = (0.25, 0.5, 0.75)
MOST_PAIRS = 64
MOST_CONCEPTS = 2
RANDOM_DRAWS = 5
STRENGTHS = (
    -1.0,
    1.0,
)  # of the difference of class means: back to the false mean, on to the true one


def causal(study: Study) -> None:
    """Erase and steer each concept that consists of true and false statements, beside matched random edits."""
    from probes.models import require_language_model

    require_language_model(study.model)
    found: list[tuple[ConceptTask, NDArray[np.int64], CompletionPairs]] = []
    for task in study.measured:
        if isinstance(task.dataset, LabelledTexts):
            # sentiment, topics, …: no statements that begin alike
            with contextlib.suppress(DataError):
                found.append((task, *_halves(task.dataset, study.plan.seed)))
    for task, fitted, pairs in found[:MOST_CONCEPTS]:
        _one(study, task, fitted, pairs)
    if len(found) > MOST_CONCEPTS:
        left = ", ".join(task.name for task, _, _ in found[MOST_CONCEPTS:])
        study.tell(None, f"edits in the model: the first {MOST_CONCEPTS} concepts only, not {left}")
    if not found:
        raise DoesNotApply(
            "no concept here consists of true and false statements that begin alike and share a group"
        )


def _halves(data: LabelledTexts, seed: int) -> tuple[NDArray[np.int64], CompletionPairs]:
    """Rows to fit erasers on, and statement pairs of the other groups."""
    pairs = statement_pairs(data)
    assert pairs.groups is not None
    assert data.groups is not None
    names = np.unique(pairs.groups)
    tested = np.random.default_rng(seed).permutation(names)[: max(1, len(names) // 2)]
    fitted = np.flatnonzero(~np.isin(data.groups, tested))
    if len(np.unique(data.labels[fitted])) < 2:
        raise DataError("too few groups to fit an eraser beside the pairs")
    rows = np.flatnonzero(np.isin(pairs.groups, tested))
    if len(rows) > MOST_PAIRS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_PAIRS, replace=False))
    return fitted, pairs.take(rows)


def _one(
    study: Study, task: ConceptTask, fitted: NDArray[np.int64], pairs: CompletionPairs
) -> None:
    layers = layers_at(study.n_layers, EDITED_AT)
    text = f"edit {task.name} in the model"
    reading = Reading(tuple(task.reading.texts[i] for i in fitted))
    store = study.read(reading, f"capture {task.name} inside the model", "resid_post", "mean")
    labels = task.labels[fitted]
    groups = None if task.groups is None else task.groups[fitted]
    states: dict[int, Any] = {layer: store["resid_post", layer] for layer in layers}
    erasers = {
        layer: (fit_leace(X, labels), fit_inlp(X, labels, groups=groups, seed=study.plan.seed))
        for layer, X in states.items()
    }
    directions = {layer: MassMeanProbe().fit(X, labels).coef_[0] for layer, X in states.items()}

    def tell(done: int, total: int) -> None:
        study.progress(done, total, text)

    frame = causal_effect(
        study.model,
        pairs,
        erasers=erasers,
        directions=directions,
        states=states,
        strengths=STRENGTHS,
        concept=task.name,
        options=CausalOptions(draws=RANDOM_DRAWS, seed=study.plan.seed),
        progress=tell,
    )
    study.extend("causal", frame)
