"""Quality of states on the user's task, and of changed states against plain ones, paired over examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.exits.material import Material
from probes.exits.resample import Resamples
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Judge:
    """A task with its parts, and one set of resamples per part that everything judged shares."""

    material: Material
    resamples: Mapping[str, Resamples]

    @classmethod
    def make(
        cls,
        material: Material,
        draws: int,
        seed: int,
        splits: tuple[str, ...] = ("calibrate", "test"),
    ) -> Judge:
        """Resamples of `splits` by clusters of examples that hang together."""
        task = material.task
        drawn = {
            name: Resamples.make(
                len(material.parts[name]), draws, seed, task.clusters[material.parts[name]]
            )
            for name in splits
        }
        return cls(material, drawn)

    @property
    def measure(self) -> str:
        """The task's primary measure."""
        return self.material.task.primary

    def scores(self, states: Array) -> Array:
        """What the primary measure is made of, per example, for states (texts, d): (1, n)."""
        task = self.material.task
        return task.score(states, [states.shape[1]], self.material.parts["fit"])[task.primary]

    def numbers(self, own: Array, plain: Array, split: str) -> dict[str, Any]:
        """quality, low, high, difference (to `plain`), difference_low, difference_high, n on a part."""
        task, rows, drawn = (
            self.material.task,
            self.material.parts[split],
            self.resamples[split],
        )
        stacked = np.concatenate([own, plain])
        value, base = task.estimate(task.primary, stacked, rows)
        draws = task.draws(task.primary, stacked, rows, drawn)
        low, high = percentile_interval(draws[0])
        lower, upper = percentile_interval(draws[0] - draws[1])
        return {
            "quality": float(value),
            "low": float(low),
            "high": float(high),
            "difference": float(value - base),
            "difference_low": float(lower),
            "difference_high": float(upper),
            "n": len(rows),
        }
