"""States per layer in the variants that are candidates: raw, changed, translated, sparse codes; computed when read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.exits.translate import Inputs, LayerTranslator, Translator
from probes.linalg import normalise_rows, whitener

if TYPE_CHECKING:
    from probes.sae.csr import CSRCoder

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


def whitened(states: Mapping[int, Array], fit_texts: IntArray) -> LayerStates:
    """Every layer with equal spread in all directions, the strongest first, fitted to its rows `fit_texts`."""

    def change(_: int, X: Array) -> Array:
        mean, directions, inverse = whitener(X[fit_texts])
        return ((X - mean) @ (directions * inverse)).astype(X.dtype, copy=False)

    return LayerStates(states, change, sorted(states))


def rewritten(inputs: Inputs, fitted: Mapping[int, LayerTranslator]) -> LayerStates:
    """What the translator of every layer makes of `inputs`, at unit length."""

    def change(layer: int, _: Array) -> Array:
        return fitted[layer](inputs).astype(np.float32)

    return LayerStates(dict.fromkeys(fitted, np.empty(0)), change, sorted(fitted))


def translated(pooled: Mapping[int, Array], translators: Mapping[int, Translator]) -> LayerStates:
    """Every layer through its translator, at unit length, in the precision of the states."""

    def change(layer: int, X: Array) -> Array:
        return normalise_rows(translators[layer](X)).astype(X.dtype, copy=False)

    return LayerStates(pooled, change, sorted(translators))


def in_full_space(raw: Mapping[int, Array], moved: Mapping[int, Array]) -> LayerStates:
    """The full model's embeddings at the last layer, and at the others what translators make of their states."""
    last = max(raw)

    def change(layer: int, X: Array) -> Array:
        return X if layer == last else moved[layer]

    return LayerStates(raw, change, [*sorted(moved), last])


class CodedStates(Mapping[int, Mapping[int, Array]]):
    """Layer → active numbers k → codes (texts, features) at unit length, dense, made at every read.

    One coder per k, fitted to the full model's embeddings, serves all layers: `states` of the lower ones are
    translated, and so stand for those embeddings.
    """

    def __init__(self, states: Mapping[int, Array], coders: Mapping[int, CSRCoder]) -> None:
        self._states = states
        self._coders = coders

    def __getitem__(self, layer: int) -> Mapping[int, Array]:
        held = self._states[layer]

        def codes(k: int, _: Array) -> Array:
            return normalise_rows(self._coders[k].transform(held).toarray())

        return LayerStates(dict.fromkeys(self._coders, held), codes, sorted(self._coders))

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._states))

    def __len__(self) -> int:
        return len(self._states)
