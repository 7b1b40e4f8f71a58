"""Core neurons: the few neurons of each block that a text uses most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.observe import Reading, observe
from probes.capture.sites import Place
from probes.errors import DoesNotApply, InputError, NonFiniteError
from probes.models import Model

Bools = NDArray[np.bool_]
FloatArray = NDArray[np.floating[Any]]
QUIET = 0.01  # of the largest neuron of a token


@dataclass(frozen=True)
class CoreNeurons:
    """By block: `sets` (n, neurons), `half` the same for the first half of each text (None where later tokens are
    seen), `sparsity` (n,). `missing` says why blocks are left out."""

    sets: dict[int, Bools]
    half: dict[int, Bools] | None
    sparsity: dict[int, FloatArray]
    missing: tuple[str, ...] = ()


def core_neurons(
    model: Model,
    texts: Sequence[str],
    *,
    share: float = 0.2,
    token_share: float = 0.4,
    blocks: Iterable[int] | None = None,
    max_length: int | None = None,
    batch_tokens: int | None = None,
) -> CoreNeurons:
    """The core neurons of each text in every block, and how many neurons are quiet.

    A token's core are the `token_share` largest of its positive neurons (inputs of the MLP's last projection,
    `mlp_act`); a text's core are the `share` of all neurons that are most often in the cores of its tokens, ties by
    the mean positive activation relative to the token's largest. Sparsity is the share of neurons below 1 % of the
    token's largest size, zeros included, averaged over tokens. Special tokens count as they do in mean pooling.

    Raises `DoesNotApply` where no block has its neurons in one place (mixtures of experts), `InputError` for shares
    outside (0, 1]. Paper: Wang et al. 2024 (CoreInfer, arXiv 2410.18311).

    >>> def shared(model, a, b, block):  # overlap of two texts
    ...     core = core_neurons(model, [a, b]).sets[block]
    ...     return jaccard(core[0], core[1])
    """
    for name, value in (("share", share), ("token_share", token_share)):
        if not 0 < value <= 1:
            raise InputError(f"{name} {value}: a number above 0, at most 1, is needed")
    places, missing = _places(model, blocks)
    reading = Reading.of(model, texts, max_length=max_length, batch_tokens=batch_tokens)

    def look(place: Place, states: Tensor, keep: Tensor) -> Tensor:
        return _scores(states.float(), keep, token_share)

    found = observe(reading, places, look).values
    sets: dict[int, Bools] = {}
    half: dict[int, Bools] = {}
    sparsity: dict[int, FloatArray] = {}
    for (_, block), values in found.items():
        if not np.isfinite(values).all():
            raise NonFiniteError(f"neurons of block {block} of {model.name} hold NaN or infinity")
        width = (values.shape[1] - 1) // 2
        sets[block] = _leading(values[:, :width], share)
        half[block] = _leading(values[:, width:-1], share)
        sparsity[block] = values[:, -1]
    return CoreNeurons(sets, half if model.is_causal else None, sparsity, missing)


def _places(model: Model, blocks: Iterable[int] | None) -> tuple[list[Place], tuple[str, ...]]:
    places: list[Place] = []
    missing: list[str] = []
    for block in range(model.n_layers) if blocks is None else blocks:
        try:
            model.structure.module_for("mlp_act", block)
        except DoesNotApply as error:
            missing.append(str(error))
            continue
        places.append(Place("mlp_act", block))
    if not places:
        reason = missing[0] if missing else "no block was asked for"
        raise DoesNotApply(f"core neurons of {model.name}: {reason}")
    return places, tuple(missing)


def _scores(states: Tensor, keep: Tensor, token_share: float) -> Tensor:
    """(batch, 2 · neurons + 1): how often each neuron is in a core, in the whole text and its first half; sparsity."""
    import torch

    states = states.masked_fill(~keep[..., None], 0)  # padding may hold anything, NaN too
    positive = states.clamp(min=0)
    counts = (positive > 0).sum(-1, keepdim=True)
    last = ((token_share * counts).ceil().long() - 1).clamp(min=0)
    most = int(last.max()) + 1  # no more than the largest core is sorted
    largest = positive.topk(most, dim=-1).values
    core = (positive >= largest.gather(-1, last)) & (positive > 0)
    relative = positive / largest[..., :1].clamp(min=torch.finfo(positive.dtype).tiny)
    size = states.abs()
    quiet = (size < QUIET * size.amax(-1, keepdim=True)) | (states == 0)
    first = (keep.long().cumsum(1) <= (keep.sum(1, keepdim=True) + 1) // 2) & keep
    share = (quiet.float().mean(-1) * keep).sum(1) / keep.sum(1).clamp(min=1)
    parts = [_votes(core.float(), relative, tokens.float()) for tokens in (keep, first)]
    return torch.cat([*parts, share[:, None].double()], dim=1)


def _votes(core: Tensor, relative: Tensor, tokens: Tensor) -> Tensor:
    """How many of a text's `tokens` (batch, token) have each neuron in their core; strength, below one, breaks ties."""
    counts, strength = ((tokens[:, None] @ part)[:, 0].double() for part in (core, relative))
    return counts + strength / (2 * tokens.sum(1, keepdim=True).clamp(min=1))


def _leading(scores: FloatArray, share: float) -> Bools:
    """The `share` largest of each row (n, neurons), as many in every row."""
    count = max(1, round(share * scores.shape[1]))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def jaccard(a: Bools, b: Bools) -> FloatArray:
    """Shared over all members of two sets, along the last axis; 1 for two empty ones.

    >>> float(jaccard(np.array([True, True, False]), np.array([True, False, True])))
    0.3333333333333333
    """
    both, either = (a & b).sum(-1), (a | b).sum(-1)
    return np.divide(both, either, out=np.ones(np.shape(both)), where=either > 0)
