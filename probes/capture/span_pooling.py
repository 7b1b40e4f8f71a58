"""Pooling of spans: one vector per span of a text out of the span's own tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from probes.capture.pooling import POOLINGS
from probes.errors import DataError, InputError

if TYPE_CHECKING:
    import torch


class SpanPooler:
    """Pools the states of one batch span by span; sums run in float32.

    Spans may overlap. What stands at a token outside of a span never matters for it, NaN included.

    Args:
        name: a name in `POOLINGS` other than `none`.
        spans: for each row of the batch the tokens `[first, last)` of its spans, (spans, 2), none of them empty.
        device: where the states will be.

    Examples:
        >>> import torch
        >>> states = torch.tensor([[[1.0], [3.0], [8.0]], [[5.0], [0.0], [0.0]]])  # (batch 2, token 3, d 1)
        >>> spans = [np.array([[0, 2], [1, 3]]), np.array([[0, 1]])]
        >>> SpanPooler("mean", spans, states.device)(states).flatten().tolist()
        [2.0, 5.5, 5.0]
        >>> SpanPooler("last", spans, states.device)(states).flatten().tolist()
        [3.0, 8.0, 5.0]
    """

    def __init__(
        self, name: str, spans: Sequence[NDArray[np.int64]], device: torch.device | str
    ) -> None:
        import torch

        self.name = POOLINGS[name].name
        if name == "none":
            raise InputError("pooling 'none' keeps every token: choose how a span's are pooled")
        self.counts = [len(row) for row in spans]  # spans of each row of the batch
        first, last = np.concatenate(spans).reshape(-1, 2).T
        if (first >= last).any():
            raise DataError("a span of the batch has no token to pool")
        if name in ("first", "last"):
            first, last = (first, first + 1) if name == "first" else (last - 1, last)
        lengths = last - first
        rank = _ranks(lengths)  # (entry,): 0, 1, … within each span

        def send(numbers: NDArray[np.int64]) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(numbers)).to(device)

        # One entry per span and token, span after span: where it stands in (batch, token).
        self._row = send(np.repeat(np.repeat(np.arange(len(spans)), self.counts), lengths))
        self._token = send(np.repeat(first, lengths) + rank)
        self._rank, self._lengths = send(rank), send(lengths)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, token, …) to (spans of all rows, …) float32."""
        import torch

        entries = states[self._row, self._token].float()  # (entry, …)
        if self.name in ("first", "last") or not len(entries):
            return entries
        if self.name == "weighted":
            size = self._lengths.repeat_interleave(self._lengths)
            weights = (self._rank + 1) / (size * (size + 1) / 2)
            entries = entries * weights.reshape(-1, *[1] * (entries.ndim - 1))
        how = {"weighted": "sum"}.get(self.name, self.name)
        return torch.segment_reduce(entries, how, lengths=self._lengths, axis=0)


def _ranks(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """0 … length-1 for each length, one after another.

    >>> _ranks(np.array([2, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)
