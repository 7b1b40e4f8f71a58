"""Quality of every layer and width before and after a training, on examples that were not trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.exits.grid import GridPlan, GridResult, layer_dim_grid
from probes.exits.resample import Resamples
from probes.exits.tasks import Task
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Progress = Callable[[int, int, str], None]
NOTHING_FITTED = np.arange(0)


@dataclass(frozen=True)
class Judge:
    """Measures on the examples of `task`, which hold none that anything was fitted on; one set of resamples for all."""

    task: Task
    plan: GridPlan
    resamples: Resamples

    @classmethod
    def make(cls, task: Task, rows: IntArray, plan: GridPlan) -> Judge:
        """For the held-out examples `rows` of `task`."""
        held = task.part(rows)
        return cls(held, plan, Resamples.make(len(held), plan.draws, plan.seed, held.clusters))

    def grid(
        self, states: Mapping[int, Array], variant: str | None, progress: Progress | None = None
    ) -> GridResult:
        """The grid of one model, its rows named `variant` and without a split."""
        found = layer_dim_grid(self.task, {None: states}, {}, NOTHING_FITTED, self.plan, progress)
        rows = [{**row, "variant": variant, "split": None} for row in found.rows]
        return replace(found, rows=rows)

    def values(self, scores: Array) -> tuple[Array, Array]:
        """The primary measure of every row of `scores` (cells, n): values (cells,), resampled (cells, draws)."""
        everything = np.arange(len(self.task))
        primary = self.task.primary
        return (
            np.asarray(self.task.estimate(primary, scores, everything)),
            np.asarray(self.task.draws(primary, scores, everything, self.resamples)),
        )

    def changes(self, before: GridResult, after: GridResult) -> list[dict[str, Any]]:
        """One row per (layer, dim) that both hold: before, after, and the change with its paired interval."""
        old = {(c.layer, c.dim): i for i, c in enumerate(before.scores.candidates)}
        new = {(c.layer, c.dim): i for i, c in enumerate(after.scores.candidates)}
        cells = sorted(set(old) & set(new))
        was, was_draws = self.values(before.scores.scores[[old[cell] for cell in cells]])
        now, now_draws = self.values(after.scores.scores[[new[cell] for cell in cells]])
        low, high = percentile_interval(now_draws - was_draws, self.plan.confidence, axis=1)
        return [
            {
                "layer": layer,
                "dim": dim,
                "before": float(was[i]),
                "after": float(now[i]),
                "change": float(now[i] - was[i]),
                "low": float(low[i]),
                "high": float(high[i]),
                "n": len(self.task),
            }
            for i, (layer, dim) in enumerate(cells)
        ]


def change_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The table `training`: against, loss, layer, dim, trained_pair, before, after, change, low, high, n."""
    order = ["against", "loss", "layer", "dim", "trained_pair"]
    order += ["before", "after", "change", "low", "high", "n"]
    return pd.DataFrame(list(rows), columns=order)
