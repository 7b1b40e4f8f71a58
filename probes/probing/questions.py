"""What a sweep asks: labels as concepts, controls, groups and folds, all checked before any layer is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DataError, InputError, unknown_name
from probes.probing.base import Concept, IntArray, checked_groups
from probes.probing.controls import Text, checked_documents, control_task, last_word
from probes.probing.folds import Folds, stratified_folds

CONTROLS = ("shuffled", "control-task", "bag-of-words")


@dataclass(frozen=True)
class Questions:
    """What every layer is asked, and on which rows; `documents` are there if a bag of words is wanted."""

    concepts: list[Concept]
    controls: list[Concept]  # the same rows with other labels
    folds: Folds
    groups: NDArray[Any] | None
    documents: list[Text] | None
    notes: list[str]
    rng: np.random.Generator

    def everything(self) -> list[Concept]:
        """Concepts, then controls."""
        return [*self.concepts, *self.controls]

    def control_tasks(self) -> list[tuple[int, int]]:
        """Positions in `everything` of a concept and of its control task."""
        names = [concept.name for concept in self.concepts]
        return [
            (names.index(control.name), position)
            for position, control in enumerate(self.controls, start=len(names))
            if control.variant == "control-task"
        ]


def ask(
    concepts: list[Concept],
    cv: Any,
    *,
    groups: Any,
    controls: Sequence[str],
    texts: Any,
    types: Any,
    seed: int,
) -> Questions:
    """Concepts, controls and folds; see `cross_validate` for what is given."""
    n = len(concepts[0].y)
    _check_controls(controls, texts, types, concepts[0].variant)
    documents = None if texts is None else checked_documents(texts, n)
    grouped = group_codes(groups, n)
    folds = cv_folds(cv, concepts, grouped, seed)
    rng = np.random.default_rng(seed)
    others = [shuffled(c, folds, rng) for c in concepts] if "shuffled" in controls else []
    notes: list[str] = []
    if "control-task" in controls:
        kinds = _word_types(documents, types, n)
        own = np.random.default_rng([seed, 1])
        for c in concepts:
            task = control_task(c, kinds, folds, own)
            if task is None:
                notes.append(_no_control_task(c, kinds))
            else:
                others.append(task)
    check_training([*concepts, *others], folds)
    wanted = documents if "bag-of-words" in controls else None
    return Questions(concepts, others, folds, grouped, wanted, notes, rng)


def _check_controls(controls: Sequence[str], texts: Any, types: Any, variant: str | None) -> None:
    for name in controls:
        if name not in CONTROLS:
            raise unknown_name("control", name, CONTROLS)
    if controls and variant is not None:
        raise InputError(
            f"controls {', '.join(controls)} came with variant={variant!r}: rows have one variant, so run the "
            "controls in a call without it"
        )
    if "bag-of-words" in controls and texts is None:
        raise InputError("control 'bag-of-words' needs texts=, one per row")
    if "control-task" in controls and texts is None and types is None:
        raise InputError("control 'control-task' needs texts= or types=, one per row")


def _word_types(documents: list[Text] | None, types: Any, n: int) -> NDArray[Any]:
    if types is None:
        return np.asarray([last_word(text) for text in documents or ()])
    kinds = np.asarray(types).astype(str)
    if kinds.shape != (n,):
        raise InputError(f"types have shape {kinds.shape}, ({n},) is needed: one per row")
    return kinds


def _no_control_task(concept: Concept, types: NDArray[Any]) -> str:
    of = f" of {concept.name!r}" if concept.name else ""
    kinds = len(np.unique(types))
    return (
        f"no control task{of}: {len(types)} rows have {kinds} word type{'s' * (kinds != 1)}, too few to give "
        "every fold two classes; give other types="
    )


def concepts_of(labels: Any, name: str | None, variant: str | None = None) -> list[Concept]:
    """Labels as class codes, one concept each, under the condition `variant`."""
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
    return [c.under(variant) for c in found]


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
