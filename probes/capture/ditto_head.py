"""Which head's self-attention weighs words most as TF-IDF does: a choice of head for Ditto pooling without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.padded import padded_batches
from probes.errors import DataError, DoesNotApply

if TYPE_CHECKING:
    from probes.capture.attention_call import AttentionCall
    from probes.models import Model

Array = NDArray[np.floating[Any]]

LONGEST = 128  # tokens of a text that are looked at: what is wanted is an average over texts


def tf_idf(texts: Sequence[NDArray[np.int64]]) -> list[Array]:
    """TF-IDF of every token of every text, by token number: count in the text × log(texts / texts that hold it).

    >>> [found.round(2).tolist() for found in tf_idf([np.array([1, 2, 2]), np.array([1, 3])])]
    [[0.0, 1.39, 1.39], [0.0, 0.69]]
    """
    holds: dict[int, int] = {}
    for ids in texts:
        for token in np.unique(ids).tolist():
            holds[token] = holds.get(token, 0) + 1
    found: list[Array] = []
    for ids in texts:
        different, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
        rarity = np.log(len(texts) / np.asarray([holds[token] for token in different.tolist()]))
        weights: Array = np.asarray(counts * rarity, dtype=np.float64)
        found.append(weights[place.reshape(-1)])
    return found


def head_agreement(model: Model, texts: Sequence[str], max_length: int | None = None) -> Array:
    """Mean correlation of each head's self-attention A_tt with the TF-IDF of the tokens: (blocks, heads), in [−1, 1].

    Pearson correlation over a text's own tokens, averaged over texts; NaN-free: texts of fewer than three different
    values are left out. Heads that a block does not have are at −1. `DoesNotApply` for models without attention heads,
    `DataError` where no text is left. Paper: Chen et al. 2023 (Ditto, arXiv 2305.10786), who find that such heads pool
    best in BERT.
    """
    from probes.capture.attention import attention_calls
    from probes.capture.hooks import TorchRunner
    from probes.capture.sites import Place
    from probes.capture.tokens import TextEncoder

    longest = min(max_length or LONGEST, LONGEST, model.max_length)
    tokens = TextEncoder(model.require_tokenizer(), longest)(texts)
    wanted = tf_idf([one.ids[~one.special] for one in tokens])
    usable = [row for row, values in enumerate(wanted) if len(np.unique(values)) > 2]
    if not usable:
        raise DataError(f"none of {len(texts)} texts has three tokens of different TF-IDF")
    most = max(block.n_heads or 0 for block in model.structure.blocks)
    total = np.zeros((model.n_layers, most))
    seen = np.zeros((model.n_layers, 1))
    runner = TorchRunner(model, [Place("exit", model.n_layers)])
    kept = [tokens[row] for row in usable]
    goals = [wanted[row] for row in usable]
    for batch, inputs in padded_batches(model, kept):
        found: dict[int, Array] = {}

        def look(call: AttentionCall, found: dict[int, Array] = found) -> None:
            own = call.pattern().diagonal(dim1=-2, dim2=-1)  # (batch, head, token)
            found[call.block] = own.double().cpu().numpy()

        with attention_calls(model, look):
            runner(inputs, lambda _place, _states: None)
        assert batch.keep is not None
        own = batch.keep.numpy()
        for block, weights in found.items():
            for i, row in enumerate(batch.rows.tolist()):
                total[block, : weights.shape[1]] += _correlation(weights[i][:, own[i]], goals[row])
            seen[block] += len(batch.rows)
    if not seen.any():
        raise DoesNotApply(f"{model.name} has no attention heads")
    heads = np.asarray([block.n_heads or 0 for block in model.structure.blocks])
    return np.where(np.arange(most) < heads[:, None], total / np.maximum(seen, 1), -1.0)


def _correlation(weights: Array, goal: Array) -> Array:
    """Pearson correlation of every head's weights (head, token) with `goal` (token,); 0 for constant weights."""
    from probes.stats import pearson

    return pearson(weights, np.broadcast_to(goal, weights.shape))


def choose_head(
    model: Model, texts: Sequence[str], max_length: int | None = None
) -> tuple[int, int, float]:
    """(block, head, mean correlation) of the head that agrees most with TF-IDF on `texts`."""
    found = head_agreement(model, texts, max_length)
    block, head = np.unravel_index(int(found.argmax()), found.shape)
    return int(block), int(head), float(found[block, head])
