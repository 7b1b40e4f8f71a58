"""One layer after the other: out-of-fold predictions become rows of the table and scores of the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import BaseEstimator

from probes.errors import DataError
from probes.linalg import check_matrix
from probes.probing.base import BatchedProbe, Concept, FloatArray, OutOfFold, fitted
from probes.probing.controls import as_out_of_fold, bag_of_words, place_scores
from probes.probing.curves import Curve
from probes.probing.folds import FoldPlan, Folds
from probes.probing.questions import Questions
from probes.probing.scores import Resamples, Terms, quality_terms, selectivity_terms
from probes.stats import Estimate
from probes.tables import tidy

RESIDUAL_SITES = ("exit", "resid_post")  # indexed by layer; the other sites by block
WITHOUT_SIGNAL = ("shuffled", "control-task")  # variants whose labels are random on purpose
INTERVAL = (
    "percentile bootstrap over examples (whole groups where given) of out-of-fold predictions, widened "
    "by Student's t and for the dependence between folds"
)


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

    def columns(self) -> dict[str, str | None]:
        """Where the rows belong."""
        return {
            "site": self.site,
            "dataset": self.dataset,
            "pooling": self.pooling,
            "split": self.split,
        }


@dataclass
class Layerwise:
    """The state of a sweep: everything about rows and folds once, then what each layer gave."""

    probe: BaseEstimator
    questions: Questions
    options: SweepOptions
    rows: list[dict[str, Any]] = field(default_factory=list)
    chosen: list[dict[str, Any]] = field(default_factory=list)
    below_chance: list[str] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        asked, o = self.questions, self.options
        n = len(asked.concepts[0].y)
        self.plan = FoldPlan.make([train for train, _ in asked.folds], n)
        self.fold_of = np.full(n, -1)
        for number, (_, test) in enumerate(asked.folds):
            self.fold_of[test] = number
        self.tested = np.flatnonzero(self.fold_of >= 0)
        self.groups = None if asked.groups is None else asked.groups[self.tested]
        self.resamples = Resamples(len(self.tested), self.groups, o.draws, o.confidence, asked.rng)
        self.right: list[list[FloatArray]] = [[] for _ in asked.everything()]
        self.levels: list[Curve] = []

    def layer(self, layer: int, states: Any) -> None:
        """Fit and score one layer; of it only which examples were right is kept."""
        X = check_matrix(states, f"layer {layer}")
        if len(X) != len(self.plan.order):
            raise DataError(
                f"layer {layer} has {len(X)} rows but there are {len(self.plan.order)} labels"
            )
        asked = self.questions
        everything = asked.everything()
        results = out_of_fold(self.probe, X, everything, asked.folds, self.plan, asked.groups)
        place = {"layer" if self.options.site in RESIDUAL_SITES else "block": int(layer)}
        for number, (concept, result) in enumerate(zip(everything, results, strict=True)):
            self.right[number].append(self._scored(concept, result, place))
        for number, control in asked.control_tasks():
            terms = selectivity_terms(
                (everything[number], results[number]),
                (everything[control], results[control]),
                self.tested,
            )
            self._add_rows([terms], everything[number], place)
        self.layers.append(int(layer))

    def words(self) -> None:
        """The bag of words, where texts came for it: rows without a layer."""
        asked = self.questions
        if asked.documents is None:
            return
        concepts = [c.under("bag-of-words") for c in asked.concepts]
        results = bag_of_words(
            asked.documents, concepts, asked.folds, asked.groups, self.options.seed
        )
        for concept, result in zip(concepts, results, strict=True):
            right = self._scored(concept, result, {})
            self.levels.append(self._curve(concept, (0,), [right]))

    def _scored(self, concept: Concept, result: OutOfFold, place: dict[str, int]) -> FloatArray:
        """Adds the rows of one result; gives which tested examples were right, (n,) of 0 and 1."""
        terms = quality_terms(concept, result, self.tested, self.fold_of)
        for measure, estimate in self._add_rows(terms, concept, place):
            if measure == "balanced_accuracy" and concept.variant not in WITHOUT_SIGNAL:
                self._note_below_chance(concept, place, estimate)
        where = {"layer": None, **place, "concept": concept.name, "variant": concept.variant}
        self.chosen += [{**where, "fold": f, "value": v} for f, v in enumerate(result.chosen)]
        return (concept.y[self.tested] == result.predicted[self.tested]).astype(np.float64)

    def _add_rows(
        self, terms: list[Terms], concept: Concept, place: dict[str, int]
    ) -> list[tuple[str, Estimate]]:
        common = {"concept": concept.name, "variant": concept.variant, **self.options.columns()}
        found = self.resamples.estimates(terms, self.options.seed)
        self.rows += [{"measure": m, **place, **common, **e.row()} for m, e in found]
        return found

    def _note_below_chance(self, concept: Concept, place: dict[str, int], found: Estimate) -> None:
        if found.high is None:
            return
        chance = 1 / concept.n_classes
        # four standard errors: chance has a heavy lower tail in small samples, and a curve has many layers
        reach = 4 / float(stats.norm.ppf(0.5 + self.options.confidence / 2))
        if found.value + reach * (found.high - found.value) < chance:
            of = f" of {concept.name!r}" if concept.name else ""
            where = f"layer {next(iter(place.values()))}" if place else "bag of words"
            self.below_chance.append(
                f"{where}: balanced accuracy{of} is {found.value:.3f}, significantly below chance "
                f"({chance:.3f}): related examples, such as paired true and false statements, lie in different "
                "folds; give groups"
            )

    def _curve(self, concept: Concept, layers: Sequence[int], right: list[FloatArray]) -> Curve:
        return Curve(
            concept.name,
            concept.variant,
            "accuracy",
            tuple(layers),
            np.stack(right),
            self.tested,
            self.groups,
            concept.majority(),
        )

    def curves(self) -> list[Curve]:
        """Accuracy of every concept and control on every layer."""
        pairs = zip(self.questions.everything(), self.right, strict=True)
        return [self._curve(concept, self.layers, right) for concept, right in pairs]

    def table(self) -> pd.DataFrame:
        frame = tidy(self.rows)
        chance = [
            {
                "concept": c.name,
                "accuracy": c.majority(),
                "balanced_accuracy": 1 / c.n_classes,
                "auroc": 0.5,
            }
            for c in self.questions.concepts
        ]
        notes = [*self.questions.notes, *self.below_chance]
        frame.attrs.update(interval=INTERVAL, chosen=self.chosen, notes=notes, chance=chance)
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
    return [_loop(probe, X, concept, folds, groups) for concept in concepts]


def _loop(
    probe: BaseEstimator,
    X: FloatArray,
    concept: Concept,
    folds: Folds,
    groups: NDArray[Any] | None,
) -> OutOfFold:
    """Any scikit-learn classifier, fold after fold."""
    scores = np.zeros((len(X), concept.n_classes))
    for train, test in folds:
        own = None if groups is None else groups[train]
        judge = fitted(probe, X[train], concept.y[train], own)
        decide = getattr(judge, "decision_function", None) or judge.predict_proba
        place_scores(scores, test, judge.classes_, decide(X[test]))
    return as_out_of_fold(scores)
