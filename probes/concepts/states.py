"""The states of a concept at every layer: captured once, combined for pairs, read one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.capture import capture
from probes.concepts.tasks import ConceptTask, Reading
from probes.probing.base import FloatArray

if TYPE_CHECKING:
    from probes.models import Model
    from probes.store import Store


@dataclass(frozen=True)
class Places:
    """How states are taken: pooling of a text (None: the model's own), the token of a span, the longest text."""

    pooling: str | None = None
    span_pooling: str = "last"
    max_length: int | None = None


class LayerStates(Mapping[int, FloatArray]):
    """Layer -> (n, d) states of the examples; `combine` makes one row from the captured rows of an example."""

    def __init__(
        self,
        source: Mapping[int, Any],
        views: tuple[NDArray[Any], ...],
        combine: Callable[..., FloatArray],
    ) -> None:
        self._source = source
        self._views = views
        self._combine = combine

    def __getitem__(self, layer: int) -> FloatArray:
        rows = self._source[layer]
        return self._combine(*(_taken(rows, view) for view in self._views))

    def __iter__(self) -> Iterator[int]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)


def _taken(rows: Any, view: Any) -> Any:
    """Rows by number; all of them in order without a copy."""
    whole = len(view) == len(rows) and bool(np.array_equal(view, np.arange(len(rows))))
    return rows if whole else np.asarray(rows)[view]


def compared(u: FloatArray, v: FloatArray) -> FloatArray:
    """Features of pairs, (n, 2d): |u − v| and u ⊙ v (Conneau & Kiela 2018, SentEval)."""
    return np.concatenate([np.abs(u - v), u * v], axis=1)


def capture_reading(
    model: Model,
    reading: Reading,
    places: Places,
    *,
    site: str = "exit",
    pooling: str | None = None,
    dtype: str | None = None,
    progress: Any = False,
) -> Store:
    """States of everything that is read, kept in the cache; `pooling` stands in for that of `places`."""
    own = places.pooling if reading.spans is None else places.span_pooling
    return capture(
        model,
        reading.texts,
        sites=[site],
        pooling=pooling or own,
        spans=reading.spans,
        max_length=places.max_length,
        dtype=dtype,
        cache=True,
        progress=progress,
    )


def task_states(task: ConceptTask, source: Mapping[int, Any]) -> LayerStates:
    """One row per example: the state itself, or the features of a pair."""
    combine = compared if task.kind == "pairs" else _only
    return LayerStates(source, task.views, combine)


def sides(task: ConceptTask, source: Mapping[int, Any]) -> tuple[LayerStates, LayerStates]:
    """First and second texts of pairs, apart."""
    first, second = task.views
    return LayerStates(source, (first,), _only), LayerStates(source, (second,), _only)


def _only(rows: FloatArray) -> FloatArray:
    return rows
