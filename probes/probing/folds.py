"""Folds and inner hold-outs in which classes are spread evenly and groups never straddle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from probes.datasets.splits import group_folds
from probes.errors import EstimatorInputError, InputError

IntArray = NDArray[np.int64]
Folds = list[tuple[IntArray, IntArray]]

HOLD_OUT = 5  # one part in five chooses the regularisation


def stratified_folds(y: IntArray, groups: NDArray[Any] | None, k: int, seed: int) -> Folds:
    """`k` folds as (train, test) row numbers; the classes `y` (n,) are spread evenly, whole groups stay on one side.

    Classes with fewer rows (or groups) than folds are dealt like the largest class: not every fold
    tests them. Raises `InputError` when there are fewer rows (or groups) than folds.
    """
    units = len(y) if groups is None else len(np.unique(groups))
    if not 2 <= k <= units:
        what = "rows" if groups is None else "groups"
        raise InputError(f"cv={k} for {units} {what}: 2 to {units} folds are possible")
    strata = _without_rare(y, groups, k)
    if groups is not None:
        return group_folds(strata, groups, k, np.random.default_rng(seed))
    splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
    return [(train, test) for train, test in splitter.split(strata, strata)]


def _without_rare(y: IntArray, groups: NDArray[Any] | None, k: int) -> IntArray:
    """y with the classes that lie in fewer than k rows (or groups) joined to the largest one."""
    pairs = y if groups is None else np.unique(np.stack([y, groups]), axis=1)[0]
    count = np.bincount(pairs, minlength=int(y.max()) + 1)
    return np.where(count[y] < k, count.argmax(), y)


def clusters_by_size(groups: NDArray[Any]) -> list[IntArray]:
    """Row positions of every group in `groups` (n,), groups of one size stacked: arrays (groups, size).

    >>> [members.tolist() for members in clusters_by_size(np.array(["b", "a", "b", "c"]))]
    [[[1], [3]], [[0, 2]]]
    """
    code = np.unique(groups, return_inverse=True)[1]
    order = np.argsort(code, kind="stable")
    counts = np.bincount(code)
    starts = np.cumsum(counts) - counts
    return [order[starts[counts == size][:, None] + np.arange(size)] for size in np.unique(counts)]


def inner_hold_out(y: IntArray, groups: NDArray[Any] | None, seed: int) -> NDArray[np.bool_]:
    """Mask (n,) of the rows on which the regularisation is chosen: a stratified fifth, by whole groups.

    Every class keeps rows in the other part: a class with one member (or all in one group) is never
    held out. Raises `EstimatorInputError` when no row can be held out.
    """
    codes = None if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)
    return _hold_out(y.tobytes(), None if codes is None else codes.tobytes(), seed).copy()


@lru_cache(maxsize=256)  # a sweep asks the same for every layer
def _hold_out(y_bytes: bytes, group_bytes: bytes | None, seed: int) -> NDArray[np.bool_]:
    y = np.frombuffer(y_bytes, dtype=np.int64)
    groups = None if group_bytes is None else np.frombuffer(group_bytes, dtype=np.int64)
    held = np.zeros(len(y), dtype=bool)
    units = len(y) if groups is None else len(np.unique(groups))
    k = min(HOLD_OUT, units)
    if k >= 2:
        held[stratified_folds(y, groups, k, seed)[0][1]] = True
        _give_back_lost_classes(held, y, groups)
    if not held.any():
        raise EstimatorInputError(
            f"C cannot be chosen by a hold-out from {len(y)} samples in {units} "
            f"{'rows' if groups is None else 'groups'}: give more data or a single C"
        )
    return held


def _give_back_lost_classes(
    held: NDArray[np.bool_], y: IntArray, groups: NDArray[Any] | None
) -> None:
    """Return to the fitting part what holds the last members of a class there."""
    for lost in np.setdiff1d(y[held], y[~held]):
        rows = np.flatnonzero(held & (y == lost))[:1]
        held[rows if groups is None else np.isin(groups, groups[rows])] = False


@dataclass(frozen=True)
class FoldPlan:
    """Which rows each fold trains on, and the row order in which those parts are contiguous.

    Rows with the same membership in all folds form a *cell*; with k plain folds the cells are the k
    test parts.
    """

    train: NDArray[np.bool_]  # (fold, n), columns in `order`
    order: NDArray[np.int64]  # (n,) sorted row i is row order[i] of the caller
    bounds: NDArray[np.int64]  # (cells + 1,)
    member: NDArray[np.bool_]  # (fold, cell): is the cell trained on

    @classmethod
    def make(cls, train_rows: Sequence[NDArray[np.int64]], n: int) -> FoldPlan:
        """From the training rows of each fold, out of n rows."""
        train = np.zeros((len(train_rows), n), dtype=bool)
        for fold, rows in enumerate(train_rows):
            train[fold, rows] = True
        member, cell = np.unique(train, axis=1, return_inverse=True)
        order = np.argsort(cell, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(cell))])
        return cls(train[:, order], order, bounds, member)

    @property
    def restore(self) -> NDArray[np.int64]:
        """Index that puts sorted rows back: `sorted[..., plan.restore]`."""
        inverse = np.empty_like(self.order)
        inverse[self.order] = np.arange(len(self.order))
        return inverse

    def cells(self) -> Iterator[slice]:
        return (slice(a, b) for a, b in zip(self.bounds[:-1], self.bounds[1:], strict=True))
