"""Prompt entropy: how many directions the tokens of one text spread over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import DoesNotApply
from probes.layers.effective_rank import entropy
from probes.layers.states import States
from probes.layers.token_batch import in_front, real, undefined_where
from probes.linalg import check_matrix
from probes.registry import Measure, register_token_metric

if TYPE_CHECKING:
    from torch import Tensor

_PAPER = "Giraldo et al. 2015 (arXiv 1211.2459); Skean et al. 2025 (arXiv 2502.02013)"


def _batch(states: Tensor, keep: Tensor) -> Tensor:
    """(batch, token, d) to (batch,): `prompt_entropy` of each text."""
    import torch

    tokens, counts = in_front(states, keep)
    length = tokens.norm(dim=-1, keepdim=True)
    units = tokens / length.where(length > 0, 1.0)
    # Padding is zero and only adds zero eigenvalues; of ZZᵀ and ZᵀZ the smaller is taken.
    small = units if units.shape[1] <= units.shape[2] else units.transpose(1, 2)
    weights = torch.linalg.eigvalsh(small @ small.transpose(1, 2)).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-300)
    most = counts.clamp(max=tokens.shape[2])  # min(n, d)
    zero = ((length[..., 0] == 0) & real(tokens, counts)).any(1)
    value = torch.special.entr(weights).sum(1) / most.clamp(min=2).log()
    return undefined_where((most < 2) | zero, value.clamp(0, 1))


def _batch_without_first(states: Tensor, keep: Tensor) -> Tensor:
    keep = keep.bool()
    return _batch(states, keep & (keep.cumsum(1) > 1))


@register_token_metric(
    Measure(
        "prompt_entropy",
        "Prompt entropy",
        "",
        0.0,
        1.0,
        "none",
        "Entropy of the Gram matrix of a text's tokens over the largest possible: 0 when all point the same "
        "way, 1 when they use every direction evenly.",
        _PAPER,
    ),
    _batch,
)
def prompt_entropy(tokens: Any) -> float:
    """Matrix-based entropy of the token states of one text (T, d), over log min(T, d).

    K = ZZᵀ / T with Z the states at unit length, λ its eigenvalues, S₁ = −Σ λ log λ. In [0, 1]: orthogonal tokens
    give 1, equal ones 0. It depends on T.

    Raises `DoesNotApply` for one token, one dimension, and where a state is zero. Paper: Giraldo et al. 2015; in
    layers Skean et al. 2025. See also `prompt_entropy_without_first`, `dataset_entropy` (texts instead of tokens).

    >>> import numpy as np
    >>> round(prompt_entropy(np.eye(4)), 6)
    1.0
    """
    states = States.of(tokens)
    if states.d < 2:
        raise DoesNotApply("prompt entropy of one dimension: at least two are needed")
    weights = states.unit_spectrum("prompt entropy").eigenvalues
    return float(np.clip(entropy(weights) / np.log(min(states.n, states.d)), 0.0, 1.0))


@register_token_metric(
    Measure(
        "prompt_entropy_without_first",
        "Prompt entropy without the first token",
        "",
        0.0,
        1.0,
        "none",
        "As prompt entropy, with the first token left out: decoders park attention on it, and its state is "
        "unlike all others.",
        _PAPER,
    ),
    _batch_without_first,
)
def prompt_entropy_without_first(tokens: Any) -> float:
    """`prompt_entropy` of all tokens but the first, which in decoders is an attention sink; in [0, 1].

    tokens (T, d). Raises `DoesNotApply` for fewer than three tokens, one dimension, and where a state is zero.

    >>> round(prompt_entropy_without_first([[9.0, 9], [1, 0], [0, 1]]), 6)
    1.0
    """
    states = check_matrix(tokens, "tokens")
    if len(states) < 3:
        raise DoesNotApply(
            f"prompt entropy without the first of {len(states)} tokens: at least three are needed"
        )
    return prompt_entropy(states[1:])
