"""Contrastive probe: two linear maps that bring two views of one thing together."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from probes.errors import EstimatorInputError, unknown_name
from probes.linalg import Standardiser, normalise_rows
from probes.probing.base import FloatArray, IntArray, checked_groups
from probes.probing.contrastive_fit import Start, Training, found_first, settled

SameClass = Literal["masked", "positive"]
HOLD_OUT = 5  # one class in five chooses the shrinkage and the number of epochs
SHRINKAGES = (0.03, 0.1, 0.3, 0.7, 1.0)
WITHOUT_CHOICE = 0.3  # shrinkage where nothing can be held out


class ContrastiveProbe(TransformerMixin, BaseEstimator):
    """Linear maps of two views A and B into one space where partners are near (symmetric InfoNCE).

    With e = normalised V_A a and f = normalised V_B b of standardised states, minimises the mean of
    −log exp(e_i·f_i / τ) / Σ_j exp(e_i·f_j / τ) and of the same with the views exchanged. The maps start
    from canonical correlations of shrunk covariances, (1 − s) Σ + s I, each direction weighted by
    √(ρ / (1 − ρ²)), which is the log ratio p(a, b) / p(a) p(b) of Gaussian views, and are trained by
    AdamW. s and the number of epochs are those of the least loss on a fifth of the classes, held out;
    then the maps are fitted again on all.

    Parameters
    ----------
    dim : dimensions of the common space, at most the views' own. temperature : τ, positive.
    shared : one map for both views, for two views by one model at one layer.
    same_class : pairs of the same class are no negatives ("masked"), or further positives ("positive").
    weight_decay : of AdamW. epochs : passes over the data at most.
    random_state : whole number that draws hold-out and batches. device : torch device.

    Attributes
    ----------
    maps_ : two (d, dim_) arrays for standardised states. dim_, shrinkage_, epochs_ : those taken.
    hold_out_loss_ (1 + epochs,) : in nats, before training and after each epoch, among batches of 1,024 pairs
    at most (so that time and memory of a fit grow linearly with n); empty where ten classes are not there
    to hold two out: then s is 0.3 and all epochs are run.

    Raises `EstimatorInputError` (a `ValueError`) for views that do not fit or bad parameters. See also
    `unseen_retrieval`, which tests whether the maps know more than the pairs they were trained on.
    Papers: van den Oord et al. 2018 (InfoNCE); Radford et al. 2021; Khosla et al. 2020 ("positive").

    >>> rng = np.random.default_rng(0)
    >>> thing = rng.normal(size=(120, 4))
    >>> A, B = thing @ rng.normal(size=(4, 10)), thing @ rng.normal(size=(4, 12))
    >>> probe = ContrastiveProbe(dim=4, epochs=5).fit(A[:80], B[:80])
    >>> probe.transform(A[80:]).shape, probe.score(A[80:], B[80:]) > 0.8
    ((40, 4), True)
    """

    n_features_in_: int

    def __init__(
        self,
        *,
        dim: int = 64,
        temperature: float = 0.1,
        shared: bool = False,
        same_class: SameClass = "masked",
        weight_decay: float = 1e-2,
        epochs: int = 20,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.dim = dim
        self.temperature = temperature
        self.shared = shared
        self.same_class = same_class
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any, classes: Any = None) -> ContrastiveProbe:
        """X (n, d), y (n, d'): the views A and B of the same n things; classes (n,), each its own if None."""
        first, second = self._views(X, y)
        n = len(first)
        self._check_parameters(first, second)
        named = checked_groups(classes, n)
        code = np.arange(n) if named is None else np.unique(named, return_inverse=True)[1]
        if len(np.unique(code)) < 2:
            raise EstimatorInputError(
                f"all {n} pairs are of one class: negatives of another are needed"
            )
        both = np.concatenate([first, second]) if self.shared else None
        self._scalers = tuple(
            Standardiser.fit(v if both is None else both) for v in (first, second)
        )
        A, B = (s.transform(v) for s, v in zip(self._scalers, (first, second), strict=True))
        self.dim_ = min(self.dim, A.shape[1], B.shape[1])
        held = _held_classes(code, self.random_state)
        self.epochs_, self.hold_out_loss_, self.shrinkage_ = (
            self.epochs,
            np.empty(0),
            WITHOUT_CHOICE,
        )
        if held.any():
            self.shrinkage_, self.hold_out_loss_ = self._choose(A, B, code, held)
            self.epochs_ = settled(self.hold_out_loss_)
        start = Start.of(A, B, self.shared).maps(self.shrinkage_, self.dim_)
        run = Training(self, A, B, code)
        self.maps_ = run.maps(start, self.epochs_, np.zeros(n, dtype=bool))[0]
        return self

    def _choose(
        self, A: FloatArray, B: FloatArray, code: IntArray, held: NDArray[np.bool_]
    ) -> tuple[float, FloatArray]:
        """The shrinkage with the least hold-out loss, and the losses when training goes on from there."""
        begin, run = Start.of(A[~held], B[~held], self.shared), Training(self, A, B, code)
        starts = {s: begin.maps(s, self.dim_) for s in SHRINKAGES}
        losses = {s: run.maps(start, 0, held)[1][0] for s, start in starts.items()}
        best = min(losses, key=losses.__getitem__)
        return best, run.maps(starts[best], self.epochs, held)[1]

    def transform(self, X: Any, view: int = 0) -> FloatArray:
        """Rows of X (n, d) of view 0 (A) or 1 (B) in the common space, (n, dim_), of length one."""
        check_is_fitted(self)
        if view not in (0, 1):
            raise EstimatorInputError(
                f"view is {view!r}: 0 (the first) or 1 (the second) is needed"
            )
        if view == 0:
            states: Any = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        else:
            states = _second_view(X)
        d = len(self.maps_[view])
        if states.shape[1] != d:
            raise EstimatorInputError(f"X has {states.shape[1]} features, view {view} had {d}")
        return normalise_rows(self._scalers[view].transform(states) @ self.maps_[view])

    def score(self, X: Any, y: Any, classes: Any = None) -> float:
        """Recall@1 among the given pairs, the mean of both directions; in [0, 1], chance 1/n without classes."""
        n = len(np.asarray(X))
        named = checked_groups(classes, n)
        code = np.arange(n) if named is None else np.unique(named, return_inverse=True)[1]
        return float(found_first(self.transform(X), self.transform(y, view=1), code).mean())

    def _views(self, X: Any, y: Any) -> tuple[FloatArray, FloatArray]:
        if y is None:
            raise EstimatorInputError(
                "requires y to be passed, but the target y is None: it is the second view"
            )
        first: Any = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        second = _second_view(y)
        if len(first) != len(second):
            raise EstimatorInputError(
                f"{len(first)} rows in the first view, {len(second)} in the second: the same are needed"
            )
        return first, second

    def _check_parameters(self, first: FloatArray, second: FloatArray) -> None:
        if self.same_class not in get_args(SameClass):
            raise unknown_name("same_class", str(self.same_class), get_args(SameClass))
        if self.dim < 1 or self.epochs < 0 or self.weight_decay < 0 or not self.temperature > 0:
            raise EstimatorInputError(
                f"dim={self.dim}, epochs={self.epochs}, weight_decay={self.weight_decay}, temperature="
                f"{self.temperature}: dim ≥ 1, epochs ≥ 0, weight_decay ≥ 0 and temperature > 0 are needed"
            )
        if self.shared and first.shape[1] != second.shape[1]:
            raise EstimatorInputError(
                f"views of {first.shape[1]} and {second.shape[1]} features cannot share a map: use shared=False"
            )


def _second_view(y: Any) -> FloatArray:
    """(n, d'); a vector is one column."""
    view: Any = check_array(y, dtype="numeric", ensure_2d=False)
    view = view if view.dtype.kind == "f" else view.astype(np.float64)
    return view[:, None] if view.ndim == 1 else view


def _held_classes(code: IntArray, seed: int) -> NDArray[np.bool_]:
    """Rows (n,) of a random fifth of the classes; none where this leaves fewer than two classes on a side."""
    classes = np.unique(code)
    size = len(classes) // HOLD_OUT
    if size < 2:
        return np.zeros(len(code), dtype=bool)
    picked = np.random.default_rng(seed).permutation(classes)[:size]
    return np.isin(code, picked)
