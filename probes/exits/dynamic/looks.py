"""What is known of some inputs at one layer: the same for arrays of a whole dataset and for a batch that is running."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Top:
    """The best and the second best score of every input, and which answer the best one is: (n,) each."""

    first: IntArray
    best: Array
    second: Array

    @classmethod
    def of(cls, scores: Array) -> Top:
        """From scores (n, answers); with one answer alone the second best is −1.

        >>> top = Top.of(np.array([[0.1, 0.7, 0.2]]))
        >>> top.first.tolist(), top.best.tolist(), top.second.tolist()
        ([1], [0.7], [0.2])
        """
        first = scores.argmax(axis=1)
        if scores.shape[1] == 1:
            return cls(first, scores[:, 0], np.full(len(scores), -1.0))
        two = np.partition(scores, -2, axis=1)[:, -2:]
        return cls(first, two[:, 1], two[:, 0])

    def take(self, rows: Any) -> Top:
        return Top(self.first[rows], self.best[rows], self.second[rows])


@dataclass(frozen=True, eq=False)
class Look:
    """One look at n inputs, at `layer`.

    Attributes:
        states: (n, d) pooled states of the site `exit`.
        answers: what the model would answer here: (n, classes) probabilities, or (n, d_out) embeddings at unit length.
        top: the best two of the classes, or of the documents of an index; None where there are neither.
        before: the look before at the same inputs; None at the first. Its own `before` is dropped.
        origin: (n, d) states at the first look.
        streak: (n,) how many looks in a row, this one included, had the same best answer.
    """

    layer: int
    states: Array
    answers: Array
    top: Top | None
    before: Look | None
    origin: Array
    streak: IntArray

    @classmethod
    def at(
        cls, layer: int, states: Array, answers: Array, top: Top | None, before: Look | None
    ) -> Look:
        """The next look after `before`, whose rows must be those of `states`."""
        streak = np.ones(len(states), dtype=np.int64)
        if before is None:
            return cls(layer, states, answers, top, None, states, streak)
        if top is not None and before.top is not None:
            streak += np.where(top.first == before.top.first, before.streak, 0)
        return cls(layer, states, answers, top, replace(before, before=None), before.origin, streak)

    def take(self, rows: Any) -> Look:
        """The same of some rows (a mask or places)."""
        return Look(
            self.layer,
            self.states[rows],
            self.answers[rows],
            None if self.top is None else self.top.take(rows),
            None if self.before is None else self.before.take(rows),
            self.origin[rows],
            self.streak[rows],
        )


def row_cosines(X: Array, Y: Array) -> Array:
    """Cosine of every row of X with the same row of Y (n,); 0 where one is a zero vector."""
    top = np.einsum("id,id->i", X, Y)
    bottom = np.sqrt(np.einsum("id,id->i", X, X) * np.einsum("id,id->i", Y, Y))
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
