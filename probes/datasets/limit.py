"""A smaller dataset drawn from a larger one, for quick looks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.types import (
    Dataset,
    LabelledNumbers,
    LabelledPairs,
    LabelledTexts,
    MinimalPairs,
    Retrieval,
    TextPairs,
)

SMALL = 4  # rows of a group, in the mean, up to which groups are drawn whole


def limit_dataset(dataset: Dataset, limit: int | None, rng: np.random.Generator) -> Dataset:
    """At most `limit` examples (queries of a retrieval set), drawn at random, in their old order.

    Small groups stay whole: a true statement keeps the false one that belongs to it. A retrieval set keeps the
    documents that are relevant to the queries drawn, and of the others the same share as of the queries. Returns
    `dataset` itself where it is small enough.

    >>> from probes.datasets import load_dataset
    >>> len(limit_dataset(load_dataset("cities"), 100, np.random.default_rng(0)))
    100
    """
    n = len(dataset)
    if limit is None or n <= limit:
        return dataset
    rows = _drawn(dataset.groups, n, limit, rng)
    groups = None if dataset.groups is None else dataset.groups[rows]

    def pick(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(values[i] for i in rows)

    if isinstance(dataset, (LabelledTexts, LabelledPairs, LabelledNumbers)):
        spans = None if dataset.spans is None else dataset.spans[rows]
        if isinstance(dataset, LabelledPairs):
            a, b = pick(dataset.texts_a), pick(dataset.texts_b)
            labels = dataset.labels[rows]
            return replace(dataset, texts_a=a, texts_b=b, labels=labels, groups=groups, spans=spans)
        texts = pick(dataset.texts)
        if isinstance(dataset, LabelledNumbers):
            targets = dataset.targets[rows]
            return replace(dataset, texts=texts, targets=targets, groups=groups, spans=spans)
        labels = dataset.labels[rows]
        return replace(dataset, texts=texts, labels=labels, groups=groups, spans=spans)
    if isinstance(dataset, TextPairs):
        a, b = pick(dataset.texts_a), pick(dataset.texts_b)
        return replace(dataset, texts_a=a, texts_b=b, scores=dataset.scores[rows], groups=groups)
    if isinstance(dataset, Retrieval):
        return _limit_retrieval(dataset, rows, limit / n, rng)
    if isinstance(dataset, MinimalPairs):
        return replace(dataset, good=pick(dataset.good), bad=pick(dataset.bad), groups=groups)
    words = tuple(dataset.words[i] for i in rows)
    labels = tuple(dataset.labels[i] for i in rows)
    return replace(dataset, words=words, labels=labels, groups=groups)


def _drawn(
    groups: NDArray[Any] | None, n: int, limit: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Row numbers, at most `limit`, ascending; by whole groups where these are small."""
    if groups is not None:
        codes = np.unique(groups, return_inverse=True)[1]
        sizes = np.bincount(codes)
        if 1 < sizes.mean() <= SMALL:
            order = rng.permutation(len(sizes))
            taken = order[np.cumsum(sizes[order]) <= limit]
            if len(taken) > 1:
                return np.flatnonzero(np.isin(codes, taken))
    return np.sort(rng.choice(n, size=limit, replace=False))


def _limit_retrieval(
    dataset: Retrieval, rows: np.ndarray, share: float, rng: np.random.Generator
) -> Retrieval:
    relevance = dataset.relevance[rows]
    needed = np.zeros(len(dataset.documents), dtype=bool)
    needed[relevance.indices] = True
    others = np.flatnonzero(~needed)
    needed[rng.choice(others, size=round(share * len(others)), replace=False)] = True
    kept = np.flatnonzero(needed)
    return replace(
        dataset,
        queries=tuple(dataset.queries[i] for i in rows),
        documents=tuple(dataset.documents[i] for i in kept),
        relevance=relevance[:, kept],
        query_ids=tuple(dataset.query_ids[i] for i in rows),
        document_ids=tuple(dataset.document_ids[i] for i in kept),
        groups=None if dataset.groups is None else dataset.groups[rows],
    )
