"""Learned gates: rules fitted on the fit part, which predict how good an answer is instead of reading it off.

`LayerGate` predicts the layer at once from the state at the first exit (as ECO-M2F's gate does); `LookGate` judges
every answer when it is there, from all that the other rules look at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.exits.dynamic.looks import Look, row_cosines
from probes.exits.recipe import Linear

Array = NDArray[np.floating[Any]]

FEWEST = 20  # inputs to fit a gate on


@dataclass(frozen=True, eq=False)
class LayerGate:
    """Predicted goodness at every exit but the last, from the state at the first: `map` (d, exits − 1), in order of
    `layers`. Nothing but the first state is read, so no exit on the way has to be looked at."""

    layers: tuple[int, ...]
    map: Linear
    name: str = "layer-gate"
    needs_top: bool = False

    def __call__(self, look: Look) -> Array:
        column = self.layers.index(look.layer)
        return look.origin @ self.map.weight[:, column] + self.map.bias[column]

    def all_exits(self, origin: Array) -> Array:
        """The confidence at every exit but the last (exits − 1, n) from the states at the first (n, d)."""
        return self.map(origin).T


@dataclass(frozen=True, eq=False)
class LookGate:
    """Predicted goodness at every exit from the signals there (see `signals`): a map (signals, 1) per layer.

    Where there are no best answers, as for similarity, the gate was fitted without them and goes without them.
    """

    maps: Mapping[int, Linear]
    name: str = "look-gate"
    needs_top: bool = True

    def __call__(self, look: Look) -> Array:
        return self.maps[look.layer](signals(look))[:, 0]


def signals(look: Look) -> Array:
    """What can be seen of an answer (n, signals): best, margin and streak where there is a top; cosines to the look
    before, 0 at the first; the log length of the state.
    """
    zero = np.zeros(len(look.states))
    seen: list[NDArray[Any]] = []
    if look.top is not None:
        seen += [look.top.best, look.top.best - look.top.second, look.streak]
    before = look.before
    seen.append(zero if before is None else row_cosines(look.states, before.states))
    seen.append(zero if before is None else row_cosines(look.answers, before.answers))
    seen.append(np.log(np.linalg.norm(look.states, axis=1) + 1e-12))
    return np.stack(seen, axis=1).astype(np.float64)


def fit_gate(X: Array, goodness: Array) -> Linear:
    """Ridge from X (n, signals) to goodness (n, targets), λ of every target by exact leave-one-out."""
    from probes.probing import RidgeRegressionProbe

    probe = RidgeRegressionProbe().fit(X, goodness)
    weight = np.atleast_2d(np.asarray(probe.coef_)).T  # (signals, targets)
    return Linear(weight, np.atleast_1d(np.asarray(probe.intercept_)))


def fit_gates(
    layers: Sequence[int], origin: Array, seen: Sequence[Array], goodness: Array
) -> tuple[LayerGate, LookGate]:
    """Both gates. `layers` are all exits but the last; `origin` (n, d) the states at the first; `seen[e]` the signals
    and `goodness[e]` (n,) the goodness of the answer at exit e."""
    by_layer = {
        layer: fit_gate(found, target[:, None])
        for layer, found, target in zip(layers, seen, goodness, strict=True)
    }
    return LayerGate(tuple(layers), fit_gate(origin, goodness.T)), LookGate(by_layer)
