"""DC share: how much of the tokens' energy lies in their mean, which attention passes on best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import DoesNotApply
from probes.layers.token_batch import in_front, undefined_where
from probes.linalg import check_matrix
from probes.registry import Measure, register_token_metric

if TYPE_CHECKING:
    from torch import Tensor


def _batch(states: Tensor, keep: Tensor) -> Tensor:
    """(batch, token, d) to (batch,): `dc_share` of each text."""
    tokens, counts = in_front(states, keep)
    tokens = tokens / tokens.abs().amax((1, 2), keepdim=True).clamp(min=1e-300)
    energy = tokens.square().sum((1, 2))
    mean = tokens.sum(1).square().sum(1) / counts.clamp(min=1)
    share = (mean / energy.where(energy > 0, 1.0)).clamp(0, 1)
    return undefined_where((counts < 2) | (energy == 0), share)


@register_token_metric(
    Measure(
        "dc_share",
        "Share of the mean",
        "",
        0.0,
        1.0,
        "none",
        "Share of the tokens' energy that lies in their mean (frequency zero); 1 when all tokens are equal.",
        "Wang et al. 2022 (arXiv 2203.05962); Zhou et al. 2024 (arXiv 2410.24200)",
    ),
    _batch,
)
def dc_share(tokens: Any) -> float:
    """Share of the energy of one text's token states (T, d) in their mean: T · ‖mean‖² / Σ ‖z_t‖².

    In [0, 1]: the component of the discrete Fourier transform over tokens at frequency zero. Equal tokens give 1,
    tokens that cancel 0, independent centred ones 1/T on average. Attention is a low-pass filter: layer after layer,
    and the more so the longer the text, what is left is the mean.

    Raises `DoesNotApply` for a single token (it is its own mean) and where all states are zero. Papers: Wang et al.
    2022 (arXiv 2203.05962), Zhou et al. 2024 (arXiv 2410.24200). See also `high_frequency_gain`.

    >>> dc_share([[1.0, 0], [0, 1]])
    0.5
    """
    states = check_matrix(tokens, "tokens").astype(np.float64)
    if len(states) < 2:
        raise DoesNotApply("share of the mean of one token: it is its own mean")
    largest = float(np.abs(states).max())
    if largest == 0:
        raise DoesNotApply("share of the mean: all states are zero, there is no energy to share")
    states = states / largest
    mean = states.mean(axis=0)
    return float(np.clip(len(states) * (mean @ mean) / np.square(states).sum(), 0.0, 1.0))
