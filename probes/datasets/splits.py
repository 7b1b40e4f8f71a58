"""Folds and parts that share nothing: neither a group nor a text.

Rows that share a group, a sentence or a relevant document hang together in one *component*; components are dealt out
whole, so that what a fit has seen never helps in a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from probes.datasets.dealing import deal
from probes.errors import DataError, InputError
from probes.types import (
    Dataset,
    LabelledNumbers,
    LabelledPairs,
    LabelledTexts,
    MinimalPairs,
    Retrieval,
    TextPairs,
)

Index = NDArray[np.int64]
SMALL_PART = 50  # rows below which a part says little
LARGE_COMPONENT = 0.2  # share of all rows above which one component is worth a warning
STRATA = 4  # bins of a score that are kept in proportion
PART_NAMES = ("fit", "tune", "calibrate", "test")


@dataclass(frozen=True)
class Parts:
    """Four disjoint index arrays that cover a dataset (rows; queries of a retrieval set), ascending."""

    fit: Index
    tune: Index
    calibrate: Index
    test: Index
    warnings: tuple[str, ...] = ()

    def sizes(self) -> tuple[int, int, int, int]:
        return len(self.fit), len(self.tune), len(self.calibrate), len(self.test)


_DEALS = 100  # tried before folds are given up: nearly always the first will do


def group_folds(
    labels: Sequence[Any] | NDArray[Any],
    groups: Sequence[Any] | NDArray[Any] | None,
    k: int,
    rng: np.random.Generator,
) -> list[tuple[Index, Index]]:
    """k stratified folds as (train, test) indices; no group is on both sides of one.

    `labels` are classes (n,), real-valued scores (n,), kept in proportion by quartile, or numbers (n, t) as in
    `LabelledNumbers.targets`, whole ones too; `groups` (n,) or None.
    Raises `DataError` when a class lies in fewer than k groups, since some fold would lack it, and where the groups
    cannot be divided so that every class is among the training rows of each fold.

    >>> folds = group_folds([0, 1] * 6, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], 3, np.random.default_rng(0))
    >>> [len(test) for _, test in folds]
    [4, 4, 4]
    """
    values = np.asarray(labels)
    n = len(values)
    if k < 2:
        raise InputError(f"{k} folds: at least 2 are needed")
    if groups is not None and len(groups) != n:
        raise InputError(f"{n} labels but {len(groups)} groups: one group per row is needed")
    strata, names = _strata(values)
    component = np.unique(
        np.arange(n) if groups is None else np.asarray(groups), return_inverse=True
    )[1]
    if names is None and len(np.unique(component)) < k:
        raise DataError(
            f"{len(np.unique(component))} groups do not make {k} folds: use fewer folds"
        )
    for code, label in enumerate(names if names is not None else ()):
        found = len(np.unique(component[strata == code]))
        if found < k:
            unit = "rows" if groups is None else "groups"
            raise DataError(
                f"class {label!r} is in {found} {unit}, {k} folds need at least {k}: "
                f"use {'fewer folds' if found > 1 else 'more data'} or leave the class out"
            )
    rows = np.arange(n)
    for _ in range(_DEALS):
        part = deal(component, strata, [1 / k] * k, rng)
        folds = [(rows[part != fold], rows[part == fold]) for fold in range(k)]
        if names is None or all(len(np.unique(strata[train])) == len(names) for train, _ in folds):
            return folds
    raise DataError(
        f"{len(np.unique(component))} groups cannot be divided into {k} folds so that every class is among the rows "
        "outside each: use more groups or another number of folds"
    )


def four_parts(
    dataset: Dataset,
    rng: np.random.Generator,
    shares: tuple[float, float, float, float] = (0.4, 0.2, 0.2, 0.2),
    *,
    tie_documents: bool = True,
) -> Parts:
    """fit / tune / calibrate / test, disjoint by group and by shared text (METHODS §6).

    Pairs that repeat a sentence, equal texts, and queries that share a relevant document stay together. Components
    are dealt at random, large ones first, so that sizes come near `shares` and labels stay in proportion. What cannot
    be had is said in `warnings`; fewer than four components raise `DataError`. `tie_documents=False` lets queries of
    different parts share relevant documents (for a small collection in which all hangs together) and says so.
    """
    if len(shares) != 4 or min(shares) <= 0 or not np.isclose(sum(shares), 1):
        raise InputError(f"shares {shares}: four positive numbers that sum to 1 are needed")
    component = components(dataset, tie_documents=tie_documents)
    sizes = np.bincount(component)
    if len(sizes) < 4:
        tied = tie_documents and isinstance(dataset, Retrieval)
        raise DataError(
            f"the {len(component)} rows of {dataset.name} hang together in {len(sizes)} components (by group or "
            f"shared text{' or relevant document' if tied else ''}): four parts need at least 4; give more data"
            f" or {'use tie_documents=False' if tied else 'finer groups'}"
        )
    strata = _dataset_strata(dataset)
    part = deal(component, strata, shares, rng)
    index = [np.flatnonzero(part == p) for p in range(4)]
    warnings = _warnings(sizes, index, shares)
    if isinstance(dataset, Retrieval) and not tie_documents:
        warnings = ("queries of different parts may share relevant documents", *warnings)
    return Parts(*index, warnings=warnings)


def components(dataset: Dataset, *, tie_documents: bool = True) -> Index:
    """Component of each row (n,), numbered from 0 in order of appearance.

    Texts count as equal when they differ only in case and white space. Queries are tied by groups, equal texts
    and, with `tie_documents`, by relevant documents.
    """
    keys = list(_shared_keys(dataset, tie_documents))
    n = len(dataset)
    rows = np.concatenate([np.arange(n), *[np.asarray([r for r, _ in part]) for part in keys]])
    code: dict[tuple[str, Any], int] = {}
    links = [code.setdefault(key, len(code)) for part in keys for _, key in part]
    # A graph of rows and keys; every row also links to itself so that lone rows are counted.
    ends = np.concatenate([np.arange(n), n + np.asarray(links, dtype=np.int64)])
    size = n + len(code)
    graph = sparse.coo_array((np.ones(len(rows), dtype=np.int8), (rows, ends)), shape=(size, size))
    found = csgraph.connected_components(graph, directed=False)[1][:n]
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[inverse]


Keyed = list[tuple[int, tuple[str, Any]]]


def fold_text(text: str) -> str:
    """What equal texts have in common: the text without differences in case and white space.

    >>> fold_text("  The  Cat sat ") == fold_text("the cat SAT")
    True
    """
    return " ".join(text.split()).casefold()


def _by_text(texts: Sequence[str]) -> Keyed:
    return [(row, ("text", fold_text(text))) for row, text in enumerate(texts)]


def _shared_keys(dataset: Dataset, tie_documents: bool) -> Iterable[Keyed]:
    """What ties rows together, as (row, key) lists."""
    if dataset.groups is not None:
        yield [(row, ("group", str(group))) for row, group in enumerate(dataset.groups.tolist())]
    match dataset:
        case TextPairs() | LabelledPairs():
            yield _by_text(dataset.texts_a)
            yield _by_text(dataset.texts_b)
        case MinimalPairs():
            yield _by_text(dataset.good)
            yield _by_text(dataset.bad)
        case Retrieval():
            yield _by_text(dataset.queries)
            if tie_documents:
                folded = [fold_text(text) for text in dataset.documents]
                cells = dataset.relevance.tocoo()
                yield [
                    (int(q), ("text", folded[int(d)]))
                    for q, d in zip(cells.row, cells.col, strict=True)
                ]
        case _:
            yield _by_text(dataset.all_texts())


def _strata(values: NDArray[Any]) -> tuple[Index, list[Any] | None]:
    """Class codes and names; bins and None for real-valued labels and for numbers (n, t)."""
    if values.ndim == 2:
        return _number_strata(values), None
    if values.dtype.kind == "f" and not np.all(values == np.round(values)):
        return _bins(values), None
    names, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64), names.tolist()


def _bins(scores: NDArray[Any]) -> Index:
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, STRATA + 1)[1:-1]))
    return np.searchsorted(edges, scores, side="right").astype(np.int64)


def _number_strata(targets: NDArray[Any]) -> Index:
    """Quartiles of one number (n, 1); of more, such as latitude and longitude, the halves of the first two."""
    if targets.shape[1] == 1:
        return _bins(targets[:, 0])
    first, second = (targets[:, i] > np.median(targets[:, i]) for i in (0, 1))
    return np.unique(2 * first + second, return_inverse=True)[1].astype(np.int64)


def _dataset_strata(dataset: Dataset) -> Index:
    match dataset:
        case LabelledTexts() | LabelledPairs():
            return np.unique(dataset.labels, return_inverse=True)[1]
        case LabelledNumbers():
            return _number_strata(dataset.targets)
        case TextPairs():
            return _bins(dataset.scores)
        case _:
            return np.zeros(len(dataset), dtype=np.int64)


def _warnings(
    sizes: NDArray[Any], index: Sequence[Index], shares: Sequence[float]
) -> tuple[str, ...]:
    n = int(sizes.sum())
    found: list[str] = []
    largest = int(sizes.max())
    if largest > LARGE_COMPONENT * n:
        found.append(
            f"{largest} of {n} rows ({largest / n:.0%}) hang together by group or shared text and had "
            "to go to one part"
        )
    for name, rows, share in zip(PART_NAMES, index, shares, strict=True):
        if abs(len(rows) / n - share) > 0.05:
            found.append(
                f"the {name} part holds {len(rows) / n:.0%} of the rows instead of {share:.0%}"
            )
        if len(rows) < SMALL_PART:
            found.append(f"the {name} part has only {len(rows)} rows: intervals will be wide")
    return tuple(found)
