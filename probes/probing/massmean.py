"""Mass-mean probe: the difference of class means as a direction."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, softmax
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.utils.metaestimators import available_if  # type: ignore[reportUnknownVariableType]

from probes.errors import EstimatorInputError
from probes.probing.base import FloatArray, Probe


def _has_covariance(probe: MassMeanProbe) -> bool:
    return bool(probe.covariance)


class MassMeanProbe(Probe):
    """Nearest class mean; for two classes the direction is θ = μ⁺ − μ⁻ and the threshold lies half way.

    With `covariance` the distance is Mahalanobis in the pooled within-class covariance Σ, θ =
    Σ⁻¹(μ⁺ − μ⁻), where Σ is shrunk towards its mean variance: (1 − s) Σ + s · tr(Σ)/d · I. Means
    come from the training rows only, states are used raw.

    Parameters
    ----------
    covariance : use Σ⁻¹. shrinkage : s in [0, 1], or "auto" for Ledoit and Wolf's.

    Attributes
    ----------
    means_ (K, d); coef_ (1 or K, d), intercept_ : the decision on raw states; coef_[0] is θ for two
    classes.
    shrinkage_ : the s used, None without covariance.

    `predict_proba` exists with `covariance` only (equal priors): without it distances have no
    scale. Raises `EstimatorInputError` (a `ValueError`) for fewer than two classes or a bad
    shrinkage. See also `LinearProbe`. Paper: Marks & Tegmark 2023 (arXiv 2310.06824); Ledoit & Wolf
    2004.

    >>> import numpy as np
    >>> X = np.array([[0.0, 0], [0, 1], [4, 0], [4, 1]])
    >>> probe = MassMeanProbe().fit(X, ["cold", "cold", "warm", "warm"])
    >>> probe.coef_[0].tolist(), probe.predict([[3.0, 0]])[0] == "warm"
    ([4.0, 0.0], True)
    """

    def __init__(self, *, covariance: bool = False, shrinkage: float | str = "auto") -> None:
        self.covariance = covariance
        self.shrinkage = shrinkage

    def fit(self, X: Any, y: Any) -> MassMeanProbe:
        """X (n, d) states, y (n,) classes of any type."""
        states, codes = self._checked(X, y)
        wide = states.astype(np.float64)
        K = len(self.classes_)
        self.means_ = np.stack([wide[codes == k].mean(axis=0) for k in range(K)])
        self.shrinkage_ = None
        centre = self.means_.mean(
            axis=0
        )  # scores are taken about it, lest large common means cancel badly
        shifted = self.means_ - centre
        weights = shifted
        if self.covariance:
            within = wide - self.means_[codes]
            self.shrinkage_, inverse = shrunk_inverse(within, self.shrinkage)
            weights = shifted @ inverse
        offset = -0.5 * (weights * shifted).sum(axis=1)
        if K == 2:
            weights, offset = weights[1:] - weights[:1], offset[1:] - offset[:1]
        self.coef_ = weights
        self.intercept_ = offset - weights @ centre
        return self

    @available_if(_has_covariance)
    def predict_proba(self, X: Any) -> FloatArray:
        """Probability of every class under equal priors, (n, K)."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            p = expit(scores)
            return np.stack([1 - p, p], axis=1)
        return softmax(scores, axis=1)


def shrunk_inverse(within: FloatArray, shrinkage: float | str) -> tuple[float, FloatArray]:
    """The shrinkage s and the inverse (d, d) of the shrunk covariance of centred rows `within` (n, d)."""
    n, d = within.shape
    s = shrinkage
    if s == "auto":
        s = float(ledoit_wolf_shrinkage(within, assume_centered=True)) if d > 1 else 0.0
    if isinstance(s, str) or not 0 <= s <= 1:
        raise EstimatorInputError(
            f"shrinkage is {shrinkage!r}: a number from 0 to 1 or 'auto' is needed"
        )
    sigma = within.T @ within / n
    level = float(np.trace(sigma)) / d
    sigma *= 1 - s
    sigma[np.diag_indices(d)] += s * level
    # directions without any variance carry no distance: the pseudo-inverse leaves them out
    return float(s), np.linalg.pinv(sigma, hermitian=True)
