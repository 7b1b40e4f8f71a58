"""What exits one by one in each kind of task, and what the task scores when every unit has taken its exit.

A unit is an example (classification), a query against documents embedded by the full model (retrieval), or a text
(similarity: both texts of a pair exit on their own).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.exits.classification import ClassificationTask, fit_scores
from probes.exits.dynamic.heads import (
    ClassHeads,
    Heads,
    SpaceHeads,
    fit_temperature,
    probabilities,
)
from probes.exits.dynamic.looks import Look, row_cosines
from probes.exits.recipe import Linear
from probes.exits.retrieval import RetrievalTask
from probes.exits.similarity import SimilarityTask
from probes.exits.tasks import Task
from probes.linalg import normalise_rows

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Embed = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Units:
    """Units of one task at the exits `layers`, the last of which is the full model.

    Attributes:
        rows: (units,) row of the encoded texts that each unit is.
        of_example: (examples, per example) the units of every example.
        table: (exits, examples) scores of the primary measure where every example is one unit; None for similarity,
            whose pairs are scored when both exits are known.
        left_out: (exits, units, classes) probabilities that stand for the heads' own where these have seen the unit.
    """

    task: Task
    layers: tuple[int, ...]
    pooled: Mapping[int, Array]
    heads: Heads
    rows: IntArray
    of_example: IntArray
    table: Array | None = None
    left_out: Array | None = None

    def answers(self, exit_: int, units: Any = slice(None)) -> Array:
        """Answers of some units at one exit."""
        if self.left_out is not None:
            return self.left_out[exit_][units]
        return self.heads.answers(self.layers[exit_], self._states(exit_)[units])

    def _states(self, exit_: int) -> Array:
        return np.asarray(self.pooled[self.layers[exit_]])[self.rows]

    def looks(self) -> Iterator[Look]:
        """The look at all units at every exit, in order."""
        look: Look | None = None
        for place, layer in enumerate(self.layers):
            answers = self.answers(place)
            look = Look.at(layer, self._states(place), answers, self.heads.top(answers), look)
            yield look

    def scores(self, places: IntArray) -> Array:
        """The task's primary scores (examples,) when unit u takes exit places[u]."""
        if self.table is not None:
            return self.table[places[self.of_example[:, 0]], np.arange(len(self.task))]
        assert isinstance(self.task, SimilarityTask)
        made: Array | None = None
        for place in np.unique(places).tolist():
            mine = np.flatnonzero(places == place)
            answers = self.answers(place, mine)
            made = np.empty((len(self.rows), answers.shape[1])) if made is None else made
            made[mine] = answers
        assert made is not None
        a, b = self.of_example.T
        return row_cosines(made[a], made[b])

    def depth(self, places: IntArray, examples: IntArray) -> Array:
        """Blocks run per example (examples,), the mean over its units."""
        blocks = np.asarray(self.layers)[places]
        return blocks[self.of_example[examples]].mean(axis=1)

    def looks_on_the_way(self, places: IntArray, most: int) -> Array:
        """Exits, up to `most`, that each example is looked at without taking them (examples,), mean over its units."""
        return np.minimum(places, most)[self.of_example].mean(axis=1)

    def goodness(self, units: IntArray) -> Array:
        """How good the answers of `units` are at every exit but the last (exits − 1, units); what gates predict.

        1 where the class is right or the last exit's is wrong too, else 0; for embeddings, the cosine to the last.
        """
        last = self.answers(len(self.layers) - 1)
        found: list[Array] = []
        for place in range(len(self.layers) - 1):
            if isinstance(self.task, ClassificationTask):
                assert self.table is not None
                found.append((self.table[place] >= self.table[-1])[units].astype(np.float64))
            else:
                found.append(row_cosines(self.answers(place, units), last[units]))
        return np.stack(found)


def make_units(
    task: Task,
    pooled: Mapping[int, Array],
    layers: Sequence[int],
    fit: IntArray,
    maps: Mapping[int, Linear],
    embed: Embed,
    labels: tuple[str, ...] = (),
) -> Units:
    """The units of `task`: probes are fitted on the examples `fit`; `maps` lead the lower layers to the full space."""
    if isinstance(task, ClassificationTask):
        return _classes(task, pooled, tuple(layers), fit, labels)
    heads = SpaceHeads(maps, embed)
    if isinstance(task, RetrievalTask):
        return _queries(task, pooled, tuple(layers), heads)
    rows, where = np.unique(np.concatenate([task.a, task.b]), return_inverse=True)
    pairs = where.reshape(2, -1).T
    return Units(task, tuple(layers), pooled, heads, rows, pairs)


def _classes(
    task: ClassificationTask,
    pooled: Mapping[int, Array],
    layers: tuple[int, ...],
    fit: IntArray,
    labels: tuple[str, ...],
) -> Units:
    probes: dict[int, Linear] = {}
    temperatures: dict[int, float] = {}
    found: list[Array] = []
    for layer in layers:
        X = np.asarray(pooled[layer])[task.rows]
        weight, bias, scores = fit_scores(X, task.labels, task.n_classes, fit, task.clusters)
        temperatures[layer] = fit_temperature(scores[fit], task.labels[fit])
        probes[layer] = Linear(weight, bias)
        found.append(probabilities(scores, temperatures[layer]))
    left_out = np.stack(found)
    table = (left_out.argmax(axis=2) == task.labels).astype(np.float64)
    every = np.arange(len(task))
    heads = ClassHeads(probes, temperatures, labels)
    return Units(task, layers, pooled, heads, task.rows, every[:, None], table, left_out)


def _queries(
    task: RetrievalTask, pooled: Mapping[int, Array], layers: tuple[int, ...], heads: SpaceHeads
) -> Units:
    """Queries exit, documents are the full model's: an index is built once and not in a hurry."""
    index = heads.answers(layers[-1], np.asarray(pooled[layers[-1]])[task.documents])
    heads = replace(heads, index=index)
    n = len(task)
    beside = replace(task, queries=np.arange(n), documents=n + np.arange(len(index)))
    table: list[Array] = []
    for layer in layers:
        asked = heads.answers(layer, np.asarray(pooled[layer])[task.queries])
        states = normalise_rows(np.concatenate([asked, index]))
        none = np.arange(0)
        table.append(beside.score(states, [states.shape[1]], none)[task.primary][0])
    every = np.arange(n)
    return Units(task, layers, pooled, heads, task.queries, every[:, None], np.stack(table))
