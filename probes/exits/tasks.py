"""A dataset as index arrays: which rows of the encoded, distinct texts each example uses, and how it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import InputError
from probes.exits.classification import ClassificationTask
from probes.exits.retrieval import RetrievalTask
from probes.exits.similarity import SimilarityTask
from probes.types import Dataset, LabelledTexts, Retrieval, TextPairs

IntArray = NDArray[np.integer[Any]]
Task = SimilarityTask | RetrievalTask | ClassificationTask


def distinct_texts(texts: Sequence[str]) -> tuple[tuple[str, ...], IntArray]:
    """The different texts in order of first appearance, and for every text its row among them.

    >>> distinct_texts(["b", "a", "b"])
    (('b', 'a'), array([0, 1, 0]))
    """
    place: dict[str, int] = {}
    rows = np.asarray([place.setdefault(text, len(place)) for text in texts], dtype=np.int64)
    return tuple(place), rows


def linked(n: int, *keys: tuple[IntArray, IntArray]) -> IntArray:
    """Codes (n,) of the groups of examples that share a key, directly or through others.

    Each of `keys` is (example, key): two arrays of one length. Keys of different arrays never meet.

    >>> linked(3, (np.array([0, 1, 2]), np.array([5, 5, 7]))).tolist()
    [0, 0, 1]
    """
    examples: list[IntArray] = [np.arange(n)]
    nodes: list[IntArray] = [np.arange(n)]
    offset = n
    for example, key in keys:
        code = np.unique(key, return_inverse=True)[1]
        examples.append(example)
        nodes.append(code + offset)
        offset += int(code.max(initial=-1)) + 1
    row, column = np.concatenate(examples), np.concatenate(nodes)
    graph = sparse.coo_array((np.ones(len(row)), (row, column)), shape=(offset, offset))
    labels = sparse.csgraph.connected_components(graph, directed=False)[1]
    return np.unique(labels[:n], return_inverse=True)[1]


def _groups(groups: NDArray[Any] | None, n: int) -> list[tuple[IntArray, IntArray]]:
    if groups is None:
        return []
    return [(np.arange(n), np.unique(groups, return_inverse=True)[1])]


def make_task(dataset: Dataset) -> tuple[Task, tuple[str, ...]]:
    """The evaluation view of `dataset` and the distinct texts that have to be encoded for it, in row order.

    Examples that share a text, a relevant document or a group form one cluster: resamples draw whole clusters.
    Raises `InputError` for kinds without a quality that an exit could keep.
    """
    texts, rows = distinct_texts(dataset.all_texts())
    if isinstance(dataset, TextPairs):
        n = len(dataset)
        a, b = rows[:n], rows[n:]
        every = np.arange(n)
        shared = (np.concatenate([every, every]), np.concatenate([a, b]))
        clusters = linked(n, shared, *_groups(dataset.groups, n))
        return SimilarityTask(
            dataset.name, a, b, np.asarray(dataset.scores, dtype=np.float64), clusters
        ), texts
    if isinstance(dataset, Retrieval):
        n = len(dataset)
        queries, documents = rows[:n], rows[n:]
        relevance = dataset.relevance
        hits = (np.repeat(np.arange(n), np.diff(relevance.indptr)), documents[relevance.indices])
        clusters = linked(n, hits, (np.arange(n), queries), *_groups(dataset.groups, n))
        return RetrievalTask(dataset.name, queries, documents, relevance, clusters), texts
    if isinstance(dataset, LabelledTexts):
        n = len(dataset)
        clusters = linked(n, (np.arange(n), rows), *_groups(dataset.groups, n))
        return ClassificationTask(
            dataset.name, rows, dataset.labels, len(dataset.label_names), clusters
        ), texts
    raise InputError(
        f"dataset {dataset.name!r} holds {dataset.kind}: choosing an exit needs labelled texts, scored pairs or retrieval"
    )
