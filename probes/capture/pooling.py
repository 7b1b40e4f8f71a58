"""Pooling: one vector per text out of its tokens' states, right for every side of padding.

A `Pooler` is made once per batch from the mask of tokens that count; calling it on states of shape
(batch, token, …) gives (batch, …) in float32. Sums run in float32 for half-precision states too. What stands at a
token that does not count (padding, or special tokens where they are left out) never matters, NaN included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from probes.errors import DataError
from probes.registry import Registry

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Pooling:
    """A rule. `weights` gives (batch, token) float32 that sum to one, from the rank 1, 2, … of each token that counts;
    it is None for the rules that are no weighted mean: `max`, and `none` (all tokens, one after another).
    """

    name: str
    summary: str
    weights: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None


def _mean(keep: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    return keep / keep.sum(1, keepdim=True)


def _weighted(keep: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    ranked = rank * keep
    return ranked / ranked.sum(1, keepdim=True)


def _first(keep: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    return keep * (rank == 1)


def _last(keep: torch.Tensor, rank: torch.Tensor) -> torch.Tensor:
    return keep * (rank == keep.sum(1, keepdim=True))


POOLINGS: Registry[Pooling] = Registry("pooling")
for _pooling in (
    Pooling("mean", "mean of the tokens", _mean),
    Pooling("last", "the last token", _last),
    Pooling("first", "the first token (CLS of BERT-like models)", _first),
    Pooling("max", "maximum of every coordinate", None),
    Pooling("weighted", "mean weighted by position 1, 2, … n (SGPT, Muennighoff 2022)", _weighted),
    Pooling("none", "every token", None),
):
    POOLINGS.add(_pooling.name, _pooling)


class Pooler:
    """Pools the states of one batch.

    Args:
        name: a name in `POOLINGS`.
        keep: (batch, token), true where a token counts. Every row needs one such token: `DataError` otherwise.

    Examples:
        >>> import torch
        >>> states = torch.tensor([[[1.0], [3.0], [100.0]]])  # (batch 1, token 3, d 1)
        >>> keep = torch.tensor([[True, True, False]])  # the third token is padding
        >>> {name: Pooler(name, keep)(states).tolist() for name in ("mean", "last", "weighted", "none")}
        {'mean': [[2.0]], 'last': [[3.0]], 'weighted': [[2.333...]], 'none': [[1.0], [3.0]]}
    """

    def __init__(self, name: str, keep: torch.Tensor) -> None:
        rule = POOLINGS[name]
        self.name = name
        self.keep = keep.bool()  # (batch, token)
        empty = (~self.keep.any(1)).nonzero().flatten().tolist()
        if empty:
            raise DataError(f"row {empty[0]} of the batch has no token to pool")
        self._all = bool(self.keep.all())
        self._pick: torch.Tensor | None = None  # (batch,): the one token that first and last take
        self._weights: torch.Tensor | None = None  # (batch, 1, token)
        if rule.weights is not None:
            numbers = self.keep.float()
            weights = rule.weights(numbers, numbers.cumsum(1))
            if name in ("first", "last"):
                self._pick = weights.argmax(1)
            else:
                self._weights = weights.unsqueeze(1)

    @cached_property
    def counts(self) -> list[int]:
        """How many rows of the result belong to each row of the batch."""
        return self.keep.sum(1).tolist() if self.name == "none" else [1] * len(self.keep)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, token, …) to (batch, …) float32; `none`: (tokens that count, …) in the states' own dtype."""
        if states.shape[:2] != self.keep.shape:
            raise DataError(
                f"states of shape {tuple(states.shape)} do not fit {tuple(self.keep.shape)} tokens"
            )
        if self.name == "none":
            return states[self.keep]  # (kept tokens, …): batch by batch, tokens in order
        flat = states.flatten(2)  # (batch, token, features)
        return self._pool(flat).reshape(states.shape[0], *states.shape[2:])

    def _pool(self, flat: torch.Tensor) -> torch.Tensor:
        import torch

        if self._pick is not None:
            return flat[torch.arange(len(flat), device=flat.device), self._pick].float()
        if self._weights is None:
            hidden = ~self.keep.unsqueeze(2)  # (batch, token, 1)
            return (flat if self._all else flat.masked_fill(hidden, -torch.inf)).amax(1).float()
        if (
            not self._all and flat.device.type != "cpu"
        ):  # asking an accelerator for a value would stall it
            return self._mean(flat.masked_fill(~self.keep.unsqueeze(2), 0))
        pooled = self._mean(flat)
        if not self._all and not bool(torch.isfinite(pooled).all()):
            # A masked token may hold NaN (rows of attention with nothing to attend to), and 0 · NaN is NaN.
            pooled = self._mean(flat.masked_fill(~self.keep.unsqueeze(2), 0))
        return pooled

    def _mean(self, flat: torch.Tensor) -> torch.Tensor:
        import torch

        assert self._weights is not None
        # One product reads the states once and keeps no masked copy: (b, 1, t) @ (b, t, f) -> (b, 1, f)
        return torch.bmm(self._weights, flat.float()).squeeze(1)
