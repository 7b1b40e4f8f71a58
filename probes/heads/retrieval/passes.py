"""Forward passes of one trial, with and without a cache, that look only at the attention rows asked for."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probes.capture.attention import attention_calls
from probes.errors import DoesNotApply, NonFiniteError
from probes.models.completions import head_logits
from probes.models.trace import first_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from probes.capture.attention_call import AttentionCall
    from probes.models import Model

Look = Callable[["AttentionCall", int], None]


def head_blocks(model: Model) -> list[int]:
    """Blocks that have attention heads; `DoesNotApply` with the reason where none has."""
    found = [block.index for block in model.structure.blocks if block.heads and block.o_proj]
    if not found:
        why = model.structure.why_missing("z", 0)
        raise DoesNotApply(f"{model.name} has no attention heads to score: {why}")
    return found


def most_heads(model: Model) -> int:
    """The largest number of heads in a block, the width of (block, head) arrays."""
    return max(block.n_heads or 0 for block in model.structure.blocks)


@dataclass
class Context:
    """Text that the model has read: its keys and values, and how many tokens they are for."""

    cache: Any
    tokens: int = 0

    def copy(self) -> Context:
        return Context(copy.deepcopy(self.cache), self.tokens)


@contextlib.contextmanager
def aside(context: Context) -> Generator[Context]:
    """While this lasts, a context to read on in that leaves `context` as it was.

    Keys and values that are kept in full are shared and what was added is dropped afterwards; others (of a sliding
    window or a recurrent block, which forget) are copied.
    """
    from transformers.cache_utils import DynamicLayer

    layers: list[Any] = list(context.cache.layers)
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        yield context.copy()
        return
    held = [(layer.keys, layer.values) for layer in layers]
    try:
        yield Context(context.cache, context.tokens)
    finally:
        for layer, (keys, values) in zip(layers, held, strict=True):
            layer.keys, layer.values = keys, values


def empty_context(model: Model) -> Context:
    """A context with nothing read, in the cache that the model's class makes for itself."""
    from transformers import DynamicCache

    config: Any = model.structure.base.config
    return Context(DynamicCache(config=config))


def read_on(
    model: Model, ids: NDArray[np.int64], context: Context | None = None, look: Look | None = None
) -> Any:
    """The backbone's output for `ids` (T,), which follow `context` and are added to it.

    `look(call, first)` sees each block's attention; `first` is the position of the call's first key, above 0
    where a cache has dropped keys that a sliding window cannot see.
    """
    device = model.device
    past = 0 if context is None else context.tokens
    total = past + len(ids)
    tokens = torch.from_numpy(np.asarray(ids, np.int64))[None].to(device)
    arguments = model.forward_inputs(tokens, torch.ones(1, total, dtype=torch.long, device=device))
    if context is not None:
        arguments.update(use_cache=True, past_key_values=context.cache)
        if "position_ids" in arguments:
            arguments["position_ids"] = arguments["position_ids"][:, past:]
    with torch.no_grad(), _looking(model, look, total):
        output = model.structure.base(**arguments)
    if context is not None:
        context.tokens = total
    return output


@contextlib.contextmanager
def _looking(model: Model, look: Look | None, total: int) -> Generator[None]:
    if look is None:
        yield
        return
    see = look

    def handle(call: AttentionCall) -> None:
        see(call, total - call.shape[3])

    with attention_calls(model, handle, head_blocks(model)):
        yield


def row_logits(model: Model, output: Any, rows: Iterable[int]) -> Tensor:
    """The head's logits (row, vocabulary) in float32 at some rows of an output of the backbone."""
    last = first_tensor(output)
    assert last is not None
    found = head_logits(model, output, last[0, list(rows)]).float()
    if not torch.isfinite(found).all():
        raise NonFiniteError(f"logits of {model.name} hold NaN or infinity")
    return found
