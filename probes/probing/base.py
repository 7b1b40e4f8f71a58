"""What all probes share: classes as codes, checked input, and the batched interface that `sweep` uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from probes.errors import EstimatorInputError
from probes.probing.folds import FoldPlan

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Concept:
    """One question asked of the states: class codes y (n,) in 0…K−1, and under which condition."""

    name: str | None
    y: IntArray
    n_classes: int
    variant: str | None = None

    def under(self, variant: str | None) -> Concept:
        """The same question under that condition."""
        return replace(self, variant=variant)

    def majority(self) -> float:
        """Share of the largest class: the accuracy of a guess."""
        return float(np.bincount(self.y).max() / len(self.y))


@dataclass(frozen=True)
class OutOfFold:
    """What a probe says about rows it was not trained on.

    `scores` (n,) for two classes (higher: the second), else (n, K); `predicted` (n,) class codes;
    `chosen` the regularisation of every fold, empty for probes that have none.
    """

    scores: FloatArray
    predicted: IntArray
    chosen: tuple[float, ...] = ()


@runtime_checkable
class BatchedProbe(Protocol):
    """A probe that fits all folds and concepts of a layer at once; `sweep` loops over the others."""

    def out_of_fold(
        self,
        X: FloatArray,
        concepts: Sequence[Concept],
        folds: Sequence[tuple[IntArray, IntArray]],
        plan: FoldPlan,
        groups: NDArray[Any] | None,
    ) -> list[OutOfFold]:
        """One result per concept for states X (n, d); rows no fold tests hold zeros."""
        ...


class Probe(ClassifierMixin, BaseEstimator):
    """Base of the probes: checked input, class codes, `decision_function` from `coef_` and `intercept_`."""

    classes_: NDArray[Any]
    coef_: FloatArray  # (1, d) for two classes, else (K, d)
    intercept_: FloatArray
    n_features_in_: int

    def _checked(self, X: Any, y: Any) -> tuple[FloatArray, IntArray]:
        """X as floats (n, d) and y as codes (n,); sets `classes_`. One class is an error."""
        found: Any = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        states, labels = found
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise EstimatorInputError(
                f"{type(self).__name__} needs samples of two classes; all {len(labels)} have the class "
                f"{self.classes_[0]!r}"
            )
        return states, codes.astype(np.int64)

    def decision_function(self, X: Any) -> FloatArray:
        """(n,) for two classes, where positive means the second; else (n, K)."""
        check_is_fitted(self)
        states: Any = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        scores = states @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of every row of X (n, d)."""
        scores = self.decision_function(X)
        return self.classes_[as_classes(scores)]


def as_classes(scores: FloatArray) -> IntArray:
    """Class codes from decision scores."""
    return (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)


def fitted(probe: BaseEstimator, X: Any, y: Any, groups: NDArray[Any] | None = None) -> Any:
    """A copy of `probe` fitted on X (n, d) and y (n,); `groups` (n,) go to probes whose `fit` takes them.

    Such a probe chooses its regularisation on rows of other groups than it is fitted on.
    """
    copy: Any = clone(probe)
    takes = groups is not None and has_fit_parameter(copy, "groups")
    return copy.fit(X, y, groups=groups) if takes else copy.fit(X, y)


def positive_values(values: Any, name: str) -> NDArray[np.float64]:
    """A grid of regularisation strengths, ascending; finite, positive, at least one."""
    grid = np.sort(np.atleast_1d(np.asarray(values, dtype=np.float64)))
    if grid.ndim != 1 or not len(grid) or not np.isfinite(grid).all() or grid[0] <= 0:
        raise EstimatorInputError(
            f"{name} is {values!r}: one or more finite positive numbers are needed"
        )
    return grid


def checked_groups(groups: Any, n: int) -> NDArray[Any] | None:
    """Groups as an array (n,), or None."""
    if groups is None:
        return None
    values = np.asarray(groups)
    if values.shape != (n,):
        raise EstimatorInputError(
            f"groups have shape {values.shape}, ({n},) is needed: one per row"
        )
    return values
