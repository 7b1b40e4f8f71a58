"""Effective rank: how many directions the states of a layer really use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.layers.states import Spectrum, States
from probes.registry import Measure, register_layer_metric

FloatArray = NDArray[np.floating[Any]]


def entropy(weights: FloatArray) -> float:
    """Shannon entropy in nats of non-negative weights (r,) after division by their sum."""
    p = weights / weights.sum()
    p = p[p > 0]
    return -float(p @ np.log(p))


def entropy_slope(weights: FloatArray) -> FloatArray:
    """Derivative (r,) of `entropy` in each weight: −(log p_j + H) / Σ weights; 0 where a weight is."""
    p = weights / weights.sum()
    used = p > 0
    log_p = np.log(p, out=np.zeros_like(p), where=used)
    return np.where(used, -(log_p - p @ log_p), 0.0) / weights.sum()


def _spectrum(X: Any, center: bool) -> Spectrum:
    states = States.of(X)
    return states.centred("effective rank") if center else states.uncentred("effective rank")


def _influence(X: Any, center: bool = True) -> FloatArray:
    """What each row adds to the effective rank per unit of extra weight, (n,).

    dσ_j = dλ_j / 2σ_j; singular values that are rounding alone have no share.
    """
    spectrum = _spectrum(X, center)
    sigma = spectrum.sigma
    real = sigma > len(sigma) * np.finfo(np.float64).eps * sigma[0]
    slope = np.divide(entropy_slope(sigma), 2 * sigma, out=np.zeros_like(sigma), where=real)
    return np.exp(entropy(sigma)) * spectrum.influence(slope)


@register_layer_metric(
    Measure(
        "effective_rank",
        "Effective rank",
        "directions",
        1.0,
        None,
        "none",
        "Number of equally strong directions that would spread the states as much: exp of the entropy of "
        "the singular values.",
        "Roy & Vetterli 2007; Garrido et al. 2023 (RankMe, arXiv 2210.02885)",
    ),
    {"rotation", "scale", "translation", "permutation"},
    _influence,
)
def effective_rank(X: Any, center: bool = True) -> float:
    """Exponential of the entropy of the normalised singular values.

    p_j = σ_j / Σ σ,  effective rank = exp(−Σ p_j log p_j), with σ the singular values of X (n, d),
    of the centred X by default. In [1, min(n, d)]; the same formula as RankMe. It grows with n, so
    compare only at equal n. With `center=False` it is no longer unchanged by a translation.

    Raises `DoesNotApply` where there is no direction at all (one row or all rows equal when
    centred, all zero when not), `InputError` or `NonFiniteError` for what is no finite matrix.
    Paper: Roy & Vetterli 2007, "The effective rank". See also `spectral_entropy_rank` (of the
    squared singular values), `participation_ratio`, `anisotropy`.

    >>> import numpy as np
    >>> round(effective_rank(np.eye(5), center=False), 6)
    5.0
    >>> round(effective_rank(np.outer([1.0, 2, 4], [3, 1])), 6)
    1.0
    """
    return float(np.exp(entropy(_spectrum(X, center).sigma)))


@register_layer_metric(
    Measure(
        "effective_rank_uncentred",
        "Effective rank, uncentred",
        "directions",
        1.0,
        None,
        "none",
        "The effective rank with the mean state left in: a large common mean alone brings it towards 1.",
        "Roy & Vetterli 2007; Garrido et al. 2023 (RankMe, arXiv 2210.02885)",
    ),
    {"rotation", "scale", "permutation"},
    lambda X: _influence(X, center=False),
)
def effective_rank_uncentred(X: Any) -> float:
    """`effective_rank(X, center=False)` of X (n, d), in [1, min(n, d)].

    Raises `DoesNotApply` for one row and where all rows are zero. Paper: Garrido et al. 2023
    (RankMe, arXiv 2210.02885), which does not centre. See also `effective_rank`.

    >>> import numpy as np
    >>> round(effective_rank_uncentred(np.eye(5)), 6)
    5.0
    >>> effective_rank_uncentred(np.eye(5) + 100) < 1.1
    True
    """
    return effective_rank(X, center=False)
