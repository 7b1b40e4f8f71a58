"""What turns a pooled state into an answer at every layer: a probe's class probabilities, or an embedding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from probes.exits.dynamic.looks import Top
from probes.exits.recipe import Linear
from probes.linalg import normalise_rows

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

_BLOCK_CELLS = 2**22  # similarities to an index held at once


@dataclass(frozen=True, eq=False)
class ClassHeads:
    """A probe per layer: probabilities softmax(scores / temperature). `labels` are the names of the classes."""

    probes: Mapping[int, Linear]
    temperatures: Mapping[int, float]
    labels: tuple[str, ...] = ()

    def answers(self, layer: int, states: Array) -> Array:
        """Probabilities (n, classes) from states (n, d)."""
        return probabilities(self.probes[layer](states), self.temperatures[layer])

    def top(self, answers: Array) -> Top | None:
        return Top.of(answers)


@dataclass(frozen=True, eq=False)
class SpaceHeads:
    """A map per layer below the last into the full model's space; at the last layer the maker's head `embed`.

    `index` (documents, d_out), the full model's embeddings at unit length, is what the margin of the best hits needs.
    """

    maps: Mapping[int, Linear]
    embed: Callable[[Array], Array]
    index: Array | None = None

    def answers(self, layer: int, states: Array) -> Array:
        """Embeddings (n, d_out) at unit length from states (n, d)."""
        made = self.maps[layer](states) if layer in self.maps else self.embed(states)
        return normalise_rows(made).astype(states.dtype, copy=False)

    def top(self, answers: Array) -> Top | None:
        """The best two documents of the index by cosine; None without an index."""
        if self.index is None:
            return None
        step = max(1, _BLOCK_CELLS // len(self.index))
        parts = [
            Top.of(answers[low : low + step] @ self.index.T)
            for low in range(0, max(1, len(answers)), step)
        ]
        return Top(
            np.concatenate([part.first for part in parts]),
            np.concatenate([part.best for part in parts]),
            np.concatenate([part.second for part in parts]),
        )


Heads = ClassHeads | SpaceHeads


def probabilities(scores: Array, temperature: float) -> Array:
    """softmax(scores / temperature) along the last axis."""
    return np.asarray(special.softmax(scores / temperature, axis=1))


def fit_temperature(scores: Array, labels: IntArray) -> float:
    """The temperature in 1e-3 … 1e2 under which `labels` (n,) are likeliest, given scores (n, classes).

    Of scores of rows that the probe has not seen. Paper: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    >>> fit_temperature(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), np.array([0, 0, 1]))  # odds 2 : 1
    1.442...
    """

    def loss(log_t: float) -> float:
        logits = scores / np.exp(log_t)
        picked = logits[np.arange(len(labels)), labels]
        return float((special.logsumexp(logits, axis=1) - picked).mean())

    found: Any = optimize.minimize_scalar(
        loss, bounds=(np.log(1e-3), np.log(1e2)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))
