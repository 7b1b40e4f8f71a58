"""Scalar mix: one classifier on a learnt weighted mean of all layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse
from scipy.special import expit, log_softmax, softmax
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.errors import EstimatorInputError
from probes.linalg import Standardiser
from probes.probing.base import FloatArray, IntArray, Probe, positive_values
from probes.probing.linear import DEFAULT_CS, LinearProbe
from probes.probing.rows import read_layer, shared_layers

PRIOR = (
    1e-3  # on the squared logits of the weights: makes them unique, since softmax ignores a shift
)
STEPS = 100  # of the solver, per round and side


class ScalarMixProbe(Probe):
    """Logistic regression on Σ_k s_k z_k / γ, with s = softmax(a) over layers, learnt with it.

    z_k are the states of layer k, standardised per dimension on the training rows. Without that the
    weights would say how large a layer's states are, not how much it knows: norms grow by orders of
    magnitude through the layers, and a layer of small norm needs a large weight to be heard (BERToids,
    arXiv 2109.05958). γ is the mixture's own root mean square, so that the penalty does not favour
    mixtures of few layers. Minimises Σ loss + ‖W‖² / (2C) + 10⁻³ ‖a‖² by turns over W and a; C is chosen
    by `LinearProbe`'s hold-out on the plain mean of the layers.

    Parameters
    ----------
    Cs : inverse regularisation strengths to choose from. rounds : turns at most.
    tol : relative decrease of the objective at which the turns end. random_state : draws the hold-out.

    Attributes
    ----------
    weights_ (layers,) : s, positive, sum 1. layer_share_ (layers,) : s_k σ_k / Σ s σ, σ_k the spread of
    layer k's own part of the decision: a layer with a large weight that the classifier does not use has
    a small share. layers_ : the layers' numbers. coef_ (1 or K, layers, d), intercept_ : act on raw
    states. C_, n_iter_, objective_ (turns,).

    X is (n, layers, d), or a mapping from layer to (n, d); (n, d) alone is one layer. All layers are in
    memory at once, 4 · n · layers · d bytes. Where neighbouring layers know the same, their weights are
    interchangeable: compare layers by MDL, not by weights. Raises `EstimatorInputError` (a `ValueError`)
    for fewer than two classes or other shapes. See also `LinearProbe`, `MDLProbe`. Paper: Peters et al.
    2018 (ELMo); Tenney et al. 2019.

    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(80) % 2
    >>> X = rng.normal(size=(80, 3, 5)); X[:, 1, 0] += 4 * y
    >>> probe = ScalarMixProbe(Cs=(1.0,)).fit(X, y)
    >>> int(probe.weights_.argmax()), probe.score(X, y) > 0.9
    (1, True)
    """

    def __init__(
        self,
        *,
        Cs: Sequence[float] = DEFAULT_CS,
        rounds: int = 30,
        tol: float = 1e-5,
        random_state: int = 0,
    ) -> None:
        self.Cs = Cs
        self.rounds = rounds
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> ScalarMixProbe:
        """X (n, layers, d) or mapping, y (n,) classes of any type, groups (n,) that the hold-out keeps together."""
        numbers, given = _stacked(X)
        found: Any = validate_data(
            self, given, y, dtype=[np.float64, np.float32], ensure_min_samples=2, allow_nd=True
        )
        states, labels = found
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise EstimatorInputError(
                f"ScalarMixProbe needs samples of two classes; all {len(labels)} have the class {self.classes_[0]!r}"
            )
        cube = _cube(states)
        self.layers_ = np.arange(cube.shape[1]) if numbers is None else numbers
        own = [Standardiser.fit(cube[:, k]) for k in range(cube.shape[1])]
        Z = np.stack([s.transform(cube[:, k]) for k, s in enumerate(own)]).astype(cube.dtype)
        mean = Z.mean(axis=0)
        self.C_ = self._chosen(mean, codes, groups)
        mix = _Mix(Z, codes.astype(np.int64), len(self.classes_), self.C_)
        a, W, b, self.objective_ = mix.minimise(self.rounds, self.tol)
        self.n_iter_ = len(self.objective_)
        self.weights_ = softmax(a)
        parts = mix.parts(W)  # (layers, n, c)
        spread = self.weights_ * np.sqrt(
            np.square(parts - parts.mean(axis=1, keepdims=True)).mean((1, 2))
        )
        self.layer_share_ = spread / spread.sum() if spread.sum() > 0 else self.weights_.copy()
        scale = (
            np.stack([s.inverse_scale for s in own])
            * self.weights_[:, None]
            / mix.size(self.weights_)
        )
        self.coef_ = W[:, None, :] * scale  # (c, layers, d)
        shift = np.stack([s.mean for s in own])
        self.intercept_ = b - np.einsum("ckd,kd->c", self.coef_, shift)
        return self

    def _chosen(self, mean: FloatArray, y: IntArray, groups: Any) -> float:
        """C by the hold-out of a linear probe on the plain mean of the layers (n, d)."""
        grid = positive_values(self.Cs, "Cs")
        if len(grid) == 1:
            return float(grid[0])
        probe = LinearProbe(Cs=self.Cs, random_state=self.random_state, tol=1e-4)
        return probe.fit(mean, y, groups).C_

    def decision_function(self, X: Any) -> FloatArray:
        """(n,) for two classes, where positive means the second; else (n, K)."""
        check_is_fitted(self)
        numbers, given = _stacked(X)
        if numbers is not None and not np.array_equal(numbers, self.layers_):
            raise EstimatorInputError(
                f"layers {numbers.tolist()} were given, the probe was fitted on {self.layers_.tolist()}"
            )
        states: Any = validate_data(
            self, given, dtype=[np.float64, np.float32], reset=False, allow_nd=True
        )
        cube = _cube(states)
        if cube.shape[1:] != self.coef_.shape[1:]:
            raise EstimatorInputError(
                f"X has {cube.shape[1]} layers of width {cube.shape[2]}, the probe was fitted on "
                f"{self.coef_.shape[1]} of {self.coef_.shape[2]}"
            )
        flat = cube.reshape(len(cube), -1)
        scores = flat @ self.coef_.reshape(len(self.coef_), -1).T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> FloatArray:
        """Probability of every class, (n, K), rows summing to one."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            p = expit(scores)
            return np.stack([1 - p, p], axis=1)
        return softmax(scores, axis=1)


def _stacked(X: Any) -> tuple[NDArray[np.int64] | None, Any]:
    """Numbers of the layers and states (n, layers, d) of a mapping; anything else as it is."""
    if not isinstance(X, Mapping) or sparse.issparse(X):  # a sparse matrix of keys is a mapping too
        return None, X
    layers = shared_layers({"X": X})
    n = len(X[layers[0]])
    cube = np.stack([read_layer(X, layer, "X", n) for layer in layers], axis=1)
    return np.asarray(layers), cube


def _cube(states: FloatArray) -> FloatArray:
    """(n, layers, d) from that or from (n, d)."""
    if states.ndim not in (2, 3):
        raise EstimatorInputError(f"X has shape {states.shape}: (n, layers, d) is needed")
    return states[:, None] if states.ndim == 2 else states


@dataclass(frozen=True)
class _Mix:
    """The objective. Reading all layers is what costs, so each turn reads them twice: to mix, to project."""

    Z: FloatArray  # (layers, n, d)
    y: IntArray
    classes: int
    C: float

    def minimise(
        self, rounds: int, tol: float
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """a (layers,), W (c, d), b (c,) and the objective after each turn."""
        columns = 1 if self.classes == 2 else self.classes
        layers, _, d = self.Z.shape
        a, theta = np.zeros(layers), np.zeros(columns * (d + 1))
        gram = self._gram()
        seen: list[float] = []
        for _ in range(max(1, rounds)):
            s = softmax(a)
            mixed = np.tensordot(s.astype(self.Z.dtype), self.Z, axes=1) / _size(s, gram)
            theta = _descend(lambda t, M=mixed: self._of_weights(t, M), theta)[0]
            weights, b = self._split(theta, d)
            parts = self.parts(weights)
            penalty = float(np.square(weights).sum()) / (2 * self.C)
            a, value = _descend(lambda t, P=parts, o=b: self._of_mixture(t, P, o, gram), a)
            seen.append(value + penalty)
            if len(seen) > 1 and seen[-2] - seen[-1] <= tol * abs(seen[-2]):
                break
        return a, *self._split(theta, d), np.asarray(seen)

    def parts(self, W: FloatArray) -> FloatArray:
        """Each layer's own part of the decision, (layers, n, c)."""
        return (self.Z @ W.T.astype(self.Z.dtype)).astype(np.float64)

    def size(self, s: FloatArray) -> float:
        """γ: root mean square of the mixture's entries."""
        return _size(s, self._gram())

    def _gram(self) -> FloatArray:
        """Mean products of the layers' entries, (layers, layers)."""
        flat = self.Z.reshape(len(self.Z), -1)
        return (flat @ flat.T).astype(np.float64) / flat.shape[1]

    def _split(self, theta: FloatArray, d: int) -> tuple[FloatArray, FloatArray]:
        table = theta.reshape(-1, d + 1)
        return table[:, :-1], table[:, -1]

    def _of_weights(self, theta: FloatArray, mixed: FloatArray) -> tuple[float, FloatArray]:
        W, b = self._split(theta, mixed.shape[1])
        logits = (mixed @ W.T.astype(mixed.dtype)).astype(np.float64) + b
        value, slope = self._loss(logits)
        dW = (slope.T.astype(mixed.dtype) @ mixed).astype(np.float64) + W / self.C
        value += float(np.square(W).sum()) / (2 * self.C)
        return value, np.concatenate([dW, slope.sum(axis=0)[:, None]], axis=1).ravel()

    def _of_mixture(
        self, a: FloatArray, parts: FloatArray, b: FloatArray, gram: FloatArray
    ) -> tuple[float, FloatArray]:
        s = softmax(a)
        size = _size(s, gram)
        mixed = np.tensordot(s, parts, axes=1) / size  # (n, c)
        value, slope = self._loss(mixed + b)
        ds = np.einsum("knc,nc->k", parts, slope) / size
        ds -= float((mixed * slope).sum()) * (gram @ s) / size**2
        return value + PRIOR * float(a @ a), s * (ds - s @ ds) + 2 * PRIOR * a

    def _loss(self, logits: FloatArray) -> tuple[float, FloatArray]:
        """Sum of the log-loss, and its gradient (n, c)."""
        if self.classes == 2:
            z = logits[:, 0]
            value = float((np.logaddexp(0, z) - self.y * z).sum())
            return value, (expit(z) - self.y)[:, None]
        logp = log_softmax(logits, axis=1)
        rows = np.arange(len(self.y))
        slope = np.exp(logp)
        slope[rows, self.y] -= 1
        return -float(logp[rows, self.y].sum()), slope


def _size(s: FloatArray, gram: FloatArray) -> float:
    """γ = √(sᵀ G s)."""
    return float(np.sqrt(max(0.0, s @ gram @ s))) or 1.0


def _descend(
    function: Callable[[FloatArray], tuple[float, FloatArray]], start: FloatArray
) -> tuple[FloatArray, float]:
    found: Any = optimize.minimize(
        function, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "gtol": 1e-5}
    )
    return found.x, float(found.fun)
