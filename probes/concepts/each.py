"""What is asked of a single concept beside its curve: few labels, mixed layers, magnitude, preference, time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.concepts.depths import ELEVEN, layers_at
from probes.concepts.measure import common
from probes.concepts.states import LayerStates
from probes.concepts.tasks import ConceptTask, Reading
from probes.probing import (
    RidgeProbe,
    ScalarMixProbe,
    cross_validate,
    few_shot,
    magnitude_correlation,
)
from probes.probing.base import FloatArray
from probes.probing.scores import Resamples
from probes.stats import percentile_interval
from probes.tables import tidy

if TYPE_CHECKING:
    from probes.concepts.study import Study
    from probes.store import Store

MOST_SENTENCES = 8
SHOWN_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
MIN_TEXTS = 40  # with a sentence at that place, for a probe to be worth it


def few_labels(study: Study, task: ConceptTask) -> None:
    """Accuracy against the number of labels, at five depths (FEET)."""
    if task.kind != "classes":
        return
    rows = few_shot(
        study.states(task),
        task.labels,
        layers=layers_at(study.n_layers, SHOWN_DEPTHS),
        groups=task.groups,
        seed=study.plan.seed,
        **common(task, study.pooling(task)),
    )
    study.add(rows)


def mixed_layers(study: Study, task: ConceptTask) -> None:
    """A probe on a learned mix of all layers, on held-out groups, beside the best single layer."""
    if task.kind != "classes":
        return
    from probes.datasets import group_folds

    rng = np.random.default_rng(study.plan.seed)
    groups = np.arange(task.n) if task.groups is None else task.groups
    train, test = group_folds(task.labels, groups, study.plan.folds, rng)[0]
    states = study.states(task)
    stacked = np.stack([states[layer] for layer in sorted(states)], axis=1)  # (n, layer, d)
    probe = ScalarMixProbe(random_state=study.plan.seed)
    probe.fit(stacked[train], task.labels[train], groups=groups[train])
    right = (probe.predict(stacked[test]) == task.labels[test]).astype(np.float64)
    curve = study.curves[
        task.name
    ].scores  # the single layer is chosen without the rows it is compared on, too
    best = int(curve[:, train].mean(axis=1).argmax())
    pair = np.stack([right, right - curve[best, test]], axis=1)
    (low, gain_low), (high, gain_high) = _intervals(study, pair, groups[test])
    study.extend(
        "scalar_mix",
        pd.DataFrame(
            {
                "concept": task.name,
                "layer": sorted(states),
                "weight": probe.weights_,
                "share": probe.layer_share_,
                "value": float(right.mean()),
                "low": low,
                "high": high,
                "n": len(test),
                "best_layer": sorted(states)[best],
                "best_layer_value": float(curve[best, test].mean()),
                "gain": float(pair[:, 1].mean()),
                "gain_low": gain_low,
                "gain_high": gain_high,
            }
        ),
    )


def _intervals(study: Study, scores: FloatArray, groups: Any) -> tuple[list[float], list[float]]:
    """Bootstrap intervals of the means of the columns of `scores` (n, terms), over whole groups."""
    rng = np.random.default_rng(study.plan.seed)
    resamples = Resamples(len(scores), groups, study.plan.draws, 0.95, rng)
    low, high = percentile_interval(resamples.means(scores))
    return low.tolist(), high.tolist()


def distances(study: Study, task: ConceptTask) -> None:
    """Whether distances of states follow the numbers or their logarithms (Weber–Fechner)."""
    if task.kind != "numbers" or task.labels.shape[1] != 1:
        return
    rows = magnitude_correlation(
        study.states(task),
        task.labels[:, 0],
        groups=task.groups,
        seed=study.plan.seed,
        **common(task, study.pooling(task)),
    )
    study.add(rows)
    paired = pd.DataFrame(rows.attrs["log_minus_linear"])
    study.extend("magnitude_tests", paired.assign(concept=task.name))


def preferences(study: Study, task: ConceptTask) -> None:
    """Share of minimal pairs in which the model, read out at each layer, finds the right text more probable."""
    if task.kind != "minimal-pairs":
        return
    from probes.models import sentence_logprobs

    layers = list(range(study.n_layers + 1))
    logs = sentence_logprobs(study.model, task.reading.texts, layers)  # (2n, layer)
    better = 0.5 + 0.5 * np.sign(logs[: task.n] - logs[task.n :])  # a tie is half won
    low, high = _intervals(study, better, task.groups)
    shared = {**common(task, study.pooling(task)), "measure": "preference", "n": task.n}
    values = zip(layers, better.mean(axis=0).tolist(), low, high, strict=True)
    study.add(
        tidy(
            {"layer": k, "value": v, "low": a, "high": b, "seed": study.plan.seed, **shared}
            for k, v, a, b in values
        )
    )


def over_time(study: Study, task: ConceptTask) -> None:
    """The same question asked of the state after sentence 1, 2, …: when does the answer become readable?"""
    if task.kind != "classes" or task.reading.spans is not None:
        return
    from probes.capture import sentence_spans

    spans = [sentence_spans(text) for text in task.reading.texts]
    most = min(max(map(len, spans)), MOST_SENTENCES)
    if most < 2 or np.median([len(row) for row in spans]) < 2:
        return
    after = _SentenceStates(study, task, [row[:most] for row in spans])
    tables: list[pd.DataFrame] = []
    layers = layers_at(study.n_layers, ELEVEN)
    for number in range(1, most + 1):
        study.progress(number - 1, most, f"probe {task.name} after each sentence")
        rows = np.array([i for i, row in enumerate(spans) if len(row) >= number])
        _, counts = np.unique(task.labels[rows], return_counts=True)
        if len(rows) < MIN_TEXTS or len(counts) < 2 or counts.min() < study.plan.folds:
            continue
        states = after.states(number, rows)
        shown = {layer: states[layer] for layer in layers}
        tables.append(_after(study, task, number, rows, shown))
    if tables:
        study.extend("over_time", pd.concat(tables, ignore_index=True))


class _SentenceStates:
    """States after each sentence, of a model that has read no further, whichever way it reads."""

    def __init__(self, study: Study, task: ConceptTask, spans: list[list[tuple[int, int]]]) -> None:
        self._study, self._task, self._spans = study, task, spans
        self._store: Store | None = None
        if study.model.is_causal and study.pooling(task) == "last":  # one pass holds all of them
            reading = Reading(task.reading.texts, tuple(map(tuple, spans)))
            self._store = study.read(
                reading, f"capture {task.name}, every sentence", pooling="last"
            )

    def states(self, number: int, rows: NDArray[np.int64]) -> Mapping[int, FloatArray]:
        """Layer -> states (rows, d) after sentence `number`, counted from 1."""
        if self._store is not None:
            places = np.asarray(self._store.offsets)[rows] + number - 1
            return LayerStates(self._store["exit"], (places,), lambda states: states)
        ends = {i: self._spans[i][number - 1][1] for i in rows}
        read = Reading(tuple(self._task.reading.texts[i][:end] for i, end in ends.items()))
        store = self._study.read(read, f"capture {self._task.name}, {number} sentences")
        return store["exit"]


def _after(
    study: Study, task: ConceptTask, number: int, rows: Any, states: Mapping[int, FloatArray]
) -> pd.DataFrame:
    """Curves of what can be read after sentence `number`."""
    labels = task.labels[rows]
    groups = None if task.groups is None else task.groups[rows]
    swept = cross_validate(
        RidgeProbe(),
        states,
        labels,
        study.plan.folds,
        groups=groups,
        controls=("shuffled",),
        seed=study.plan.seed,
        draws=study.plan.draws,
    )
    table: Any = swept.table[swept.table["measure"] == "accuracy"]
    counts = np.bincount(np.unique(labels, return_inverse=True)[1])
    kept: Any = table[table["variant"].isna()][["layer", "value", "low", "high", "n"]]
    return kept.assign(
        shuffled=table[table["variant"] == "shuffled"]["value"].to_numpy(),
        concept=task.name,
        sentence=number,
        chance=float(counts.max() / counts.sum()),
    )
