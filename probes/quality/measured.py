"""Quality of every layer on labelled data at full width, with draws that all layers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.exits.grid import SITE
from probes.exits.resample import Resamples
from probes.exits.tasks import Task
from probes.linalg import check_matrix
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Quality:
    """The primary measure of a task on states: `values` (cells,), `draws` (cells, draws) under shared resamples."""

    task: Task
    values: Array
    draws: Array

    def interval(self, confidence: float = 0.95) -> tuple[Array, Array]:
        """Percentile bootstrap over clusters of examples: (cells,) each."""
        return percentile_interval(self.draws, confidence, axis=1)

    def share_of(
        self, full: Quality, confidence: float = 0.95
    ) -> tuple[float, float, float] | tuple[None, None, None]:
        """Share of the last quality in `full` that the first one here is, with its paired interval.

        Nothing where the full model's interval reaches 0: a share of nothing is no number.
        """
        if full.interval(confidence)[0][-1] <= 0:
            return None, None, None
        low, high = percentile_interval(self.draws[0] / full.draws[-1], confidence)
        return float(self.values[0] / full.values[-1]), float(low), float(high)


@dataclass(frozen=True)
class Judge:
    """How states are judged: the task, the examples that probes are fitted on, and the resamples."""

    task: Task
    fit: IntArray
    resamples: Resamples
    seed: int

    @classmethod
    def make(cls, task: Task, fit: IntArray, draws: int, seed: int) -> Judge:
        return cls(task, fit, Resamples.make(len(task), draws, seed, task.clusters), seed)

    def __call__(self, states: Mapping[int, Any]) -> Quality:
        """Of every layer of `states` (texts, d), read one at a time, in ascending order."""
        every = np.arange(len(self.task))
        values: list[Array] = []
        draws: list[Array] = []
        for layer in sorted(states):
            X = check_matrix(states[layer], f"layer {layer}")
            scores = self.task.score(X, [X.shape[1]], self.fit)[self.task.primary]
            values.append(self.task.estimate(self.task.primary, scores, every))
            draws.append(self.task.draws(self.task.primary, scores, every, self.resamples))
        return Quality(self.task, np.concatenate(values), np.concatenate(draws))

    def rows(
        self, states: Mapping[int, Any], found: Quality, pooling: str | None
    ) -> list[dict[str, Any]]:
        """The tidy rows of `found`, one per layer."""
        low, high = found.interval()
        place = {"measure": self.task.primary, "site": SITE, "dataset": self.task.name}
        size = {"n": len(self.task), "seed": self.seed, "split": "all", "pooling": pooling}
        return [
            {
                **place,
                **size,
                "layer": layer,
                "dim": int(states[layer].shape[1]),
                "value": float(found.values[at]),
                "low": float(low[at]),
                "high": float(high[at]),
            }
            for at, layer in enumerate(sorted(states))
        ]
