"""Train on one data set, test on another: is it one concept, or one data set's way of showing it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from probes.errors import DataError, InputError, unknown_name
from probes.probing.base import Concept, FloatArray, IntArray, OutOfFold, as_classes, fitted
from probes.probing.folds import stratified_folds
from probes.probing.massmean import MassMeanProbe
from probes.probing.questions import concept
from probes.probing.rows import States, read_layer, shared_layers
from probes.probing.scores import Resamples, quality_terms

Measure = Literal["accuracy", "balanced_accuracy", "auroc"]
INTERVAL = (
    "percentile bootstrap over test examples (whole groups where given), given the training data; on "
    "the diagonal widened for the dependence between folds"
)


def transfer_matrix(
    states: Mapping[str, States],
    labels: Mapping[str, Any],
    *,
    groups: Mapping[str, Any] | None = None,
    probe: BaseEstimator | None = None,
    layers: Sequence[int] | None = None,
    cv: int = 5,
    measure: Measure = "accuracy",
    seed: int = 0,
    confidence: float = 0.95,
    draws: int = 1000,
) -> pd.DataFrame:
    """Quality of a probe trained on data set A and tested on data set B, for all A, B and layers.

    All cells are measured alike, so that they may be compared: rows are dealt into `cv` folds, the probe
    is fitted on the rows of A outside a fold and judges the rows of B inside it. So the diagonal is
    cross-validated, the other cells train on as many rows as it does, and a group that occurs in
    several data sets (the city of a statement and of its negation) is never on both sides. States of
    B are not centred by B's own mean: the probe is applied as it was fitted.

    Parameters
    ----------
    states : data set -> layer -> (n, d) states of one model. labels : data set -> (n,) classes, the
    same classes everywhere. groups : data set -> (n,) names; a name means the same group in all data
    sets; data sets without an entry have none.
    probe : any scikit-learn classifier; `MassMeanProbe()` if None, whose direction depends least on
    the training set. layers : some layers, all if None. cv : number of folds.
    measure : "auroc" asks for the direction only, "accuracy" for its threshold too.

    Returns
    -------
    DataFrame with train, test, layer, value in [0, 1] (up is better), low, high, n (tested rows) and
    chance (share of the test set's largest class; 1 / classes for balanced accuracy; 0.5 for AUROC).
    Off the diagonal a value far *below* chance is a finding: the direction is reversed. `low` and
    `high` are null with fewer than three groups. `attrs["interval"]` says what the interval is.

    Raises `InputError` or `DataError` for names, classes, groups or states that do not fit. See also
    `direction_agreement`. Paper: Marks & Tegmark 2023 (arXiv 2310.06824).

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> def shown(axis): return {0: rng.normal(size=(60, 4)) + 4 * y[:, None] * np.eye(4)[axis]}
    >>> found = transfer_matrix({"a": shown(0), "b": shown(0), "c": shown(1)}, dict.fromkeys("abc", y))
    >>> (found.pivot(index="train", columns="test", values="value") > 0.9).to_numpy().astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [0, 0, 1]])
    """
    if measure not in get_args(Measure):
        raise unknown_name("measure", measure, get_args(Measure))
    numbers = shared_layers(states, layers)
    sides = _sides(states, labels, dict(groups or {}), cv, seed)
    rng = np.random.default_rng(seed)
    resamples = {
        name: Resamples(len(side.concept.y), side.groups, draws, confidence, rng)
        for name, side in sides.items()
    }
    judge = MassMeanProbe() if probe is None else probe
    rows: list[dict[str, Any]] = []
    for layer in numbers:
        X = {
            name: read_layer(states[name], layer, repr(name), len(s.concept.y))
            for name, s in sides.items()
        }
        widths = {name: x.shape[1] for name, x in X.items()}
        if len(set(widths.values())) > 1:
            raise DataError(
                f"layer {layer}: states of different widths {widths}: one model is needed"
            )
        for train, side in sides.items():
            for test, result in _judged(judge, X, side, sides, train).items():
                judged = sides[test]
                everyone = np.arange(len(judged.concept.y))
                terms = quality_terms(judged.concept, result, everyone, judged.fold)
                term = {t.measure: t for t in terms}.get(measure)
                if term is None:
                    raise InputError(
                        f"{measure} of {test!r} does not exist: too many classes, or no fold tests two"
                    )
                if test != train:  # test rows train nothing, so folds are independent
                    term = replace(term, inflation=1.0)
                ((_, found),) = resamples[test].estimates([term], seed)
                place = {"train": train, "test": test, "layer": layer}
                estimate = {k: v for k, v in found.row().items() if k != "seed"}
                rows.append({**place, **estimate, "chance": judged.chance(measure)})
    frame = pd.DataFrame(rows).astype({"low": "Float64", "high": "Float64"})
    frame.attrs.update(interval=INTERVAL, measure=measure, seed=seed, folds=cv)
    return frame


@dataclass(frozen=True)
class _Side:
    """One data set: class codes, the fold that tests each row, and groups."""

    concept: Concept
    fold: IntArray  # (n,)
    groups: NDArray[Any] | None  # (n,) codes that all data sets share

    def chance(self, measure: Measure) -> float:
        if measure == "auroc":
            return 0.5
        if measure == "balanced_accuracy":
            return 1 / self.concept.n_classes
        return float(np.bincount(self.concept.y).max() / len(self.concept.y))


def _sides(
    states: Mapping[str, States],
    labels: Mapping[str, Any],
    groups: dict[str, Any],
    cv: int,
    seed: int,
) -> dict[str, _Side]:
    """Classes coded alike in all data sets, and folds that no group of any data set straddles."""
    names = list(states)
    for other, what in ((labels, "labels"), (groups, "groups")):
        extra = sorted(set(other) - set(names))
        if extra:
            raise unknown_name(f"data set of {what}", extra[0], names)
    lacking = [name for name in names if name not in labels]
    if lacking:
        raise InputError(f"data set {lacking[0]!r} has states but no labels")
    given = [np.asarray(labels[name], dtype=object).ravel().tolist() for name in names]
    joint = concept(None, [value for values in given for value in values])
    owner = np.repeat(np.arange(len(names)), [len(values) for values in given])
    for at, name in enumerate(names):
        absent = np.setdiff1d(np.arange(joint.n_classes), joint.y[owner == at])
        if len(absent):
            example = [v for values in given for v in values][int(np.argmax(joint.y == absent[0]))]
            raise DataError(
                f"data set {name!r} has no example of class {example!r}, which others have: all need the same classes"
            )
    units = _units(names, [len(values) for values in given], groups)
    strata = owner * joint.n_classes + joint.y
    fold = np.zeros(len(owner), dtype=np.int64)
    for number, (_, test) in enumerate(stratified_folds(strata, units, cv, seed)):
        fold[test] = number
    sides: dict[str, _Side] = {}
    for at, name in enumerate(names):
        own = owner == at
        question = Concept(name, joint.y[own], joint.n_classes)
        for number in range(cv):
            if len(np.unique(question.y[fold[own] != number])) < joint.n_classes:
                raise DataError(
                    f"data set {name!r}: fold {number} trains without one of the classes: use fewer folds, or "
                    "more examples (groups) of the rare class"
                )
        grouped = name in groups and units is not None
        sides[name] = _Side(
            question, fold[own], units[own] if grouped and units is not None else None
        )
    return sides


def _units(names: list[str], sizes: list[int], groups: dict[str, Any]) -> IntArray | None:
    """Codes (all rows,) of what stays on one side; rows of data sets without groups are on their own."""
    if not groups:
        return None
    keys: list[tuple[str, str]] = []
    for name, n in zip(names, sizes, strict=True):
        own = groups.get(name)
        if own is None:
            keys += [(name, str(row)) for row in range(n)]
            continue
        values = np.asarray(own)
        if values.shape != (n,):
            raise InputError(f"groups of {name!r} have shape {values.shape}, ({n},) is needed")
        keys += [("", str(value)) for value in values.tolist()]
    code = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.asarray([code[key] for key in keys], dtype=np.int64)


def _judged(
    probe: BaseEstimator,
    X: Mapping[str, FloatArray],
    side: _Side,
    sides: Mapping[str, _Side],
    train: str,
) -> dict[str, OutOfFold]:
    """What a probe fitted on `train`, fold by fold, says of the rows of all data sets."""
    K = side.concept.n_classes
    scores = {name: np.zeros((len(x),) if K == 2 else (len(x), K)) for name, x in X.items()}
    for number in range(int(side.fold.max()) + 1):
        own = side.fold != number
        units = None if side.groups is None else side.groups[own]
        judge = fitted(probe, X[train][own], side.concept.y[own], units)
        decide = getattr(judge, "decision_function", None) or judge.predict_proba
        for name, other in sides.items():
            rows = other.fold == number
            if rows.any():
                found = np.asarray(decide(X[name][rows]))
                scores[name][rows] = (
                    found[:, 1] - found[:, 0] if found.ndim > scores[name].ndim else found
                )
    return {name: OutOfFold(s, as_classes(s)) for name, s in scores.items()}
