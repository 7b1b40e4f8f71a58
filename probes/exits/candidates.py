"""Where a model could stop: layer × width × variant, and what each such candidate scores on every example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.resample import Resamples
from probes.exits.tasks import Task

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Candidate:
    """Stop after `layer` blocks and keep the first `dim` coordinates of `variant` (None: the states as they are)."""

    variant: str | None
    layer: int
    dim: int

    @property
    def name(self) -> str:
        """Its column in tables.

        >>> Candidate("translated", 3, 64).name
        'translated:3x64'
        """
        return f"{self.variant or 'raw'}:{self.layer}x{self.dim}"

    @property
    def cost(self) -> tuple[int, int]:
        """Order of cost: fewer blocks first, then fewer coordinates. Blocks nest, so this order needs no stopwatch."""
        return self.layer, self.dim


@dataclass(frozen=True)
class CandidateScores:
    """Scores of the primary measure per example: `scores[c, i]` belongs to `candidates[c]` and example i of `task`.

    What a score is depends on the task: the cosine of a pair, nDCG@10 of a query, 1 for a text classified rightly.
    """

    task: Task
    candidates: tuple[Candidate, ...]
    scores: Array  # (candidates, n)
    full: Candidate

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.candidates), len(self.task)):
            raise InputError(
                f"scores have shape {self.scores.shape}, ({len(self.candidates)}, {len(self.task)}) is needed"
            )
        if self.full not in self.candidates:
            raise InputError(f"the full model {self.full.name} is not among the candidates")

    def of(self, wanted: list[Candidate]) -> Array:
        """Rows of the wanted candidates: (wanted, n)."""
        place = {candidate: index for index, candidate in enumerate(self.candidates)}
        return self.scores[[place[candidate] for candidate in wanted]]

    def quality(self, wanted: list[Candidate], rows: IntArray) -> Array:
        """The primary measure of the wanted candidates over the examples `rows`: (wanted,)."""
        return self.task.estimate(self.task.primary, self.of(wanted), rows)

    def draws(self, wanted: list[Candidate], rows: IntArray, resamples: Resamples) -> Array:
        """The primary measure (wanted, draws) under every resample of the examples `rows`."""
        return self.task.draws(self.task.primary, self.of(wanted), rows, resamples)

    def losses(self, wanted: list[Candidate], rows: IntArray) -> Array:
        """Losses (wanted, rows) per example."""
        return self.task.losses(self.of(wanted), rows)
