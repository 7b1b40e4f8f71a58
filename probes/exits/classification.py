"""Texts with one class each: accuracy of a ridge probe at every width.

One Gram matrix per layer serves every width, because the Gram of the first m coordinates is its leading m × m
block, and one eigendecomposition per width serves every regularisation. States enter as they are (not at unit
length), standardised with the mean and spread of the fit part. The probe is fitted on the fit part. Rows of the fit
part are predicted by exact leave-one-cluster-out, so that no row is ever judged by a probe that has seen it or its
group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError, InputError
from probes.exits.resample import Resamples
from probes.linalg import Standardiser
from probes.probing.folds import clusters_by_size

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

LAMBDAS: Array = np.logspace(
    -4, 2, 13
)  # per example: the penalty is λ · n on coordinates of unit variance


@dataclass(frozen=True)
class ClassificationTask:
    """Rows of the encoded texts, their class codes, and the cluster each example belongs to."""

    kind: ClassVar[str] = "classification"
    primary: ClassVar[str] = "accuracy"
    measures: ClassVar[tuple[str, ...]] = ("accuracy", "balanced_accuracy")
    name: str
    rows: IntArray  # (n,)
    labels: IntArray  # (n,)
    n_classes: int
    clusters: IntArray  # (n,)

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: IntArray) -> ClassificationTask:
        return replace(
            self, rows=self.rows[rows], labels=self.labels[rows], clusters=self.clusters[rows]
        )

    def text_rows(self, rows: IntArray) -> IntArray:
        """Rows of the encoded texts that the examples `rows` use."""
        return np.unique(self.rows[rows])

    def score(self, states: Array, dims: Sequence[int], fit: IntArray) -> dict[str, Array]:
        """Whether every example is classified rightly, at every width: {measure: (dims, n)} of 0 and 1."""
        predicted = predict_classes(
            states[self.rows], self.labels, self.n_classes, dims, fit, self.clusters
        )
        right = (predicted == self.labels).astype(np.float64)
        return {"accuracy": right, "balanced_accuracy": right}

    def estimate(self, measure: str, scores: Array, rows: IntArray) -> Array:
        """Accuracy or balanced accuracy (mean over the classes present) over the examples `rows`: (cells,)."""
        if measure == "accuracy":
            return scores[:, rows].mean(axis=1)
        labels = self.labels[rows]
        return np.mean(
            [scores[:, rows][:, labels == c].mean(axis=1) for c in np.unique(labels)], axis=0
        )

    def draws(self, measure: str, scores: Array, rows: IntArray, resamples: Resamples) -> Array:
        """The measure (cells, draws) under every resample of `rows`."""
        if measure == "accuracy":
            return resamples.means(scores[:, rows])
        return _balanced_draws(scores[:, rows], self.labels[rows], resamples)

    def chance(self, rows: IntArray, fit: IntArray) -> Array:
        """Whether the commonest class of the fit part is right, per example (rows,)."""
        commonest = int(np.argmax(np.bincount(self.labels[fit], minlength=self.n_classes)))
        return (self.labels[rows] == commonest).astype(np.float64)

    def losses(self, scores: Array, rows: IntArray) -> Array:
        """(cells, rows): 1 where the class is wrong, else 0."""
        return 1 - scores[:, rows]


def _balanced_draws(right: Array, labels: IntArray, resamples: Resamples) -> Array:
    """Mean over the classes that occur in the draw of the share classified rightly: (cells, draws)."""
    result = np.empty((len(right), resamples.draws))
    for part, weights in resamples.chunks():
        shares = np.zeros((len(right), weights.shape[1]))
        present = np.zeros(weights.shape[1])
        for c in np.unique(labels):
            mine = labels == c
            total = weights[mine].sum(axis=0)
            shares += np.divide(
                right[:, mine] @ weights[mine], total, out=np.zeros_like(shares), where=total > 0
            )
            present += total > 0
        result[:, part] = shares / present
    return result


def predict_classes(
    X: Array,
    labels: IntArray,
    n_classes: int,
    dims: Sequence[int],
    fit: IntArray,
    clusters: IntArray,
) -> IntArray:
    """Class codes (dims, n) of all rows of X (n, d) by a ridge probe fitted on the rows `fit`, for every width.

    One-against-the-rest targets ±1, an unpenalised intercept, λ by the least leave-one-cluster-out squared error.
    Rows in `fit` get their leave-one-cluster-out prediction (the intercept is refitted, the scaling is not).
    """
    ridge = _Ridge.prepare(X, labels, n_classes, fit, clusters)
    result = np.empty((len(dims), len(X)), dtype=np.int64)
    for step, m in enumerate(dims):
        weights, left_out = ridge.solve(m)
        predicted = ridge.Z[:, :m] @ weights
        predicted[fit] = ridge.centred - left_out
        result[step] = np.argmax(predicted + ridge.level, axis=1)
    return result


def fit_probe(
    X: Array, labels: IntArray, n_classes: int, fit: IntArray, clusters: IntArray
) -> tuple[Array, Array]:
    """The probe of `predict_classes` at full width as one linear map of X (n, d): weight (d, classes), bias (classes,).

    >>> X, labels = np.array([[0.0], [1], [4], [5]]), np.array([0, 0, 1, 1])
    >>> weight, bias = fit_probe(X, labels, 2, np.arange(4), np.arange(4))
    >>> (X @ weight + bias).argmax(axis=1).tolist()
    [0, 0, 1, 1]
    """
    return fit_scores(X, labels, n_classes, fit, clusters)[:2]


def fit_scores(
    X: Array, labels: IntArray, n_classes: int, fit: IntArray, clusters: IntArray
) -> tuple[Array, Array, Array]:
    """Weight and bias of `fit_probe`, and the scores (n, classes) of all rows: those in `fit` as if left out."""
    ridge = _Ridge.prepare(X, labels, n_classes, fit, clusters)
    weights, left_out = ridge.solve(X.shape[1])
    scores = ridge.Z @ weights
    scores[fit] = ridge.centred - left_out
    weight = ridge.scaling.inverse_scale[:, None] * weights
    return weight, ridge.level - ridge.scaling.mean @ weight, scores + ridge.level


@dataclass(frozen=True)
class _Ridge:
    """The parts of the fit that all widths share: standardised states, targets, and their products."""

    scaling: Standardiser
    Z: Array  # (n, d)
    design: Array  # (fit, d)
    level: Array  # (classes,)
    centred: Array  # (fit, classes)
    gram: Array  # (d, d)
    cross: Array  # (d, classes)
    groups: Sequence[IntArray]

    @classmethod
    def prepare(
        cls, X: Array, labels: IntArray, n_classes: int, fit: IntArray, clusters: IntArray
    ) -> _Ridge:
        if len(np.unique(labels[fit])) < 2:
            raise DataError(
                f"the fit part ({len(fit)} texts) holds one class only: more labelled texts are needed"
            )
        scaling = Standardiser.fit(X[fit])
        Z = scaling.transform(X)
        targets = np.where(labels[fit][:, None] == np.arange(n_classes), 1.0, -1.0)
        level = targets.mean(axis=0)
        design, centred = Z[fit], targets - level
        groups = clusters_by_size(clusters[fit])
        if sum(map(len, groups)) < 2:
            raise InputError("all fit examples belong to one group: at least two groups are needed")
        gram, cross = design.T @ design, design.T @ centred
        return cls(scaling, Z, design, level, centred, gram, cross, groups)

    def solve(self, m: int) -> tuple[Array, Array]:
        """Weights (m, classes) on the first m standardised coordinates, and left-out residuals (fit, classes)."""
        values, vectors = np.linalg.eigh(self.gram[:m, :m])
        rotated = vectors.T @ self.cross[:m]  # (m, classes)
        scores = self.design[:, :m] @ vectors  # (fit, m)
        left_out, best = _left_out(
            scores, np.clip(values, 0, None), rotated, self.centred, self.groups
        )
        return vectors @ (rotated * best[:, None]), left_out


def _left_out(
    scores: Array, values: Array, rotated: Array, centred: Array, groups: Sequence[IntArray]
) -> tuple[Array, Array]:
    """Residuals of every row when its cluster is left out (fit, classes) at the best λ, and 1/(eigenvalue + λn) (m,).

    Exact for linear smoothers with hat matrix H: e_out = (I − H_gg)⁻¹ e_g for each cluster g.
    """
    n = len(scores)
    best: tuple[float, Array, Array] | None = None
    for penalty in LAMBDAS * n:
        inverse = 1.0 / (values + penalty)
        residual = centred - scores @ (rotated * inverse[:, None])
        left_out = np.empty_like(residual)
        for members in groups:
            own = scores[members]  # (clusters, size, m)
            hat = (own * inverse) @ own.transpose(0, 2, 1) + 1.0 / n  # 1/n: the intercept
            left_out[members] = np.linalg.solve(np.eye(members.shape[1]) - hat, residual[members])
        error = float((left_out**2).sum())
        if best is None or error < best[0]:
            best = error, left_out, inverse
    assert best is not None
    return best[1], best[2]
