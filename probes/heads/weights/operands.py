"""What the attention of each block gets in one pass: queries, keys and the pattern, fused or eager."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from probes.capture.attention import attention_calls
from probes.capture.attention_call import AttentionCall, FusedCall
from probes.models import Model

_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)


@dataclass(frozen=True)
class Operands:
    """`pattern` (batch, head, query, key); `query` and `key` (batch, head or kv head, token, d_head) where seen."""

    pattern: Tensor
    query: Tensor | None
    key: Tensor | None


class _Products(TorchFunctionMode):
    """Keeps the factors of the last product of two stacks of matrices: in eager attention the first before softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # fmt: skip
        if func in _PRODUCTS and len(args) == 2 and args[0].ndim == args[1].ndim > 2:
            self.seen.append((args[0].detach().clone(), args[1].detach().clone()))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def watch_operands(model: Model, blocks: Sequence[int]) -> Generator[dict[int, Operands]]:
    """Collect the operands of every block in `blocks` during one pass made in the context."""
    found: dict[int, Operands] = {}
    products = _Products()

    def look(call: AttentionCall) -> None:
        pattern = call.pattern()
        if isinstance(call, FusedCall):
            found[call.block] = Operands(pattern, call.query.clone(), call.key.clone())
        else:
            found[call.block] = Operands(pattern, *_factors(call, products.seen))
        products.seen.clear()

    with products, attention_calls(model, look, blocks):
        yield found


def _factors(
    call: AttentionCall, seen: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor | None, Tensor | None]:
    """Queries and keys of an eager call: the first product since the last call that has a pattern's shape."""
    batch, n, query, key = call.shape
    width = call.heads.width
    for left, right in seen:
        left, right = (t if t.ndim == 4 else t.unflatten(0, (-1, n)) for t in (left, right))
        if left.shape == (batch, n, query, width) and right.shape == (batch, n, width, key):
            return left, right.transpose(-1, -2)
    return None, None
