"""LiDAR: how many directions tell texts apart beyond what differs between views of one text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from probes.errors import DoesNotApply, InputError, NonFiniteError
from probes.layers.effective_rank import entropy, entropy_slope
from probes.layers.views import same_shape
from probes.registry import Measure, register_pair_metric

FloatArray = NDArray[np.floating[Any]]
DELTA = 1e-4
ROWS = 2048  # texts that a table takes at most: several times d, so that Σ_w is well conditioned


def _views(A: Any, B: Any | None) -> FloatArray:
    """(n, q, d) in float64 from two (n, d), or from one (n, q, d) that is checked."""
    if B is not None:
        return np.stack(same_shape(A, B), axis=1).astype(np.float64)
    views = np.asarray(A)
    if views.ndim != 3 or views.dtype.kind not in "fiub" or views.shape[1] < 2 or not views.size:
        raise InputError(
            f"views have shape {views.shape} and type {views.dtype}: two (n, d) arrays, or one numeric "
            "(n, q, d) array with q ≥ 2 views of each text, are needed"
        )
    finite = np.isfinite(views).all(axis=(1, 2))
    if not finite.all():
        raise NonFiniteError(
            f"views hold NaN or infinity in text {int(np.flatnonzero(~finite)[0])}"
        )
    return views.astype(np.float64)


def _parts(views: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means of the views less the mean of all, (n, d), and views less their own mean, (n, q, d)."""
    means = views.mean(axis=1)
    return means - means.mean(axis=0), views - means[:, None]


def _solve(between: FloatArray, within: FloatArray, delta: float) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues (d,) of Σ_w^{-1/2} Σ_b Σ_w^{-1/2} and a_j in columns (d, d) with a_jᵀ Σ_w a_j = 1."""
    n, q, d = within.shape
    flat = within.reshape(n * q, d)
    noise = flat.T @ flat / (n * (q - 1)) + delta * np.eye(d)
    values, vectors = eigh(between.T @ between / n, noise)
    return np.maximum(values, 0.0), vectors


def _checked(A: Any, B: Any | None, delta: float) -> tuple[FloatArray, FloatArray]:
    if not 0 < delta < np.inf:
        raise InputError(f"delta {delta}: a number above 0 is needed, such as 1e-4")
    views = _views(A, B)
    between, within = _parts(views)
    rounding = 8 * np.finfo(np.float64).eps * np.abs(views).max() * np.sqrt(between.size)
    if np.linalg.norm(between) <= rounding:
        raise DoesNotApply(f"LiDAR of {len(views)} texts: all texts are equal, nothing separates")
    return between, within


def _influence(A: Any, B: Any | None = None, delta: float = DELTA) -> FloatArray:
    """dλ_j = a_jᵀ (dΣ_b − λ_j dΣ_w) a_j with each text's own squares less the mean, over n."""
    between, within = _checked(A, B, delta)
    n, q, _ = within.shape
    values, vectors = _solve(between, within, delta)
    slope = np.exp(entropy(values)) * entropy_slope(values)
    noise = np.square(within @ vectors).sum(axis=1) / (q - 1)  # (n, d)
    shares = np.square(between @ vectors) @ slope - noise @ (slope * values)
    return (shares - shares.mean()) / n


@register_pair_metric(
    Measure(
        "lidar",
        "LiDAR",
        "directions",
        1.0,
        None,
        "up",
        "Number of directions that tell texts apart beyond what differs between views of one text.",
        "Thilak et al. 2024 (arXiv 2312.04000)",
    ),
    _influence,
    limit=ROWS,
)
def lidar(A: Any, B: Any | None = None, delta: float = DELTA) -> float:
    """Exponential of the entropy of the eigenvalues of Σ_w^{-1/2} Σ_b Σ_w^{-1/2}, over their sum.

    Σ_b is the covariance of the texts' mean states (over n), Σ_w that of views around them (over n (q
    − 1)) plus δ·I. Views are two arrays (n, d) or one (n, q, d); the paper has q = 50 of them. In [1,
    min(n − 1, d)]; not free of scale, for δ is not. It grows with n: compare only at equal n.

    Raises `DoesNotApply` where all texts are equal (one text too), `InputError` for other shapes and
    δ ≤ 0. Paper: Thilak et al. 2024. See also `effective_rank`, `infonce`.

    >>> import numpy as np
    >>> texts = np.vstack([np.eye(3), -np.eye(3)])
    >>> round(lidar(texts, texts), 6)
    3.0
    """
    between, within = _checked(A, B, delta)
    return float(np.exp(entropy(_solve(between, within, delta)[0])))
