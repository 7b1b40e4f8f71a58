"""What a sweep asks: labels as concepts, groups and folds, all checked before any layer is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DataError, InputError
from probes.probing.base import Concept, IntArray, checked_groups
from probes.probing.folds import Folds, stratified_folds


def concepts_of(labels: Any, name: str | None) -> list[Concept]:
    """Labels as class codes, one concept each."""
    if isinstance(labels, Mapping):
        if not labels:
            raise InputError("labels hold no concept: at least one is needed")
        found = [concept(str(key), values) for key, values in labels.items()]
    else:
        found = [concept(name, labels)]
    lengths = {len(c.y) for c in found}
    if len(lengths) > 1:
        raise DataError(
            f"concepts of different lengths ({sorted(lengths)}): all label the same rows"
        )
    return found


def concept(name: str | None, labels: Any) -> Concept:
    """Labels (n,) of one type as class codes, classes in sorted order."""
    of = f" of {name!r}" if name else ""
    # a plain array of a list would silently turn [1, "a"] into strings
    values = np.asarray(labels, dtype=object if isinstance(labels, (list, tuple)) else None)
    if values.ndim != 1:
        raise DataError(f"labels{of} have shape {values.shape}, (n,) is needed")
    missing = pd.isna(values)
    if missing.any():
        raise DataError(
            f"label{of} of row {int(np.flatnonzero(missing)[0])} is missing: remove the row or label it"
        )
    if values.dtype == object:
        values = np.asarray(_one_type(values.tolist(), of))
    classes, codes = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            f"all {len(values)} labels{of} are {classes[0] if len(classes) else 'absent'!r}: two classes are needed"
        )
    if values.dtype.kind == "f" and not np.equal(np.mod(classes, 1), 0).all():
        raise DataError(
            f"labels{of} are real numbers: a probe needs classes (whole numbers or strings)"
        )
    return Concept(name, codes.astype(np.int64), len(classes))


def _one_type(values: list[Any], of: str) -> list[Any]:
    kinds = {
        "number" if isinstance(v, (int, float, np.number)) else type(v).__name__ for v in values
    }
    if len(kinds) > 1:
        raise DataError(
            f"labels{of} of mixed types ({', '.join(sorted(kinds))}): make them one type"
        )
    return values if kinds <= {"number", "str", "bool"} else [str(v) for v in values]


def group_codes(groups: Any, n: int) -> NDArray[Any] | None:
    values = checked_groups(groups, n)
    if values is None:
        return None
    return np.unique(values.astype(str) if values.dtype == object else values, return_inverse=True)[
        1
    ]


def cv_folds(cv: Any, concepts: list[Concept], groups: NDArray[Any] | None, seed: int) -> Folds:
    n = len(concepts[0].y)
    if isinstance(cv, (int, np.integer)):
        return stratified_folds(
            _joint_classes([c.y for c in concepts], int(cv)), groups, int(cv), seed
        )
    folds = _checked_folds(cv, n)
    if groups is not None:
        for number, (train, test) in enumerate(folds):
            if len(np.intersect1d(groups[train], groups[test])):
                raise InputError(f"fold {number} of cv trains and tests on the same group")
    return folds


def shuffled(concept: Concept, folds: Folds, rng: np.random.Generator) -> Concept:
    """Labels permuted among the rows of each test part, so that folds stay stratified."""
    y = concept.y.copy()
    for _, test in folds:
        y[test] = rng.permutation(y[test])
    return Concept(concept.name, y, concept.n_classes, "shuffled")


def check_training(concepts: list[Concept], folds: Folds) -> None:
    for concept in concepts:
        for number, (train, _) in enumerate(folds):
            if len(np.unique(concept.y[train])) < 2:
                of = f" of {concept.name!r}" if concept.name else ""
                raise DataError(
                    f"fold {number} trains on one class{of} only: use fewer folds, or more examples of the rare class"
                )


def _joint_classes(labels: Sequence[IntArray], k: int) -> IntArray:
    """One code per row that stratifies several concepts at once.

    Concepts are joined in order as long as every combination that occurs has at least k members; so
    folds can be shared.
    """
    joint = labels[0]
    for y in labels[1:]:
        _, both = np.unique(np.stack([joint, y]), axis=1, return_inverse=True)
        if np.bincount(both).min() >= k:
            joint = both
    return joint


def _checked_folds(cv: Any, n: int) -> Folds:
    """User-given (train, test) row numbers; disjoint within a fold, and every row tested at most once."""
    folds = [(np.asarray(train), np.asarray(test)) for train, test in cv]
    if not folds:
        raise InputError(
            "cv holds no folds: give a number such as 5 or a list of (train, test) row numbers"
        )
    tested = np.zeros(n, dtype=int)
    for number, (train, test) in enumerate(folds):
        for part in (train, test):
            if part.dtype.kind not in "iu" or part.ndim != 1 or not len(part):
                raise InputError(
                    f"fold {number} of cv: row numbers (whole, 1-D, not empty) are needed"
                )
            if part.min() < 0 or part.max() >= n:
                raise InputError(f"fold {number} of cv names a row outside 0…{n - 1}")
        if len(np.intersect1d(train, test)):
            raise InputError(f"fold {number} of cv tests on rows it trains on")
        tested[test] += 1
    if tested.max() > 1:
        raise InputError(
            f"row {int(tested.argmax())} is tested in two folds of cv: once is allowed"
        )
    return folds
