"""Concepts by name, path or list, as tasks of a bearable size."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from probes.concepts.tasks import ConceptTask, make_task
from probes.datasets import limit_dataset, load_concepts
from probes.types import TokenLabels

WORDS_PER_EXAMPLE = 4  # words of one text are cheap to read together


def load_tasks(
    spec: str, columns: Mapping[str, str] | None = None, *, limit: int | None = None, seed: int = 0
) -> tuple[ConceptTask, ...]:
    """The concepts that `spec` names (see `probes.datasets.load_concepts`), each of at most `limit` examples.

    >>> [task.name for task in load_tasks("cities,sentiment", limit=50)]
    ['cities', 'sentiment']
    """
    tasks: list[ConceptTask] = []
    for concept in load_concepts(spec, columns, seed=seed):
        data = concept.dataset
        size = limit
        if limit is not None and isinstance(data, TokenLabels):
            mean = sum(map(len, data.words)) / len(data)
            size = max(1, round(WORDS_PER_EXAMPLE * limit / mean))
        small = limit_dataset(data, size, np.random.default_rng(seed))
        tasks.append(make_task(type(concept)(concept.name, concept.family, small)))
    return tuple(tasks)
