"""A dataset as index arrays: which rows of the encoded, distinct texts each example uses, and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.datasets.splits import components
from probes.errors import InputError, unknown_name
from probes.exits.classification import ClassificationTask
from probes.exits.retrieval import RetrievalTask
from probes.exits.similarity import SimilarityTask
from probes.types import Dataset, LabelledTexts, Retrieval, TextPairs

IntArray = NDArray[np.integer[Any]]
Task = SimilarityTask | RetrievalTask | ClassificationTask


def distinct_texts(texts: Sequence[str]) -> tuple[tuple[str, ...], IntArray]:
    """The different texts, first come first, and for every text its row among them.

    >>> distinct_texts(["b", "a", "b"])
    (('b', 'a'), array([0, 1, 0]))
    """
    place: dict[str, int] = {}
    rows = np.asarray([place.setdefault(text, len(place)) for text in texts], dtype=np.int64)
    return tuple(place), rows


def make_task(
    dataset: Dataset, prompts: Mapping[str, str] | None = None
) -> tuple[Task, tuple[str, ...]]:
    """The evaluation view of `dataset` and the distinct texts that have to be encoded for it, in row order.

    `prompts` holds texts put before the queries and documents of a retrieval set (keys `query`, `document`) or before
    every text of other data (key `text`).
    Examples that share a text, a relevant document or a group form one cluster: resamples draw whole clusters.
    Raises `InputError` for kinds without a quality that an exit could keep, and for prompts that do not apply.
    """
    prompts = prompts or {}
    allowed = ("query", "document") if isinstance(dataset, Retrieval) else ("text",)
    for role in prompts:
        if role not in allowed:
            raise unknown_name(f"prompt for {dataset.kind} data", role, allowed)
    if isinstance(dataset, Retrieval):
        return _retrieval(dataset, prompts)
    before = prompts.get("text", "")
    texts, rows = distinct_texts([before + text for text in dataset.all_texts()])
    if isinstance(dataset, TextPairs):
        n = len(dataset)
        return SimilarityTask(
            dataset.name, rows[:n], rows[n:], dataset.scores, components(dataset)
        ), texts
    if isinstance(dataset, LabelledTexts):
        classes = len(dataset.label_names)
        return ClassificationTask(
            dataset.name, rows, dataset.labels, classes, components(dataset)
        ), texts
    hint = (
        "; similarity in numbers goes with score=COLUMN" if dataset.kind == "labelled-pairs" else ""
    )
    raise InputError(
        f"dataset {dataset.name!r} holds {dataset.kind}: an exit is chosen on labelled texts, scored pairs or retrieval"
        + hint
    )


def _retrieval(dataset: Retrieval, prompts: Mapping[str, str]) -> tuple[Task, tuple[str, ...]]:
    queries = [prompts.get("query", "") + text for text in dataset.queries]
    documents = [prompts.get("document", "") + text for text in dataset.documents]
    texts, rows = distinct_texts([*queries, *documents])
    n = len(dataset)
    return RetrievalTask(
        dataset.name, rows[:n], rows[n:], dataset.relevance, components(dataset)
    ), texts


def relocated(task: Task, place: IntArray) -> Task:
    """`task` with its texts found elsewhere: row i of the encoded texts is row `place[i]` of others."""
    if isinstance(task, SimilarityTask):
        return replace(task, a=place[task.a], b=place[task.b])
    if isinstance(task, RetrievalTask):
        return replace(task, queries=place[task.queries], documents=place[task.documents])
    return replace(task, rows=place[task.rows])
