"""All layers, folds and regularisation strengths of a probe in one call, as a tidy table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import BaseEstimator, clone

from probes.errors import DataError, InputError, unknown_name
from probes.linalg import check_matrix
from probes.probing.base import (
    BatchedProbe,
    Concept,
    FloatArray,
    OutOfFold,
    as_classes,
)
from probes.probing.folds import FoldPlan, Folds
from probes.probing.questions import (
    check_training,
    concepts_of,
    cv_folds,
    group_codes,
    shuffled,
)
from probes.probing.scores import Resamples, quality_terms
from probes.stats import Estimate
from probes.tables import tidy

CONTROLS = (
    "shuffled",
)  # control task, untrained weights and bag of words come with the concept-depth analysis
RESIDUAL_SITES = ("exit", "resid_post")  # indexed by layer; the other sites by block
INTERVAL = (
    "percentile bootstrap over examples (whole groups where given) of out-of-fold predictions, widened "
    "by Student's t and for the dependence between folds"
)


class BelowChanceWarning(UserWarning):
    """A probe is significantly worse than guessing: nearly always related examples on both sides of a split."""


@dataclass(frozen=True)
class SweepOptions:
    """What every row of the table repeats, and how intervals are drawn."""

    site: str = "exit"
    dataset: str | None = None
    pooling: str | None = None
    split: str | None = None
    confidence: float = 0.95
    draws: int = 1000
    seed: int = 0


def sweep(
    probe: BaseEstimator,
    states: Mapping[int, Any],
    labels: Any,
    cv: int | Sequence[tuple[Any, Any]] = 5,
    *,
    groups: Any = None,
    controls: Sequence[str] = (),
    seed: int = 0,
    confidence: float = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    concept: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
    draws: int = 1000,
) -> pd.DataFrame:
    """Cross-validate a probe on every layer.

    Parameters
    ----------
    probe : any scikit-learn classifier; `LinearProbe` and `RidgeProbe` solve all folds and
    strengths of a layer at once.
    states : layer -> (n, d) states; read one layer at a time, so a store's lazy mapping keeps
    memory at one layer.
    labels : (n,) classes, or a mapping from concept to labels: concepts share folds and, with
    `RidgeProbe`, the factorisation.
    cv : number of folds (stratified, `groups` never straddle them), or a list of (train, test) row
    numbers.
    controls : "shuffled" adds rows with that variant, labels permuted within folds.
    concept, dataset, site, pooling, split : written into the rows.

    Returns
    -------
    Tidy DataFrame with `accuracy`, `balanced_accuracy` and `auroc` (macro one-vs-rest for more than
    two classes, absent above 100 classes; pairs of the same fold only), each in [0, 1], up is
    better, with interval (see `probes.probing.scores`), n and seed. `attrs["chosen"]` lists the
    regularisation of every layer, concept and fold, `attrs["chance"]` the chance level of every
    concept, `attrs["notes"]` what a reader must know, `attrs["interval"]` what the interval is.

    Raises `InputError` or `DataError` for labels, groups, folds or states that do not fit,
    `NonFiniteError` for NaN in states. Warns `BelowChanceWarning` where balanced accuracy is
    significantly below chance.

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(80) % 2
    >>> noise, signal = rng.normal(size=(2, 80, 4))
    >>> signal[:, 0] += 4 * y
    >>> from probes.probing import RidgeProbe
    >>> table = sweep(RidgeProbe(), {0: noise, 1: signal}, y, cv=4)
    >>> table[table.measure == "accuracy"].set_index("layer").value > 0.8
    layer
    0    False
    1     True
    Name: value, dtype: boolean
    """
    if not isinstance(states, Mapping) or not len(states):
        raise InputError(
            "states must map layer numbers to (n, d) arrays and hold at least one layer"
        )
    for name in controls:
        if name not in CONTROLS:
            raise unknown_name("control", name, CONTROLS)
    rng = np.random.default_rng(seed)
    concepts = concepts_of(labels, concept)
    n = len(concepts[0].y)
    grouped = group_codes(groups, n)
    folds = cv_folds(cv, concepts, grouped, seed)
    if "shuffled" in controls:
        concepts += [shuffled(c, folds, rng) for c in concepts]
    check_training(concepts, folds)
    options = SweepOptions(site, dataset, pooling, split, confidence, draws, seed)
    run = _Sweep(probe, concepts, folds, grouped, options, rng)
    for layer in sorted(states):
        run.layer(layer, states[layer])
    return run.table()


@dataclass
class _Sweep:
    """The state of a sweep: everything about rows and folds once, then one layer after the other."""

    probe: BaseEstimator
    concepts: list[Concept]
    folds: Folds
    groups: NDArray[Any] | None
    options: SweepOptions
    rng: np.random.Generator
    rows: list[dict[str, Any]] = field(default_factory=list)
    attrs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.concepts[0].y)
        self.plan = FoldPlan.make([train for train, _ in self.folds], n)
        self.fold_of = np.full(n, -1)
        for number, (_, test) in enumerate(self.folds):
            self.fold_of[test] = number
        self.tested = np.flatnonzero(self.fold_of >= 0)
        own = None if self.groups is None else self.groups[self.tested]
        o = self.options
        self.resamples = Resamples(len(self.tested), own, o.draws, o.confidence, self.rng)
        self.attrs = {"interval": INTERVAL, "chosen": [], "notes": [], "chance": self._chance()}

    def _chance(self) -> list[dict[str, Any]]:
        return [
            {
                "concept": c.name,
                "accuracy": float(np.bincount(c.y).max() / len(c.y)),
                "balanced_accuracy": 1 / c.n_classes,
                "auroc": 0.5,
            }
            for c in self.concepts
            if c.variant is None
        ]

    def layer(self, layer: int, states: Any) -> None:
        """Fit and score one layer; nothing of it is kept."""
        X = check_matrix(states, f"layer {layer}")
        if len(X) != len(self.plan.order):
            raise DataError(
                f"layer {layer} has {len(X)} rows but there are {len(self.plan.order)} labels"
            )
        results = out_of_fold(self.probe, X, self.concepts, self.folds, self.plan, self.groups)
        for concept, result in zip(self.concepts, results, strict=True):
            terms = quality_terms(concept, result, self.tested, self.fold_of)
            where = "layer" if self.options.site in RESIDUAL_SITES else "block"
            place = {where: int(layer), "concept": concept.name, "variant": concept.variant}
            for measure, estimate in self.resamples.estimates(terms, self.options.seed):
                self.rows.append({"measure": measure, **place, **estimate.row()})
                if measure == "balanced_accuracy":
                    self._warn_below_chance(concept, int(layer), estimate)
            for fold, value in enumerate(result.chosen):
                self.attrs["chosen"].append({**place, "fold": fold, "value": value})

    def _warn_below_chance(self, concept: Concept, layer: int, found: Estimate) -> None:
        if concept.variant is not None or found.high is None:
            return
        chance = 1 / concept.n_classes
        # four standard errors: chance has a heavy lower tail in small samples, and a curve has many layers
        reach = 4 / float(stats.norm.ppf(0.5 + self.options.confidence / 2))
        if found.value + reach * (found.high - found.value) < chance:
            of = f" of {concept.name!r}" if concept.name else ""
            note = (
                f"layer {layer}: balanced accuracy{of} is {found.value:.3f}, significantly below chance "
                f"({chance:.3f}): related examples, such as paired true and false statements, lie in different "
                "folds; give groups"
            )
            self.attrs["notes"].append(note)
            warnings.warn(note, BelowChanceWarning, stacklevel=4)

    def table(self) -> pd.DataFrame:
        o = self.options
        common = {"site": o.site, "dataset": o.dataset, "pooling": o.pooling, "split": o.split}
        frame = tidy({**common, **row} for row in self.rows)
        frame.attrs.update(self.attrs)
        return frame


def out_of_fold(
    probe: BaseEstimator,
    X: FloatArray,
    concepts: Sequence[Concept],
    folds: Folds,
    plan: FoldPlan | None = None,
    groups: NDArray[Any] | None = None,
) -> list[OutOfFold]:
    """Predictions of one layer's states X (n, d) for rows that each fold did not train on, one result per concept."""
    plan = plan or FoldPlan.make([train for train, _ in folds], len(X))
    if isinstance(probe, BatchedProbe):
        return probe.out_of_fold(X, concepts, folds, plan, groups)
    return [_loop(probe, X, concept, folds) for concept in concepts]


def _loop(probe: BaseEstimator, X: FloatArray, concept: Concept, folds: Folds) -> OutOfFold:
    """Any scikit-learn classifier, fold after fold."""
    scores = np.zeros((len(X), concept.n_classes))
    for train, test in folds:
        copy: Any = clone(probe)
        fitted = copy.fit(X[train], concept.y[train])
        decide = getattr(fitted, "decision_function", None) or fitted.predict_proba
        found = np.asarray(decide(X[test]))
        if found.ndim == 1:
            found = np.stack([-found, found], axis=1)
        scores[test] = -np.inf
        scores[np.ix_(test, fitted.classes_)] = found
    if concept.n_classes == 2:
        scores = scores[:, 1] - scores[:, 0]
    return OutOfFold(scores, as_classes(scores))
