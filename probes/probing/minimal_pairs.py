"""Minimal pairs: is the right text told from the wrong one by the difference of their states?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import validate_data

from probes.errors import DataError, EstimatorInputError, InputError, unknown_name
from probes.probing.base import (
    Concept,
    FloatArray,
    IntArray,
    OutOfFold,
    Probe,
    as_classes,
    checked_groups,
    fitted,
)
from probes.probing.curves import Curve
from probes.probing.folds import FoldPlan
from probes.probing.linear import LinearProbe
from probes.probing.questions import cv_folds, group_codes
from probes.probing.rows import Place, States, read_layer, shared_layers
from probes.probing.scores import Resamples, Terms, sign_inflation
from probes.probing.sweep import BelowChanceWarning, out_of_fold
from probes.stats import Estimate
from probes.tables import tidy

NIL = 1e-5  # a difference this small beside the states themselves is rounding of equal states
CONTROLS = ("shuffled",)
INTERVAL = (
    "percentile bootstrap over pairs (whole groups where given) of out-of-fold decisions, widened by "
    "Student's t and for the dependence between folds"
)


class MinimalPairProbe(Probe):
    """Which of two texts is the right one, from the difference x of their states.

    A probe is fitted on every difference and its mirror image, (x, right) and (−x, wrong), so that the
    decision w · x has no intercept and is antisymmetric: with the texts swapped the answer is swapped.
    A pair and its mirror image are never split between fitting and the choice of the regularisation.

    Parameters
    ----------
    probe : what is fitted on the mirrored differences, `LinearProbe()` if None; `RidgeProbe()` is
    quicker, `MassMeanProbe()` takes the mean difference itself.

    Attributes
    ----------
    coef_ (1, d) : w, acts on raw differences; intercept_ : 0. probe_ : the fitted probe. classes_ :
    the two classes; the second means "x is right − wrong".

    Without y every row of X is right − wrong, and `predict` gives 1 where the first text is preferred.
    Raises `EstimatorInputError` (a `ValueError`) for classes other than two. See also
    `minimal_pair_sweep`. Papers: Warstadt et al. 2020 (BLiMP); Layer-wise Minimal Pair Probing
    (arXiv 2509.15655).

    >>> rng = np.random.default_rng(0)
    >>> right = rng.normal(size=(40, 5)); wrong = right - [1, 0, 0, 0, 0] + 0.1 * rng.normal(size=(40, 5))
    >>> probe = MinimalPairProbe().fit(right - wrong)
    >>> float((probe.predict(right - wrong) == 1).mean()), float((probe.predict(wrong - right) == 1).mean())
    (1.0, 0.0)
    """

    def __init__(self, *, probe: Any = None) -> None:
        self.probe = probe

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> MinimalPairProbe:
        """X (n, d) differences; y (n,) two classes, or None where all are right − wrong; groups (n,)."""
        if y is None:
            states: Any = validate_data(self, X, dtype=[np.float64, np.float32])
            self.classes_, codes = np.arange(2), np.ones(len(states), dtype=np.int64)
        else:
            states, codes = self._checked(X, y)
            if len(self.classes_) > 2:
                raise EstimatorInputError(
                    "Only binary classification is supported. The type of the target is "
                    f"{type_of_target(y)}: a pair has two sides"
                )
        n = len(codes)
        units = checked_groups(groups, n)
        units = np.arange(n) if units is None else units
        both = np.concatenate([states, -states])
        self.probe_ = fitted(self._new(), both, _mirrored(codes), _twice(units))
        self.coef_ = self.probe_.coef_
        self.intercept_ = np.zeros(1)  # by symmetry; the solver leaves rounding
        return self

    def _new(self) -> Any:
        return LinearProbe() if self.probe is None else self.probe

    def __sklearn_tags__(self) -> Any:
        tags: Any = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.poor_score = True  # blobs off the origin are no differences
        tags.target_tags.required = False
        return tags

    def out_of_fold(
        self,
        X: FloatArray,
        concepts: Sequence[Concept],
        folds: Sequence[tuple[IntArray, IntArray]],
        plan: FoldPlan,
        groups: NDArray[Any] | None = None,
    ) -> list[OutOfFold]:
        """See `BatchedProbe`; the plan of the mirrored rows is made here."""
        n = len(X)
        units = np.arange(n) if groups is None else groups
        found = out_of_fold(
            self._new(),
            np.concatenate([X, -X]),
            [replace(c, y=_mirrored(c.y)) for c in concepts],
            [(_both(train, n), _both(test, n)) for train, test in folds],
            groups=_twice(units),
        )
        halves = [(r.scores[:n] - r.scores[n:]) / 2 for r in found]
        return [
            OutOfFold(scores, as_classes(scores), r.chosen)
            for scores, r in zip(halves, found, strict=True)
        ]


def _mirrored(y: IntArray) -> IntArray:
    return np.concatenate([y, 1 - y])


def _twice(values: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([values, values])


def _both(rows: IntArray, n: int) -> IntArray:
    return np.concatenate([rows, rows + n])


def minimal_pair_sweep(
    good_states: States,
    bad_states: States,
    *,
    probe: Any = None,
    cv: int | Sequence[tuple[Any, Any]] = 5,
    groups: Any = None,
    controls: Sequence[str] = (),
    seed: int = 0,
    confidence: float = 0.95,
    draws: int = 1000,
    site: str = "exit",
    dataset: str | None = None,
    concept: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
    variant: str | None = None,
) -> tuple[pd.DataFrame, list[Curve]]:
    """Share of pairs whose right text a probe of the layer prefers, cross-validated.

    Parameters
    ----------
    good_states, bad_states : layer -> (n, d) pooled states; row i of both belongs to pair i. Read one
    layer at a time.
    probe : a `MinimalPairProbe`, or what it shall fit (`RidgeProbe()`); None is `MinimalPairProbe()`.
    cv, groups : as in `sweep`; groups (n,) keep pairs together, such as those of one template or verb.
    controls : "shuffled" adds rows with that variant: in every pair a coin decides which text is right.
    variant : written into the rows that are not a control.

    Returns
    -------
    Tidy table with `accuracy` in [0, 1], up is better, chance 0.5, and the curves of per-pair scores:
    1 right, 0 wrong, ½ where the two states are equal (last tokens that are the same word, at layer 0).
    `attrs` as in `sweep`.

    Raises `InputError` or `DataError` for states, groups or folds that do not fit, `NonFiniteError` for
    NaN. Warns `BelowChanceWarning`. Paper: arXiv 2509.15655.

    >>> rng = np.random.default_rng(0)
    >>> bad = rng.normal(size=(60, 8)); good = bad + rng.normal(size=(60, 8)); good[:, 0] += 3
    >>> table, curves = minimal_pair_sweep({0: good}, {0: bad}, cv=3)
    >>> table.measure[0], bool(table.value[0] > 0.9), curves[0].scores.shape
    ('accuracy', True, (1, 60))
    """
    for name in controls:
        if name not in CONTROLS:
            raise unknown_name("control", name, CONTROLS)
    layers = shared_layers({"good": good_states, "bad": bad_states})
    n = len(good_states[layers[0]])
    if n < 2:
        raise DataError(f"{n} minimal pairs: at least two are needed")
    rng = np.random.default_rng(seed)
    questions = [Concept(concept, np.ones(n, dtype=np.int64), 2, variant)]
    grouped = group_codes(groups, n)
    folds = cv_folds(cv, questions, grouped, seed)
    if "shuffled" in controls:
        questions.append(Concept(concept, rng.integers(0, 2, n), 2, "shuffled"))
    fold_of = np.full(n, -1)
    for number, (_, test) in enumerate(folds):
        fold_of[test] = number
    tested = np.flatnonzero(fold_of >= 0)
    own = None if grouped is None else grouped[tested]
    resamples = Resamples(len(tested), own, draws, confidence, rng)
    judge = probe if isinstance(probe, MinimalPairProbe) else MinimalPairProbe(probe=probe)
    place = Place(site, dataset, concept, pooling, split)
    rows: list[dict[str, Any]] = []
    chosen: list[dict[str, Any]] = []
    notes: list[str] = []
    scores: list[list[FloatArray]] = [[] for _ in questions]
    for layer in layers:
        X = differences(good_states, bad_states, layer, n)
        for at, (question, result) in enumerate(
            zip(questions, _decide(judge, X, questions, folds, grouped), strict=True)
        ):
            right = _rightness(result.scores, question.y)[tested]
            term = Terms(
                "accuracy", right[:, None], np.ones((len(right), 1)), 1.0, 0.0, sign_inflation(2)
            )
            ((_, estimate),) = resamples.estimates([term], seed)
            rows.append(place.row("accuracy", layer, question.variant, estimate))
            scores[at].append(right)
            chosen += [
                {
                    "layer": layer,
                    "concept": concept,
                    "variant": question.variant,
                    "fold": f,
                    "value": v,
                }
                for f, v in enumerate(result.chosen)
            ]
            if at == 0:
                notes += _below_chance(layer, estimate, confidence)
    table = tidy(rows)
    table.attrs.update(
        interval=INTERVAL,
        chosen=chosen,
        notes=notes,
        chance=[{"concept": concept, "accuracy": 0.5}],
    )
    curves = [
        Curve(concept, q.variant, "accuracy", tuple(layers), np.stack(s), tested, own, 0.5)
        for q, s in zip(questions, scores, strict=True)
    ]
    return table, curves


def differences(good: States, bad: States, layer: int, n: int) -> FloatArray:
    """good − bad (n, d) of one layer; differences that are rounding of equal states are exactly zero."""
    a, b = read_layer(good, layer, "good", n), read_layer(bad, layer, "bad", n)
    if a.shape != b.shape:
        raise InputError(f"layer {layer}: good states are {a.shape}, bad ones {b.shape}")
    X = a - b
    size = np.maximum(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    X[np.flatnonzero(np.linalg.norm(X, axis=1) <= NIL * size)] = 0
    return X


def _decide(
    probe: MinimalPairProbe,
    X: FloatArray,
    questions: list[Concept],
    folds: Sequence[tuple[IntArray, IntArray]],
    groups: NDArray[Any] | None,
) -> list[OutOfFold]:
    """Out-of-fold decisions; exactly zero for pairs without a difference."""
    alive: NDArray[np.bool_] = np.any(X, axis=1)
    if not all(alive[train].any() for train, _ in folds):  # nothing to learn from
        return [OutOfFold(np.zeros(len(X)), np.zeros(len(X), dtype=np.int64)) for _ in questions]
    plan = FoldPlan.make([train for train, _ in folds], len(X))
    found = probe.out_of_fold(X, questions, folds, plan, groups)
    return [replace(r, scores=np.where(alive, r.scores, 0.0)) for r in found]


def _rightness(scores: FloatArray, y: IntArray) -> FloatArray:
    """1 where the sign of the score is that of the question, ½ for a score of zero."""
    return np.asarray(0.5 + 0.5 * np.sign(scores) * (2 * y - 1), dtype=np.float64)


def _below_chance(layer: int, found: Estimate, confidence: float) -> list[str]:
    """A note (and a warning) where the accuracy lies four standard errors below one half, as in `sweep`."""
    if found.high is None:
        return []
    reach = 4 / float(stats.norm.ppf(0.5 + confidence / 2))
    if found.value + reach * (found.high - found.value) >= 0.5:
        return []
    note = (
        f"layer {layer}: accuracy on minimal pairs is {found.value:.3f}, significantly below chance (0.5): "
        "pairs that contradict each other lie in different folds; give groups"
    )
    warnings.warn(note, BelowChanceWarning, stacklevel=3)
    return [note]
