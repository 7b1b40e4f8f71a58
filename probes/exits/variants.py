"""States per layer in the variants that are candidates: raw, centred, translated; computed when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.exits.translate import Translator
from probes.linalg import normalise_rows

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


class LayerStates(Mapping[int, Array]):
    """A mapping layer → (texts, d) whose arrays are made from `source` by `change(layer, array)` at every read."""

    def __init__(
        self, source: Mapping[int, Array], change: Callable[[int, Array], Array], layers: list[int]
    ) -> None:
        self._source = source
        self._change = change
        self._layers = layers

    def __getitem__(self, layer: int) -> Array:
        if layer not in self._layers:
            raise KeyError(layer)
        return self._change(layer, np.asarray(self._source[layer]))

    def __iter__(self) -> Iterator[int]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def embedded(pooled: Mapping[int, Array], embed: Callable[[Array], Array]) -> LayerStates:
    """Raw candidates: the maker's head (Dense, Normalize) on every layer's pooled states, as in a cut model."""
    return LayerStates(pooled, lambda _, X: embed(X), sorted(pooled))


def centred(states: Mapping[int, Array], fit_texts: IntArray) -> LayerStates:
    """Every layer minus the mean of its rows `fit_texts`."""

    def change(_: int, X: Array) -> Array:
        return X - X[fit_texts].mean(axis=0)

    return LayerStates(states, change, sorted(states))


def translated(pooled: Mapping[int, Array], translators: Mapping[int, Translator]) -> LayerStates:
    """Every layer through its translator, at unit length, in the precision of the states."""

    def change(layer: int, X: Array) -> Array:
        return normalise_rows(translators[layer](X)).astype(X.dtype, copy=False)

    return LayerStates(pooled, change, sorted(translators))
