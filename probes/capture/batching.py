"""Shards and batches: contiguous ranges of texts on the outside, length-sorted batches of bounded size inside.

Shards are planned from the texts alone, before any of them is tokenised, so that a resumed run plans the same ones.
Inside a shard texts of like length share a batch, which saves most of the padding; rows go back in order afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from probes.capture.tokens import Tokens
from probes.errors import InputError

if TYPE_CHECKING:
    import torch

Side = Literal["left", "right", "none"]  # none: only texts of equal length share a batch


def plan_shards(lengths: Sequence[int], rows: int, weight: int) -> list[tuple[int, int]]:
    """Contiguous ranges `[first, last)` of at most `rows` texts whose lengths sum to at most `weight`.

    A text longer than `weight` gets a range of its own.

    Examples:
        >>> plan_shards([5, 5, 5, 50, 5], rows=2, weight=20)
        [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    if rows < 1 or weight < 1:
        raise InputError(
            f"a shard of {rows} rows and length {weight} holds nothing: both must be 1 or more"
        )
    plan: list[tuple[int, int]] = []
    first, total = 0, 0
    for row, length in enumerate(lengths):
        if row > first and (row - first >= rows or total + length > weight):
            plan.append((first, row))
            first, total = row, 0
        total += length
    if len(lengths) > first:
        plan.append((first, len(lengths)))
    return plan


def plan_batches(
    lengths: Sequence[int], batch_tokens: int, *, equal: bool = False
) -> list[NDArray[np.int64]]:
    """Row numbers of each batch: longest first, and rows × longest ≤ `batch_tokens` (one row may exceed it).

    Longest first, so that a batch that does not fit into memory is met at the start and not at the end. With `equal`
    a batch holds one length only, and needs no padding.

    Examples:
        >>> [batch.tolist() for batch in plan_batches([3, 10, 4, 9], batch_tokens=20)]
        [[1, 3], [2, 0]]
        >>> [batch.tolist() for batch in plan_batches([3, 4, 3], batch_tokens=20, equal=True)]
        [[1], [0, 2]]
    """
    if batch_tokens < 1:
        raise InputError(f"batch_tokens is {batch_tokens}: 1 or more is needed")
    order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
    batches: list[NDArray[np.int64]] = []
    first = 0
    while first < len(order):
        longest = int(lengths[int(order[first])])
        rows = order[first : first + max(1, batch_tokens // max(1, longest))]
        if equal:
            rows = rows[[int(lengths[int(row)]) == longest for row in rows]]
        batches.append(rows)
        first += len(rows)
    return batches


@dataclass(frozen=True)
class Batch:
    """Some rows of a shard, ready for the model.

    `rows` (batch,) are row numbers inside the shard; every tensor in `inputs` has the batch first; `keep`
    (batch, token) is true for the tokens to be pooled, None when all are (images). Where texts have spans, `spans`
    holds for each row the tokens `[first, last)` of its spans, padding counted: (spans, 2).
    """

    rows: NDArray[np.int64]
    inputs: dict[str, torch.Tensor]
    keep: torch.Tensor | None
    spans: tuple[NDArray[np.int64], ...] | None = None

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches with half of the rows each; raises ValueError for a single row."""
        if len(self.rows) < 2:
            raise ValueError("one row cannot be halved")
        middle = len(self.rows) // 2
        return self._part(slice(0, middle)), self._part(slice(middle, None))

    def _part(self, rows: slice) -> Batch:
        inputs = {name: tensor[rows] for name, tensor in self.inputs.items()}
        keep = None if self.keep is None else self.keep[rows]
        spans = None if self.spans is None else self.spans[rows]
        return Batch(self.rows[rows], inputs, keep, spans)

    @property
    def size(self) -> int:
        """What its memory goes by: rows × tokens, padding included (images: numbers)."""
        first = next(iter(self.inputs.values()))
        return first.numel()


def pad_batch(
    tokens: Sequence[Tokens], rows: NDArray[np.int64], *, pad_id: int, side: Side, special: bool
) -> Batch:
    """The batch of the given rows. With `special` the tokens that the tokenizer added are pooled too."""
    import torch

    chosen = [tokens[int(row)] for row in rows]
    width = max(len(t) for t in chosen)
    ids = np.full((len(chosen), width), pad_id, np.int64)
    mask = np.zeros((len(chosen), width), np.int64)
    keep = np.zeros((len(chosen), width), bool)
    spans: list[NDArray[np.int64]] = []
    for i, one in enumerate(chosen):
        place = slice(width - len(one), width) if side == "left" else slice(0, len(one))
        ids[i, place] = one.ids
        mask[i, place] = 1
        keep[i, place] = True if special else ~one.special
        if one.spans is not None:
            spans.append(one.spans + place.start)
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    return Batch(rows, inputs, torch.from_numpy(keep), tuple(spans) if spans else None)


def batches(
    tokens: Sequence[Tokens], batch_tokens: int, *, pad_id: int, side: Side, special: bool
) -> Iterator[Batch]:
    """The padded batches of a shard, longest texts first."""
    for rows in plan_batches([len(t) for t in tokens], batch_tokens, equal=side == "none"):
        yield pad_batch(tokens, rows, pad_id=pad_id, side=side, special=special)
