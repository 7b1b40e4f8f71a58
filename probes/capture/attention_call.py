"""One attention computation as it is met in a forward pass: what it attends to, and the same at another temperature.

Transformers computes attention in two ways. Fused (`scaled_dot_product_attention`) the weights are never made; eager,
they are a softmax over logits. An `AttentionCall` hides which of the two it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from probes.models.structure import Heads

Rows = Sequence[int] | Tensor | None


@dataclass(frozen=True)
class AttentionCall(ABC):
    """The attention of one block in one pass. Nothing is computed before it is asked for."""

    block: int
    heads: Heads

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(batch, head, query, key) of the whole pattern."""

    @abstractmethod
    def logits(self, rows: Rows = None, heads: Rows = None) -> Tensor:
        """(batch, head, query, key) in float32 or wider, scaled, bias added, -inf at masked keys."""

    @abstractmethod
    def scaled(self, tau: float) -> AttentionCall:
        """The same call with its logits, bias included, divided by `tau`; masks stay as they are."""

    @abstractmethod
    def result(self) -> Tensor:
        """What the model goes on with."""

    def pattern(self, rows: Rows = None, heads: Rows = None) -> Tensor:
        """The attention weights (batch, head, query, key), rows summing to one, in float32 or wider.

        Only the asked query `rows` and `heads` (numbers, all when None) are computed. A query that may attend to
        nothing has a row of zeros.
        """
        logits = self.logits(rows, heads)
        nothing = (logits == -torch.inf).all(-1, keepdim=True)
        return torch.softmax(logits, dim=-1).masked_fill(nothing, 0.0)


def _divided(numbers: Tensor, tau: float) -> Tensor:
    """`numbers` / `tau`, but for entries that mean "masked": divided, they could overflow or become visible."""
    masked = numbers <= torch.finfo(numbers.dtype).min / 2
    return torch.where(masked, numbers, numbers / tau)


def _indices(numbers: Rows, count: int, device: torch.device) -> Tensor:
    if numbers is None:
        return torch.arange(count, device=device)
    return torch.as_tensor(numbers, dtype=torch.long, device=device)


def _precise(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True)
class SoftmaxCall(AttentionCall):
    """A softmax over logits of (batch, head, query, key), or of (batch · head, query, key)."""

    given: Tensor
    function: Callable[[Tensor], Tensor]  # the softmax with its other arguments

    def _four_axes(self) -> Tensor:
        given = self.given
        return given if given.ndim == 4 else given.unflatten(0, (-1, self.heads.n))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        batch, head, query, key = self._four_axes().shape
        return batch, head, query, key

    def logits(self, rows: Rows = None, heads: Rows = None) -> Tensor:
        found = self._four_axes()
        if heads is not None:
            found = found[:, _indices(heads, 0, found.device)]
        if rows is not None:
            found = found[:, :, _indices(rows, 0, found.device)]
        hidden = found <= torch.finfo(found.dtype).min / 2
        return _precise(found).masked_fill(hidden, -torch.inf)

    def scaled(self, tau: float) -> AttentionCall:
        return replace(self, given=_divided(self.given, tau))

    def result(self) -> Tensor:
        return self.function(self.given)


@dataclass(frozen=True)
class FusedCall(AttentionCall):
    """A `scaled_dot_product_attention`. `mask` is boolean (true: may attend), added to the logits, or None.

    Keys may have fewer heads than queries. Transformers packs a single query of grouped heads as
    (batch, kv head, head of the group, d_head).
    """

    query: Tensor
    key: Tensor
    mask: Tensor | None
    scale: float
    rest: dict[str, Any]  # value, dropout_p, is_causal, enable_gqa

    @property
    def _packed(self) -> bool:
        return self.query.shape[1] != self.heads.n

    @property
    def shape(self) -> tuple[int, int, int, int]:
        queries = 1 if self._packed else self.query.shape[2]
        return self.query.shape[0], self.heads.n, queries, self.key.shape[2]

    def _unpacked(self) -> tuple[Tensor, Tensor | None]:
        """Queries (batch, head, query, d_head), and the mask for them."""
        if not self._packed:
            return self.query, self.mask
        batch, n, _, _ = self.shape
        query = self.query.reshape(batch, n, 1, -1)
        if self.mask is None or self.mask.ndim < 4 or self.mask.shape[1] == self.mask.shape[2] == 1:
            return query, self.mask
        kv, group = self.query.shape[1:3]
        wide = self.mask.expand(-1, kv, group, -1)
        return query, wide.reshape(len(wide), n, 1, -1)

    def logits(self, rows: Rows = None, heads: Rows = None) -> Tensor:
        query, mask = self._unpacked()
        device = query.device
        head = _indices(heads, self.heads.n, device)
        row = _indices(rows, query.shape[2], device)
        kv = head // (self.heads.n // self.key.shape[1])  # the key head that each query head reads
        found = _precise(query[:, head][:, :, row]) @ _precise(self.key[:, kv]).transpose(-1, -2)
        found = found * self.scale  # (batch, head, row, key)
        if self.rest["is_causal"]:  # aligned at the upper left
            later = torch.arange(found.shape[-1], device=device) > row[:, None]
            found = found.masked_fill(later, -torch.inf)
        if mask is None:
            return found
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        mask = mask if mask.shape[1] == 1 else mask[:, head]
        mask = mask if mask.shape[2] == 1 else mask[:, :, row]
        if mask.dtype == torch.bool:
            return found.masked_fill(~mask, -torch.inf)
        hidden = mask <= torch.finfo(mask.dtype).min / 2
        return (found + mask).masked_fill(hidden, -torch.inf)

    def scaled(self, tau: float) -> AttentionCall:
        mask = self.mask
        if mask is not None and mask.dtype != torch.bool:
            mask = _divided(mask, tau)
        return replace(self, mask=mask, scale=self.scale / tau)

    def result(self) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            self.query, self.key, attn_mask=self.mask, scale=self.scale, **self.rest
        )


_SOFTMAXES = (torch.nn.functional.softmax, torch.softmax, Tensor.softmax, torch.special.softmax)
_FUSED = torch.nn.functional.scaled_dot_product_attention


def read_call(
    block: int, heads: Heads, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AttentionCall | None:
    """The call as attention of `block`; None when it is another function, or a softmax over something else.

    Raises `TypeError` as the function itself does for arguments that it does not take.
    """
    if function is _FUSED:
        return _fused(block, heads, *args, **kwargs)
    if function not in _SOFTMAXES:
        return None
    name = "input" if "input" in kwargs else "self"
    given = args[0] if args else kwargs[name]
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    by_head = (given.ndim == 4 and given.shape[1] == heads.n) or (
        given.ndim == 3 and given.shape[0] % heads.n == 0
    )
    if not by_head or dim not in (-1, given.ndim - 1):
        return None
    others = {key: value for key, value in kwargs.items() if args or key != name}

    def softmax(logits: Tensor) -> Tensor:
        return function(logits, *args[1:], **others)

    return SoftmaxCall(block, heads, given, softmax)


def _fused(
    block: int,
    heads: Heads,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> FusedCall:
    rest = {
        "value": value,
        "dropout_p": dropout_p,
        "is_causal": is_causal,
        "enable_gqa": enable_gqa,
    }
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    return FusedCall(block, heads, query, key, attn_mask, factor, rest)
