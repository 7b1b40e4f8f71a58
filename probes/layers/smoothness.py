"""Smoothness: how alike neighbouring tokens are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.layers.states import States
from probes.layers.token_batch import in_front, real, undefined_where
from probes.registry import Measure, register_token_metric

if TYPE_CHECKING:
    from torch import Tensor


def _batch(states: Tensor, keep: Tensor) -> Tensor:
    """(batch, token, d) to (batch,): `smoothness` of each text."""
    tokens, counts = in_front(states, keep)
    length = tokens.norm(dim=-1, keepdim=True)
    units = tokens / length.where(
        length > 0, 1.0
    )  # zero behind the text, so that those cosines are 0
    total = (units[:, 1:] * units[:, :-1]).sum((1, 2))
    pairs = counts - 1
    zero = ((length[..., 0] == 0) & real(tokens, counts)).any(1)
    return undefined_where((pairs < 1) | zero, total / pairs.clamp(min=1)).clamp(-1, 1)


@register_token_metric(
    Measure(
        "smoothness",
        "Smoothness",
        "cosine",
        -1.0,
        1.0,
        "none",
        "Mean cosine between the states of neighbouring tokens; 1 when the text is one state all along.",
        "Future Token Prediction (arXiv 2410.18160)",
    ),
    _batch,
)
def smoothness(tokens: Any) -> float:
    """Mean cosine between the states of neighbouring tokens of one text, (T, d).

    In [−1, 1]; unrelated directions give about 0. It does not change when tokens are scaled one by one.

    Raises `DoesNotApply` for a single token and where a state is zero (it has no direction). Paper: Walker 2024,
    "Future Token Prediction" (arXiv 2410.18160). See also `curvature`, `anisotropy` (texts instead of tokens).

    >>> smoothness([[1.0, 0], [2, 0], [0, 3]])
    0.5
    """
    units = States.of(tokens).units("smoothness")
    return float(np.clip((units[1:] * units[:-1]).sum(axis=1).mean(), -1.0, 1.0))
