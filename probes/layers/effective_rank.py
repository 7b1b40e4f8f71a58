"""Effective rank: how many directions the states of a layer really use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply
from probes.linalg import check_matrix, singular_values
from probes.registry import Measure, register_layer_metric

FloatArray = NDArray[np.floating[Any]]


def _influence(X: Any, center: bool = True) -> FloatArray:
    """What each row adds to the effective rank per unit of extra weight, (n,).

    With weights w on the rows, dσ_j/dw_i = u_ij² σ_j / 2, hence dH/dw_i = −Σ_j (log p_j + H) u_ij²
    σ_j / 2 ⁄ Σ σ.
    """
    wide = check_matrix(X).astype(np.float64)
    if center:
        wide -= wide.mean(axis=0)
    left, sigma, _ = np.linalg.svd(wide, full_matrices=False)
    p = sigma / sigma.sum()
    used = p > 0
    log_p = np.log(p, out=np.zeros_like(p), where=used)
    entropy = -float(p @ log_p)
    slope = np.where(used, log_p + entropy, 0.0) * p / 2
    return -np.exp(entropy) * (np.square(left) @ slope)


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
    Paper: Roy & Vetterli 2007, "The effective rank". See also `anisotropy`.

    >>> import numpy as np
    >>> round(effective_rank(np.eye(5), center=False), 6)
    5.0
    >>> round(effective_rank(np.outer([1.0, 2, 4], [3, 1])), 6)
    1.0
    """
    states = check_matrix(X)
    sigma = singular_values(states, center)
    if sigma[0] <= _rounding(states):
        kind = "all rows are equal" if center else "all rows are zero"
        raise DoesNotApply(
            f"effective rank of {len(states)} rows: {kind}, there is no direction to count"
        )
    p = sigma / sigma.sum()
    p = p[p > 0]
    return float(np.exp(-(p @ np.log(p))))


def _rounding(X: FloatArray) -> float:
    """What centring equal rows can leave over."""
    return float(8 * np.finfo(np.float64).eps * np.abs(X).max() * np.sqrt(X.size))
