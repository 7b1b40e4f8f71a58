"""What a text is made of before any block has run: its tokens, their weights, and the static table of the vocabulary.

The static table holds the full model's embedding of each vocabulary entry encoded alone. A text's bag is the weighted
sum of its tokens' entries, so every linear map of a bag is itself a table, and a model of depth 0 is a look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import InputError, ModelError

if TYPE_CHECKING:
    from probes.capture.batching import Batch
    from probes.capture.tokens import Tokens
    from probes.models import Model

Array = NDArray[np.floating[Any]]
SIF_A = 1e-3  # Arora et al. 2017: weights a / (a + p)


def token_counts(
    model: Model, texts: Sequence[str], max_length: int | None = None
) -> sparse.csr_array:
    """How often each vocabulary entry occurs in each text, as the model reads it: (n, vocabulary) float64.

    The tokens put around a text do not count, nor does what lies beyond `max_length`.
    """
    return count_inside(_encode(model, texts, max_length), vocabulary_size(model))


def count_inside(tokens: Sequence[Tokens], size: int) -> sparse.csr_array:
    """Counts (n, size) of the tokens of each text that are not put around it."""
    return count_tokens([one.ids[~one.special] for one in tokens], size)


def vocabulary_size(model: Model) -> int:
    """Rows that a table of the model's vocabulary needs: every id that the tokenizer can give."""
    return max(model.require_tokenizer().get_vocab().values()) + 1


def count_tokens(ids: Sequence[NDArray[np.integer[Any]]], size: int) -> sparse.csr_array:
    """Counts (n, size) of lists of token ids.

    >>> count_tokens([np.array([0, 2, 2]), np.array([1])], 3).toarray().tolist()
    [[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]
    """
    starts = np.cumsum([0, *(len(one) for one in ids)])
    columns = np.concatenate([np.empty(0, np.int64), *ids])
    found = sparse.csr_array((np.ones(len(columns)), columns, starts), shape=(len(ids), size))
    found.sum_duplicates()
    return found


def sif_weights(counts: sparse.csr_array, a: float = SIF_A) -> Array:
    """Weight a / (a + p) of every vocabulary entry, p its share of all tokens of the fit texts: (vocabulary,).

    Lies in (0, 1]; entries that the fit texts do not hold weigh 1. Paper: Arora et al. 2017.

    >>> sif_weights(sparse.csr_array([[9.0, 1.0, 0.0]]), a=0.1).round(2).tolist()
    [0.1, 0.5, 1.0]
    """
    if not a > 0:
        raise InputError(f"a is {a}: a number above 0 is needed, such as {SIF_A}")
    total = counts.sum(axis=0)
    return a / (a + total / max(1.0, float(total.sum())))


@dataclass(frozen=True, eq=False)
class StaticTable:
    """A vector and a weight for every vocabulary entry; the bag of a text is their mean product over its tokens.

    `rows` (vocabulary, d) and `weights` (vocabulary,).
    """

    rows: Array
    weights: Array

    @classmethod
    def build(cls, model: Model, counts: sparse.csr_array, a: float = SIF_A) -> StaticTable:
        """The full model's embeddings of the vocabulary, weighted by how rare its entries are in `counts`."""
        return cls(static_table(model), state_weights(model, counts, a))

    def bags(self, counts: sparse.csr_array) -> Array:
        """Σ_t w_t · row_t over the tokens of each text, divided by how many they are: (n, d); 0 for no token.

        >>> StaticTable(np.eye(2), np.array([1.0, 0.5])).bags(sparse.csr_array([[1.0, 3.0], [0.0, 0.0]])).tolist()
        [[0.25, 0.375], [0.0, 0.0]]
        """
        sizes = np.maximum(1.0, np.asarray(counts.sum(axis=1)).ravel())
        return (counts @ self._weighted) / sizes[:, None]

    @cached_property
    def _weighted(self) -> Array:
        return self.weights[:, None] * self.rows

    def folded(self, weight: Array, bias: Array) -> Array:
        """The rows (vocabulary, d_out) whose plain mean over a text's tokens is bag · weight + bias.

        It is what a static embedding module holds: a translator of the bag alone needs no other module.
        """
        return self._weighted @ weight + bias


def state_weights(model: Model, counts: sparse.csr_array, a: float = SIF_A) -> Array:
    """SIF weights of the vocabulary; the tokens put around a text, which say nothing of it, weigh 0."""
    weights = sif_weights(counts, a)
    (example,) = _encode(model, ["a"])
    weights[example.ids[example.special]] = 0.0
    return weights


def static_table(model: Model, progress: Any = False) -> NDArray[np.float32]:
    """The full model's embedding of every vocabulary entry encoded alone, at unit length: (vocabulary, d_out).

    An entry stands between the special tokens that the tokenizer puts around a text. Ids that are none of the
    tokenizer's have a row of zeros. One pass over as many two- or three-token texts as the vocabulary has entries.
    Idea: Model2Vec (Tulkens & van Dongen 2024).
    """
    from probes.capture.batching import batches
    from probes.capture.capture import default_batch_tokens, padding_side_for
    from probes.capture.hooks import TorchRunner
    from probes.capture.pooling import Pooler
    from probes.capture.shard import reduce_batch
    from probes.capture.sites import Place
    from probes.linalg import normalise_rows

    entries = sorted(set(model.require_tokenizer().get_vocab().values()))
    tokens = _alone(model, entries)
    runner = TorchRunner(model, [Place("exit", model.n_layers)])
    table = np.zeros((vocabulary_size(model), 0), np.float32)
    rows = np.asarray(entries)
    side = padding_side_for(model, None)
    for batch in batches(
        tokens, default_batch_tokens(model), pad_id=model.pad_id, side=side, special=True
    ):
        assert batch.keep is not None
        pooler = Pooler(model.embedding.pooling, batch.keep.to(model.device))

        def put(_: Place, pooled: Any, batch: Batch = batch) -> None:
            nonlocal table
            made = normalise_rows(model.embed(pooled.cpu().float().numpy()))
            if not table.shape[1]:
                table = np.zeros((len(table), made.shape[1]), np.float32)
            table[rows[batch.rows]] = made

        reduce_batch(model, runner, batch, lambda _, states, pooler=pooler: pooler(states), put)
    return table


def _alone(model: Model, entries: Sequence[int]) -> list[Tokens]:
    """Each entry as the only token of a text, between the tokens that the tokenizer puts around one."""
    from probes.capture.tokens import Tokens

    (example,) = _encode(model, ["a"])
    inside = np.flatnonzero(~example.special)
    if not len(inside):
        raise ModelError(f"the tokenizer of {model.name} makes no token of the text 'a'")
    before, after = example.ids[: inside[0]], example.ids[inside[-1] + 1 :]
    special = np.array([True] * len(before) + [False] + [True] * len(after))
    return [
        Tokens(np.concatenate([before, [entry], after]).astype(np.int64), special, False)
        for entry in entries
    ]


def _encode(model: Model, texts: Sequence[str], max_length: int | None = None) -> list[Tokens]:
    from probes.capture.tokens import TextEncoder

    return TextEncoder(model.require_tokenizer(), max_length or model.max_length)(list(texts))
