"""Matrix-based entropy of a set of embeddings: how many texts are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from probes.errors import DoesNotApply, InputError
from probes.layers.effective_rank import entropy, entropy_slope
from probes.layers.states import Spectrum, States
from probes.registry import Measure, register_layer_metric

FloatArray = NDArray[np.floating[Any]]


def _spectrum(X: Any) -> tuple[Spectrum, float]:
    """Spectrum of the unit rows and the largest entropy that n rows in d dimensions can have."""
    states = States.of(X)
    if states.d < 2:
        raise DoesNotApply("dataset entropy of one dimension: at least two are needed")
    return states.unit_spectrum("dataset entropy"), float(np.log(min(states.n, states.d)))


def _influence(X: Any) -> FloatArray:
    spectrum, most = _spectrum(X)
    return spectrum.influence(entropy_slope(spectrum.eigenvalues)) / most


@register_layer_metric(
    Measure(
        "dataset_entropy",
        "Dataset entropy",
        "",
        0.0,
        1.0,
        "none",
        "Entropy of the Gram matrix of the embeddings over the largest possible: 0 when all point the same "
        "way, 1 when they use every direction evenly.",
        "Giraldo et al. 2015 (arXiv 1211.2459); Skean et al. 2025 (arXiv 2502.02013)",
    ),
    {"rotation", "scale", "permutation"},
    _influence,
)
def dataset_entropy(X: Any, alpha: float = 1.0) -> float:
    """Matrix-based Rényi entropy of order `alpha` of the unit rows of X (n, d), over log min(n, d).

    K = ZZᵀ / n with Z the rows of X at unit length, λ its eigenvalues; S₁ = −Σ λ log λ, S_α =
    log(Σ λ^α) / (1 − α). In [0, 1]; nothing is centred, so a common mean lowers it. It depends on
    n: compare only at equal n.

    Raises `DoesNotApply` for one row, one dimension and rows of zero length, `InputError` for alpha ≤
    0. Paper: Giraldo et al. 2015; for layers Skean et al. 2025. See also `spectral_entropy_rank`,
    `coding_rate`.

    >>> import numpy as np
    >>> round(dataset_entropy(np.eye(4)), 6)
    1.0
    >>> round(dataset_entropy([[1.0, 0], [1, 0], [1, 0], [0, 1]], alpha=2), 6)  # log(1.6) / log(2)
    0.678072
    """
    if not 0 < alpha < np.inf:
        raise InputError(f"alpha {alpha}: a number above 0 is needed, such as 1 or 2")
    spectrum, most = _spectrum(X)
    weights = spectrum.eigenvalues
    if abs(alpha - 1) < 1e-6:  # the limit; the quotient below would be rounding
        found = entropy(weights)
    else:
        log_p = np.log(weights[weights > 0] / weights.sum())
        found = float(np.asarray(logsumexp(alpha * log_p))) / (1 - alpha)
    return float(np.clip(found / most, 0.0, 1.0))
