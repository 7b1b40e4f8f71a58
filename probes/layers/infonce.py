"""InfoNCE: can a text be found by another view of it?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from probes.errors import InputError
from probes.layers.states import States
from probes.layers.views import same_shape
from probes.registry import Measure, register_pair_metric

FloatArray = NDArray[np.floating[Any]]
ROWS = 2048
BLOCK = 1024  # rows of pairwise cosines at a time


def _units(A: Any, B: Any, center: bool) -> tuple[FloatArray, FloatArray]:
    """Both views one above the other, (2n, d), less their common mean, and their rows at unit length."""
    first, second = same_shape(A, B)
    both = np.concatenate([first, second]).astype(np.float64)
    both /= np.abs(both).max() or 1.0
    if center:
        size = np.linalg.norm(both, axis=1).max()
        both -= both.mean(axis=0)
        both[np.linalg.norm(both, axis=1) <= 1e-14 * size] = 0  # what centring equal rows leaves
    return both, States(both).units("InfoNCE")


def _losses(units: FloatArray, tau: float) -> tuple[FloatArray, FloatArray]:
    """log Σ_b exp(cos(a, b)/τ) over the others b, and cos(a, partner)/τ, of each anchor a, (2n,) each."""
    size = len(units)
    total = np.empty(size)
    for first in range(0, size, BLOCK):
        block = units[first : first + BLOCK] @ units.T / tau
        block[np.arange(len(block)), first + np.arange(len(block))] = -np.inf
        total[first : first + BLOCK] = logsumexp(block, axis=1)
    return total, (units * np.roll(units, size // 2, axis=0)).sum(axis=1) / tau


def _influence(A: Any, B: Any, tau: float = 0.1) -> FloatArray:
    """Each text as an anchor, as one of the others' candidates, and by its pull on the common mean.

    With P the softmax over candidates, text i adds ℓ_i + Σ_a P_ai (sums over both views, less the
    means) and −∂loss/∂mean · (a_i + b_i)/2, all over n.
    """
    both, units = _units(A, B, center=True)
    n = len(units) // 2
    total, own = _losses(units, tau)
    chosen = np.zeros(2 * n)
    gradient = -2 * np.roll(units, n, axis=0)
    for first in range(0, 2 * n, BLOCK):
        block = units[first : first + BLOCK] @ units.T / tau - total[first : first + BLOCK, None]
        block[np.arange(len(block)), first + np.arange(len(block))] = -np.inf
        softmax = np.exp(block)
        chosen += softmax.sum(axis=0)
        gradient[first : first + BLOCK] += softmax @ units
        gradient += softmax.T @ units[first : first + BLOCK]
    gradient /= 2 * n * tau
    gradient -= units * (units * gradient).sum(axis=1, keepdims=True)
    pull = -(gradient / np.linalg.norm(both, axis=1, keepdims=True)).sum(axis=0)
    shares = ((total - own + chosen) / 2).reshape(2, n).sum(axis=0)
    shares += both.reshape(2, n, -1).mean(axis=0) @ pull
    return (shares - shares.mean()) / n


@register_pair_metric(
    Measure(
        "infonce",
        "InfoNCE",
        "nats",
        0.0,
        None,
        "down",
        "Loss of picking a text's other view among all texts by cosine; lower when views of a text stay together "
        "and texts apart.",
        "van den Oord et al. 2018 (arXiv 1807.03748); Skean et al. 2025 (arXiv 2502.02013)",
    ),
    _influence,
    limit=ROWS,
)
def infonce(A: Any, B: Any, tau: float = 0.1, center: bool = True) -> float:
    """Mean over the 2n anchors of −log(pos / (pos + neg)), exp(cosine/τ) each, after centring.

    Row i of A and B (n, d) is one text; pos is its other view, neg the sum over the 2n − 2 others in
    both views. The common mean of both views is taken off first (`center`). Above 0, lower is better;
    unrelated views give log(2n − 1) as d → ∞: compare only at equal n. Tables use a seeded sample
    of 2,048 texts.

    Raises `DoesNotApply` for one text and where a row is zero (after centring: where it is the mean),
    `InputError` for shapes that differ and τ ≤ 0. Paper: van den Oord et al. 2018. See also
    `alignment`, `dime`, `lidar`.

    >>> import numpy as np
    >>> found = infonce(np.eye(4), np.eye(4), center=False)
    >>> bool(np.isclose(found, np.log(1 + 6 * np.exp(-10))))
    True
    """
    if not 0 < tau < np.inf:
        raise InputError(f"tau {tau}: a number above 0 is needed, such as 0.1")
    total, own = _losses(_units(A, B, center)[1], tau)
    return float(max(0.0, (total - own).mean()))
