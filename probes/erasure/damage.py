"""Collateral damage: what erasing one concept does to how well the others can be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from probes.erasure.eraser import Eraser, FloatArray, random_eraser
from probes.erasure.inlp import fit_inlp
from probes.erasure.leace import LeaceFitter
from probes.errors import DataError, InputError, unknown_name
from probes.linalg import check_matrix
from probes.probing.base import Concept, IntArray, OutOfFold
from probes.probing.folds import Folds, stratified_folds
from probes.probing.layerwise import out_of_fold
from probes.probing.questions import concept, group_codes
from probes.probing.ridge import RidgeProbe
from probes.probing.scores import Resamples, quality_terms
from probes.stats import Estimate

Method = Literal["leace", "inlp", "random"]
COLUMNS = (
    "layer",
    "method",
    "rank",
    "erased",
    "measured",
    "before",
    "before_low",
    "before_high",
    "after",
    "after_low",
    "after_high",
    "majority",
    "n",
    "against",
)


@dataclass(frozen=True)
class ConceptStates:
    """A concept to erase and to measure: layer -> (n, d) states, classes (n,), and groups (n,) or None."""

    states: Mapping[int, Any]
    labels: Any
    groups: Any = None


@dataclass(frozen=True)
class DamageOptions:
    """How accuracy is measured; `shrinkage` is LEACE's, `cv` the number of folds, `draws` bootstrap samples."""

    cv: int = 5
    seed: int = 0
    confidence: float = 0.95
    draws: int = 1000
    shrinkage: float | Literal["auto"] = "auto"


def collateral(
    concepts: Mapping[str, ConceptStates],
    layers: Sequence[int] | None = None,
    *,
    methods: Sequence[Method] = ("leace", "inlp", "random"),
    probe: BaseEstimator | None = None,
    options: DamageOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Accuracy of every concept before and after every concept was erased from the states.

    Probes are always trained anew on the erased states, and judged on rows that neither they nor the eraser saw: where
    both concepts label the same rows, the eraser too is fitted on the training rows of each fold (one fitted on all
    rows makes the class means of the training part differ in the opposite sense of the test part's, and the probe
    would fall *below* the majority).

    Parameters
    ----------
    concepts : name -> its states of one model. layers : some layers, all that every concept has if None.
    methods : "random" adds, for each of the others, a random eraser of the same rank and kind.
    probe : any scikit-learn classifier, `RidgeProbe()` by default. progress : called with (erasers done, erasers).

    Returns a DataFrame with one row per layer, method, erased and measured concept: before, after and their intervals
    (bootstrap over examples, whole groups), majority (share of the largest class: what a probe that knows nothing
    reaches), n (rows measured), rank; against names the method that a random row is the control of. A concept that
    was erased is expected at the majority, the others where they were.

    Raises `InputError` or `DataError` for concepts that do not fit together.

    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(80, 4)); a, b = np.arange(80) % 2, np.arange(80) // 40
    >>> X[:, 0] += 4 * a; X[:, 1] += 4 * b
    >>> table = collateral({"a": ConceptStates({0: X}, a), "b": ConceptStates({0: X}, b)}, methods=("leace",))
    >>> (table.pivot(index="erased", columns="measured", values="after") > 0.9).to_numpy().astype(int)
    array([[0, 1],
           [1, 0]])
    """
    o = options or DamageOptions()
    for method in methods:
        if method not in get_args(Method):
            raise unknown_name("method", str(method), get_args(Method))
    if set(methods) <= {"random"}:
        raise InputError("no method: give leace, inlp or both; random is the control of these")
    numbers = _layers(concepts, layers)
    rng = np.random.default_rng(o.seed)
    asked = {name: _Asked.make(name, given, o, rng) for name, given in concepts.items()}
    ridge = RidgeProbe() if probe is None else probe
    rows: list[dict[str, Any]] = []
    done, total = 0, len(numbers) * len(asked) * len(methods)
    for layer in numbers:
        states = {name: _read(given, name, layer, asked[name]) for name, given in concepts.items()}
        _check_widths(states, layer)
        before = {name: asked[name].accuracy(states[name], ridge, None, o) for name in asked}
        for name in asked:
            fit = _Fit(states[name], asked[name], layer, o)
            for method in methods:
                for against in (
                    [m for m in methods if m != "random"] if method == "random" else [None]
                ):
                    for other in asked:
                        same = _same(states[name], states[other])
                        after = asked[other].accuracy(
                            states[other],
                            ridge,
                            fit.by_fold(method, against, asked[other].folds, same),
                            o,
                        )
                        rows.append(
                            {
                                "layer": layer,
                                "method": method,
                                "rank": fit.whole(method, against).rank,
                                "erased": name,
                                "measured": other,
                                **_columns("before", before[other]),
                                **_columns("after", after),
                                "majority": asked[other].majority,
                                "n": after.n,
                                "against": against,
                            }
                        )
                done += 1
                if progress is not None:
                    progress(done, total)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    optional = [f"{when}_{end}" for when in ("before", "after") for end in ("low", "high")]
    return frame.astype({"against": "string", **dict.fromkeys(optional, "Float64")})


@dataclass(frozen=True)
class _Asked:
    """A concept's classes, folds and resamples, the same before and after."""

    concept: Concept
    groups: NDArray[Any] | None
    folds: Folds
    resamples: Resamples

    @classmethod
    def make(
        cls, name: str, given: ConceptStates, o: DamageOptions, rng: np.random.Generator
    ) -> _Asked:
        own = concept(name, given.labels)
        groups = group_codes(given.groups, len(own.y))
        folds = stratified_folds(own.y, groups, o.cv, o.seed)
        return cls(own, groups, folds, Resamples(len(own.y), groups, o.draws, o.confidence, rng))

    @property
    def majority(self) -> float:
        return float(np.bincount(self.concept.y).max() / len(self.concept.y))

    def accuracy(
        self,
        X: FloatArray,
        probe: BaseEstimator,
        erasers: list[Eraser] | None,
        o: DamageOptions,
    ) -> Estimate:
        """Of a probe trained anew; `erasers`, one per fold or one for all, are applied first."""
        if erasers is None or len(erasers) == 1:
            cleaned = X if erasers is None else erasers[0](X)
            (result,) = out_of_fold(probe, cleaned, [self.concept], self.folds, None, self.groups)
        else:
            result = self._joined(X, probe, erasers)
        fold_of = np.zeros(len(X), dtype=np.int64)
        for number, (_, test) in enumerate(self.folds):
            fold_of[test] = number
        terms = quality_terms(self.concept, result, np.arange(len(X)), fold_of)
        accuracy = [term for term in terms if term.measure == "accuracy"]
        ((_, found),) = self.resamples.estimates(accuracy, o.seed)
        return found

    def _joined(self, X: FloatArray, probe: BaseEstimator, erasers: list[Eraser]) -> OutOfFold:
        """Each fold with its own eraser."""
        K = self.concept.n_classes
        scores = np.zeros(len(X) if K == 2 else (len(X), K))
        predicted = np.zeros(len(X), dtype=np.int64)
        for fold, eraser in zip(self.folds, erasers, strict=True):
            cleaned = eraser(X)
            (part,) = out_of_fold(probe, cleaned, [self.concept], [fold], None, self.groups)
            scores[fold[1]], predicted[fold[1]] = part.scores[fold[1]], part.predicted[fold[1]]
        return OutOfFold(scores, predicted)


class _Fit:
    """The erasers of one concept at one layer, each fitted once."""

    def __init__(self, X: FloatArray, asked: _Asked, layer: int, o: DamageOptions) -> None:
        self.X, self.asked, self.layer, self.options = X, asked, layer, o
        self._known: dict[tuple[str, str | None, bytes], Eraser] = {}

    def whole(self, method: str, against: str | None) -> Eraser:
        """Fitted on all rows."""
        return self._fitted(method, against, np.arange(len(self.X)))

    def by_fold(
        self, method: str, against: str | None, folds: Folds, same_rows: bool
    ) -> list[Eraser]:
        """One eraser for all folds, or one per fold from its training rows where rows are shared."""
        if not same_rows:
            return [self.whole(method, against)]
        return [self._fitted(method, against, train) for train, _ in folds]

    def _fitted(self, method: str, against: str | None, rows: IntArray) -> Eraser:
        key = method, against, rows.tobytes()
        if key not in self._known:
            self._known[key] = self._make(method, against, rows)
        return self._known[key]

    def _make(self, method: str, against: str | None, rows: IntArray) -> Eraser:
        own, o = self.asked, self.options
        if method == "leace":
            return self._leace(rows).eraser()
        if method == "inlp":
            groups = None if own.groups is None else own.groups[rows]
            return fit_inlp(self.X[rows], own.concept.y[rows], groups=groups, seed=o.seed)
        model = self._fitted(str(against), None, rows)
        if against == "leace":
            return self._leace(rows).random_eraser(model.rank, o.seed + self.layer)
        return random_eraser(model.d, model.rank, o.seed + self.layer, mean=model.mean)

    def _leace(self, rows: IntArray) -> LeaceFitter:
        own = self.asked.concept
        fitter = LeaceFitter(self.X.shape[1], own.n_classes, shrinkage=self.options.shrinkage)
        return fitter.update(self.X[rows], own.y[rows])


def _layers(concepts: Mapping[str, ConceptStates], layers: Sequence[int] | None) -> list[int]:
    if not concepts:
        raise InputError("no concept came: at least one is needed")
    shared = set.intersection(*(set(given.states) for given in concepts.values()))
    wanted = sorted(shared) if layers is None else [int(layer) for layer in layers]
    missing = [layer for layer in wanted if layer not in shared]
    if missing or not wanted:
        what = f"layer {missing[0]}" if missing else "a common layer"
        raise InputError(f"not every concept has {what}: all have {sorted(shared)}")
    return wanted


def _read(given: ConceptStates, name: str, layer: int, asked: _Asked) -> FloatArray:
    X = check_matrix(given.states[layer], f"layer {layer} of {name!r}")
    if len(X) != len(asked.concept.y):
        raise DataError(
            f"layer {layer} of {name!r} has {len(X)} rows but there are {len(asked.concept.y)} labels"
        )
    return X


def _check_widths(states: Mapping[str, FloatArray], layer: int) -> None:
    widths = {name: X.shape[1] for name, X in states.items()}
    if len(set(widths.values())) > 1:
        raise DataError(f"layer {layer}: states of different widths {widths}: one model is needed")


def _same(a: FloatArray, b: FloatArray) -> bool:
    return a is b or (a.shape == b.shape and bool(np.array_equal(a, b)))


def _columns(name: str, found: Estimate) -> dict[str, float | None]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
