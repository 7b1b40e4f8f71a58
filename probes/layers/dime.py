"""DiME: how much more two views of the same texts share than views of different texts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError
from probes.layers.effective_rank import entropy, entropy_slope
from probes.layers.states import sample_rows
from probes.layers.views import unit_views
from probes.registry import Measure, register_pair_metric

FloatArray = NDArray[np.floating[Any]]
ROWS = 1000
PERMUTATIONS = 5


def _grams(A: Any, B: Any, limit: int | None, seed: int) -> tuple[FloatArray, FloatArray]:
    """Cosines among the rows of A and among those of B, (m, m) each, m ≤ limit."""
    first, second = unit_views(A, B, "DiME")
    if len(first) < 3:
        raise DoesNotApply("DiME of two texts: shuffling leaves nothing to compare, 3 are needed")
    rows = sample_rows(len(first), limit, seed)
    first, second = first[rows], second[rows]
    return first @ first.T, second @ second.T


def _orders(n: int, permutations: int, seed: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return [rng.permutation(n) for _ in range(permutations)]


def _entropy(gram: FloatArray) -> float:
    return entropy(np.maximum(np.linalg.eigvalsh(gram), 0.0))


def _entropy_influence(gram: FloatArray) -> FloatArray:
    """Derivative of the entropy of the eigenvalues in each row's weight: dλ_j = λ_j u_ij²."""
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)
    return np.square(vectors) @ (values * entropy_slope(values))


def _influence(
    A: Any, B: Any, limit: int | None = ROWS, permutations: int = PERMUTATIONS, seed: int = 0
) -> FloatArray:
    """A text counts in a shuffled product twice: by its view in A and by its view in B, elsewhere.

    Whom a text meets in a shuffle is noise that would widen the interval. Different shuffles share none
    of it, so Σ I² is taken from products of different shuffles, and the mean of the shares scaled to it.
    """
    first, second = _grams(A, B, limit, seed)
    together = _entropy_influence(first * second)
    found: list[FloatArray] = []
    for order in _orders(len(first), permutations, seed):
        shares = _entropy_influence(first * second[np.ix_(order, order)])
        twice = shares.copy()
        twice[order] += shares
        found.append(twice - together)
    mean = np.mean(found, axis=0)
    own = sum(float(shares @ shares) for shares in found)
    crossed = permutations**2 * float(mean @ mean) - own
    if permutations == 1 or crossed <= 0:
        return mean  # too wide rather than none
    return mean * np.sqrt(crossed / (permutations * (permutations - 1)) / float(mean @ mean))


@register_pair_metric(
    Measure(
        "dime",
        "DiME",
        "nats",
        None,
        None,
        "up",
        "How much two views of the same texts share beyond views of different texts, from the entropies of "
        "their Gram matrices; about 0 for unrelated views.",
        "Skean et al. 2023 (arXiv 2301.08164); Skean et al. 2025 (arXiv 2502.02013)",
    ),
    _influence,
    limit=ROWS,
)
def dime(
    A: Any, B: Any, limit: int | None = ROWS, permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Mean over shuffles π of S(K_A ∘ πK_Bπᵀ), less S(K_A ∘ K_B).

    K_A and K_B are the (m, m) Gram matrices of the rows of A and B (n, d) at unit length, ∘ their
    elementwise product at trace 1, S = −Σ λ log λ in nats, m = min(n, limit) rows drawn by `seed`; π moves
    whole rows of B. About 0 for unrelated views, higher when the views of a text agree; no fixed
    bounds but ±log m. It grows with m: compare only at equal n.

    Raises `DoesNotApply` for fewer than 3 texts and rows of zero length, `InputError` for shapes that
    differ. Paper: Skean et al. 2023. See also `infonce`, `lidar`, `dataset_entropy`.

    >>> import numpy as np
    >>> same = np.repeat(np.eye(2), [40, 40], axis=0)  # log 4 when shuffled, log 2 when not
    >>> bool(np.isclose(dime(same, same), np.log(2), atol=0.05))
    True
    """
    if permutations < 1:
        raise InputError(f"{permutations} permutations: at least 1 is needed")
    first, second = _grams(A, B, limit, seed)
    shuffled = [
        _entropy(first * second[np.ix_(order, order)])
        for order in _orders(len(first), permutations, seed)
    ]
    return float(np.mean(shuffled)) - _entropy(first * second)
