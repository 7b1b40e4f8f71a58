"""What a sweep knows about every example: one score per layer and example, whose mean is the curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from probes.errors import DataError
from probes.probing.base import FloatArray, IntArray


@dataclass(frozen=True)
class Curve:
    """Out-of-fold scores of one concept under one condition.

    `scores` (layer, example): their mean over examples is `measure` at that layer. For `accuracy` they are 0 or 1,
    for `r2` their mean is R² and their spread that of R² (`probes.probing.regression_scores`). `rows` (example,)
    numbers of the rows of the data that were tested; `groups` (example,) codes of rows that belong together, or None;
    `chance` the level of a guess.
    """

    concept: str | None
    variant: str | None
    measure: str
    layers: tuple[int, ...]
    scores: FloatArray
    rows: IntArray
    groups: IntArray | None
    chance: float

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.layers), len(self.rows)):
            raise DataError(
                f"scores have shape {self.scores.shape}, ({len(self.layers)}, {len(self.rows)}) is needed: "
                "one row per layer, one column per example"
            )

    @property
    def values(self) -> FloatArray:
        """The curve itself, (layer,)."""
        return np.asarray(self.scores.mean(axis=1), dtype=np.float64)
