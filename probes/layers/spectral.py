"""How evenly variance is spread over directions: numbers of the centred spectrum other than the effective rank."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError
from probes.layers.effective_rank import entropy, entropy_slope
from probes.layers.states import States
from probes.registry import Measure, register_layer_metric

FloatArray = NDArray[np.floating[Any]]
ALL = {"rotation", "scale", "translation", "permutation"}


def _entropy_rank_influence(X: Any) -> FloatArray:
    spectrum = States.of(X).centred("spectral entropy rank")
    variances = spectrum.eigenvalues
    return np.exp(entropy(variances)) * spectrum.influence(entropy_slope(variances))


@register_layer_metric(
    Measure(
        "spectral_entropy_rank",
        "Spectral entropy rank",
        "directions",
        1.0,
        None,
        "none",
        "Number of directions with equal variance that would be as uncertain: exp of the entropy of the "
        "variances along the principal directions.",
        "Giraldo et al. 2015 (arXiv 1211.2459); Skean et al. 2025 (arXiv 2502.02013)",
    ),
    ALL,
    _entropy_rank_influence,
)
def spectral_entropy_rank(X: Any) -> float:
    """Exponential of the entropy of the variances λ_j / Σ λ, λ = σ² of the centred X (n, d).

    In [1, min(n, d)] and never above the effective rank, for squares
    weigh the strong ones more. It grows with n: compare only at equal n.

    Raises `DoesNotApply` where all rows are equal (one row too). Paper: Giraldo et al. 2015, matrix-based
    entropy (its order 1), of the covariance. See also `effective_rank`, `dataset_entropy`.

    >>> round(spectral_entropy_rank([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), 6)
    2.0
    """
    return float(np.exp(entropy(States.of(X).centred("spectral entropy rank").eigenvalues)))


def _participation_influence(X: Any) -> FloatArray:
    """Of s = (Σ λ)² / Σ λ²: ds/dλ_j = 2 (Σ λ / Σ λ²) (1 − λ_j Σ λ / Σ λ²)."""
    spectrum = States.of(X).centred("participation ratio")
    variances = spectrum.eigenvalues
    ratio = variances.sum() / (variances @ variances)
    return spectrum.influence(2 * ratio * (1 - ratio * variances))


@register_layer_metric(
    Measure(
        "participation_ratio",
        "Participation ratio",
        "directions",
        1.0,
        None,
        "none",
        "Number of equally strong directions with as large a sum of squared variances; ruled by the strongest.",
        "Gao et al. 2017 (bioRxiv 214262)",
    ),
    ALL,
    _participation_influence,
)
def participation_ratio(X: Any) -> float:
    """(Σ λ)² / Σ λ² of the variances λ of the centred X (n, d) along its principal directions.

    In [1, min(n, d)]: Rényi's order 2 where the spectral entropy rank is order 1.

    Raises `DoesNotApply` where all rows are equal (one row too). Paper: Gao et al. 2017, "A theory of
    multineuronal dimensionality". See also `isoscore`, which is (this − 1) / (d − 1).

    >>> round(participation_ratio([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), 6)
    2.0
    """
    variances = States.of(X).centred("participation ratio").eigenvalues
    return float(variances.sum() ** 2 / (variances @ variances))


def _wide_enough(X: Any) -> States:
    states = States.of(X)
    if states.d < 2:
        raise DoesNotApply("isoscore of one dimension: at least two are needed")
    return states


def _isoscore_influence(X: Any) -> FloatArray:
    states = _wide_enough(X)
    return _participation_influence(states) / (states.d - 1)


@register_layer_metric(
    Measure(
        "isoscore",
        "IsoScore",
        "",
        0.0,
        1.0,
        "up",
        "Share of the dimensions that the variance uses evenly: 0 for one direction, 1 for all alike.",
        "Rudman et al. 2022 (arXiv 2108.07344)",
    ),
    ALL,
    _isoscore_influence,
)
def isoscore(X: Any) -> float:
    """IsoScore of X (n, d): how evenly the variance fills all d dimensions.

    With λ̂ = √d · λ / ‖λ‖ (λ: variances along the principal directions, d of them), defect
    δ² = ‖λ̂ − 1‖² / (2(d − √d)) and φ = (d − δ²(d − √d))² / d² the paper's score is (dφ − 1)/(d − 1).
    Inserted, this is (participation ratio − 1)/(d − 1), which is what is computed. In [0, 1];
    at most (n − 2)/(d − 1) when n ≤ d, so compare only at equal n and d.

    Raises `DoesNotApply` where all rows are equal and for d = 1. Paper: Rudman et al. 2022. See also
    `participation_ratio`, `anisotropy` (the mean, which IsoScore does not see).

    >>> round(isoscore([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), 6)
    1.0
    >>> round(isoscore([[1.0, 1], [2, 2], [4, 4]]), 6)
    0.0
    """
    states = _wide_enough(X)
    return max(0.0, (participation_ratio(states) - 1) / (states.d - 1))


def top_share(X: Any, k: int = 1) -> float:
    """Share of the variance of X (n, d) that lies in its k strongest principal directions.

    Σ_{j ≤ k} λ_j / Σ λ, λ = σ² of the centred X, in (0, 1]; 1 where there are no more than k
    directions. Registered for k = 1, 3 and 10.

    Raises `InputError` for k < 1, `DoesNotApply` where all rows are equal. Paper: Mu & Viswanath 2018
    (arXiv 1702.01417), who take the top directions off. See also `anisotropy`, `spectrum`.

    >>> round(top_share([[2.0, 0], [-2, 0], [0, 1], [0, -1]]), 6)
    0.8
    """
    if k < 1:
        raise InputError(f"top share of {k} directions: at least 1 is needed")
    variances = States.of(X).centred("top share").eigenvalues
    return float(min(1.0, variances[:k].sum() / variances.sum()))


def _top_share_influence(X: Any, k: int) -> FloatArray:
    spectrum = States.of(X).centred("top share")
    inside = np.arange(len(spectrum.sigma)) < k
    return spectrum.influence((inside - top_share(X, k)) / spectrum.eigenvalues.sum())


def _register_top_share(k: int) -> None:
    directions = "the strongest direction" if k == 1 else f"the {k} strongest directions"

    @register_layer_metric(
        Measure(
            f"top_share_{k}",
            f"Variance in the top {k}",
            "share",
            0.0,
            1.0,
            "none",
            f"Share of the variance that lies in {directions}.",
            "Mu & Viswanath 2018 (arXiv 1702.01417)",
        ),
        ALL,
        lambda X: _top_share_influence(X, k),
    )
    def _(X: Any) -> float:
        """`top_share` with its k fixed."""
        return top_share(X, k)


for _k in (1, 3, 10):
    _register_top_share(_k)
