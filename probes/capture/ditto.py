"""Ditto pooling: tokens weighted by how much one attention head has them attend to themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.hooks import TorchRunner
from probes.capture.shard import reduce_batch
from probes.capture.sites import Layers, Place, parse_sites
from probes.errors import DoesNotApply, InputError, ModelError, NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

    from probes.capture.attention_call import AttentionCall
    from probes.capture.batching import Batch, Side
    from probes.capture.progress import Report
    from probes.models import Model


def ditto_pool(
    model: Model,
    texts: Sequence[str],
    block: int,
    head: int,
    layers: int | Layers = None,
    *,
    max_length: int | None = None,
    prompt: str = "",
    batch_tokens: int | None = None,
    padding_side: Side | None = None,
    progress: bool | Report = False,
) -> dict[int, NDArray[np.float32]]:
    """Embeddings without training: Σ_t a_t (h₀_t + h_k_t) / 2 for every layer k, the weights a from one head.

    a_t is the attention A_tt that token t pays to itself in head `head` of block `block` (both from 0), divided by
    its sum over the text; h_k are the `exit` states. Special tokens take part as the model has them, padding does not.
    In BERT such weights follow TF-IDF: they favour the words that carry the text. Which head does is found on other
    data than it is judged on.

    Args:
        layers: which k, all by default. The rest as in `capture`.

    Returns:
        {k: (n, d) float32}; a batch is read twice, once up to `block` and once for the states.

    Raises `InputError` for a head, block or layer that does not exist, `DoesNotApply` where the block has no heads and
    where the head of a text gives no token any weight. Paper: Chen et al. 2023, "Ditto: A Simple and Efficient
    Approach to Improve Sentence Embeddings" (arXiv 2305.10786).

    Examples:
        >>> def embeddings(model, texts):  # head 10 of the second block
        ...     return ditto_pool(model, texts, block=1, head=10)[model.n_layers]
    """
    from probes.capture.observe import Reading

    _check_head(model, block, head)
    wanted = parse_sites(["exit"], model.n_layers, layers)
    reading = Reading.of(
        model, texts, max_length=max_length, prompt=prompt,
        batch_tokens=batch_tokens, padding_side=padding_side,
    )  # fmt: skip
    first = Place("exit", 0)
    runner = TorchRunner(model, sorted({first, *wanted}))
    pooled: dict[Place, NDArray[np.float32]] = {}

    def each(batch: Batch) -> None:
        weights = self_attention(model, batch, block, head)  # (batch, token)

        def put(place: Place, states: Tensor) -> None:
            if place not in pooled:
                pooled[place] = np.zeros((len(texts), states.shape[1]), np.float32)
            pooled[place][batch.rows] = states.cpu().numpy()

        reduce_batch(model, runner, batch, lambda _, states: _weighted(states, weights), put)

    reading.run(each, progress)
    half = np.float32(0.5)
    return {place.number: half * (pooled[first] + pooled[place]) for place in wanted}


def self_attention(model: Model, batch: Batch, block: int, head: int) -> Tensor:
    """How much each token attends to itself in one head, summing to one over each text: (batch, token) float32.

    Padding has no weight.
    """
    import torch

    from probes.capture.attention import attention_calls

    found: list[Tensor] = []

    def look(call: AttentionCall) -> None:
        found.append(call.pattern(heads=[head])[:, 0].diagonal(dim1=-2, dim2=-1))

    runner = TorchRunner(model, [Place("z", block)])
    with attention_calls(model, look, [block]):
        reduce_batch(model, runner, batch, lambda _, states: states[:0], _nothing)
    own = batch.inputs["attention_mask"].to(model.device).bool()
    if found[0].shape != own.shape:
        raise ModelError(
            f"block {block} of {model.name} has attention of {tuple(found[0].shape)} queries, "
            f"{tuple(own.shape)} tokens were read"
        )
    weights = found[0].float().masked_fill(~own, 0.0)
    total = weights.sum(1, keepdim=True)
    if not bool(torch.isfinite(total).all()):
        raise NonFiniteError(f"head {head} of block {block} of {model.name} holds NaN or infinity")
    bad = torch.nonzero(total[:, 0] == 0).flatten().tolist()
    if bad:
        raise DoesNotApply(
            f"head {head} of block {block}: no token of text {int(batch.rows[bad[0]])} attends to itself"
        )
    return weights / total


def _nothing(_place: Place, _states: Any) -> None:
    pass


def _weighted(states: Tensor, weights: Tensor) -> Tensor:
    """(batch, token, d) and (batch, token) -> (batch, d). What stands at a token without weight does not matter."""
    import torch

    kept = states.float().masked_fill((weights == 0)[..., None], 0.0)
    return torch.bmm(weights[:, None], kept).squeeze(1)


def _check_head(model: Model, block: int, head: int) -> None:
    from probes.capture.attention import check_blocks

    check_blocks(model, [block])
    heads = model.structure.block(block).n_heads or 0
    if not 0 <= head < heads:
        raise InputError(f"head {head} does not exist: block {block} has heads 0 to {heads - 1}")
