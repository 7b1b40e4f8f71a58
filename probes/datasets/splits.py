"""Folds and parts that share nothing: neither a group nor a text.

Rows that share a group, a sentence or a relevant document hang together in one *component*; components are dealt out
whole, so that what a fit has seen never helps in a test.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from probes.errors import DataError, InputError
from probes.types import Dataset, LabelledTexts, MinimalPairs, Retrieval, TextPairs

Index = NDArray[np.int64]
SMALL_PART = 50  # rows below which a part says little
LARGE_COMPONENT = 0.2  # share of all rows above which one component is worth a warning
STRATA = 4  # bins of a score that are kept in proportion
CLASS_WEIGHT = 4.0  # balance of classes against balance of sizes
REDRAWS = 8
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


def group_folds(
    labels: Sequence[Any] | NDArray[Any],
    groups: Sequence[Any] | NDArray[Any] | None,
    k: int,
    rng: np.random.Generator,
) -> list[tuple[Index, Index]]:
    """k stratified folds as (train, test) indices; no group is on both sides of one.

    `labels` (n,) classes, or real-valued scores (then kept in proportion by quartile); `groups` (n,) or None.
    Raises `DataError` when a class lies in fewer than k groups, since some fold would lack it.

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
    part = _deal(component, strata, [1 / k] * k, rng)
    rows = np.arange(n)
    return [(rows[part != fold], rows[part == fold]) for fold in range(k)]


def four_parts(
    dataset: Dataset,
    rng: np.random.Generator,
    shares: tuple[float, float, float, float] = (0.4, 0.2, 0.2, 0.2),
) -> Parts:
    """fit / tune / calibrate / test, disjoint by group and by shared text (METHODS §6).

    Pairs that repeat a sentence, equal texts, and queries that share a relevant document stay together. Components are
    dealt at random, large ones first, so that sizes come near `shares` and labels stay in proportion. What
    cannot be had is said in `warnings`; fewer than four components raise `DataError`.
    """
    if len(shares) != 4 or min(shares) <= 0 or not np.isclose(sum(shares), 1):
        raise InputError(f"shares {shares}: four positive numbers that sum to 1 are needed")
    component = components(dataset)
    sizes = np.bincount(component)
    if len(sizes) < 4:
        raise DataError(
            f"the {len(component)} rows of {dataset.name} hang together in {len(sizes)} components (by "
            "group or shared text): four parts need at least 4; give more data or finer groups"
        )
    strata = _dataset_strata(dataset)
    part = _deal(component, strata, shares, rng)
    index = [np.flatnonzero(part == p) for p in range(4)]
    return Parts(*index, warnings=_warnings(sizes, index, shares))


def components(dataset: Dataset) -> Index:
    """Component of each row (n,), numbered from 0 in order of appearance.

    Texts count as equal when they differ only in case and white space.
    """
    keys = list(_shared_keys(dataset))
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


def _fold_text(text: str) -> str:
    return " ".join(text.split()).casefold()


def _by_text(texts: Sequence[str]) -> Keyed:
    return [(row, ("text", _fold_text(text))) for row, text in enumerate(texts)]


def _shared_keys(dataset: Dataset) -> Iterable[Keyed]:
    """What ties rows together, as (row, key) lists."""
    if dataset.groups is not None:
        yield [(row, ("group", str(group))) for row, group in enumerate(dataset.groups.tolist())]
    match dataset:
        case TextPairs():
            yield _by_text(dataset.texts_a)
            yield _by_text(dataset.texts_b)
        case MinimalPairs():
            yield _by_text(dataset.good)
            yield _by_text(dataset.bad)
        case Retrieval():
            yield _by_text(dataset.queries)
            folded = [_fold_text(text) for text in dataset.documents]
            cells = dataset.relevance.tocoo()
            yield [
                (int(q), ("document", folded[int(d)]))
                for q, d in zip(cells.row, cells.col, strict=True)
            ]
        case _:
            yield _by_text(dataset.all_texts())


def _strata(values: NDArray[Any]) -> tuple[Index, list[Any] | None]:
    """Class codes and names; quartile bins and None for real-valued labels."""
    if values.dtype.kind == "f" and not np.all(values == np.round(values)):
        return _bins(values), None
    names, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64), names.tolist()


def _bins(scores: NDArray[Any]) -> Index:
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, STRATA + 1)[1:-1]))
    return np.searchsorted(edges, scores, side="right").astype(np.int64)


def _dataset_strata(dataset: Dataset) -> Index:
    match dataset:
        case LabelledTexts():
            return np.unique(dataset.labels, return_inverse=True)[1]
        case TextPairs():
            return _bins(dataset.scores)
        case _:
            return np.zeros(len(dataset), dtype=np.int64)


def _deal(
    component: Index, strata: Index, shares: Sequence[float], rng: np.random.Generator
) -> Index:
    """Part of each row: the best of a few random deals (fewest classes absent from a part, then balance)."""
    lists = _contents(component, strata)
    best: tuple[tuple[int, float], list[int]] | None = None
    for _ in range(REDRAWS if len(lists) < 20_000 else 1):
        part, fill, cost = _greedy(lists, shares, rng, int(strata.max()) + 1)
        absent = sum(count == 0 for row in fill for count in row)
        if best is None or (absent, cost) < best[0]:
            best = (absent, cost), part
    assert best is not None
    return np.asarray(best[1], dtype=np.int64)[component]


def _contents(component: Index, strata: Index) -> list[dict[int, int]]:
    """How many rows of each stratum every component holds."""
    lists: list[dict[int, int]] = [{} for _ in range(int(component.max()) + 1)]
    for c, s in zip(component.tolist(), strata.tolist(), strict=True):
        lists[c][s] = lists[c].get(s, 0) + 1
    return lists


def _greedy(
    lists: list[dict[int, int]], shares: Sequence[float], rng: np.random.Generator, n_strata: int
) -> tuple[list[int], list[list[int]], float]:
    """Components in random order, large first, each to the part where it costs least.

    Cost: sum over parts p of size_p²/share_p, plus the same per stratum, each relative to its total. It is least
    when everything is in proportion to the shares.
    """
    sizes = [sum(content.values()) for content in lists]
    order = sorted(rng.permutation(len(lists)).tolist(), key=lambda c: -sizes[c])
    total = sum(sizes)
    totals = [0] * n_strata
    for content in lists:
        for s, count in content.items():
            totals[s] += count
    fill = [[0] * n_strata for _ in shares]
    size = [0] * len(shares)
    part = [0] * len(lists)
    members = [0] * len(shares)
    for c in order:

        def added(p: int, c: int = c) -> float:
            m = sizes[c]
            cost = m * (2 * size[p] + m) / (total * shares[p])
            row = fill[p]
            for s, count in lists[c].items():
                cost += CLASS_WEIGHT * count * (2 * row[s] + count) / (totals[s] * shares[p])
            return cost

        p = min(range(len(shares)), key=added)
        part[c] = p
        members[p] += 1
        size[p] += sizes[c]
        for s, count in lists[c].items():
            fill[p][s] += count
    _fill_empty(part, members, sizes)
    cost = sum(size[p] ** 2 / shares[p] for p in range(len(shares))) / total**2
    return part, fill, cost


def _fill_empty(part: list[int], members: list[int], sizes: list[int]) -> None:
    """Give every empty part the smallest component of the part with the most components."""
    for p, count in enumerate(members):
        if count == 0:
            donor = max(range(len(members)), key=lambda q: members[q])
            mine = [c for c, q in enumerate(part) if q == donor]
            move = heapq.nsmallest(1, mine, key=lambda c: sizes[c])[0]
            part[move] = p
            members[p] += 1
            members[donor] -= 1


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
