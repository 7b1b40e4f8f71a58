"""Seeing and changing the attention of a live model, whatever its class: eager or fused, grouped, biased or capped.

A hook before each block and one before its output projection bound the stretch of the forward pass in which the only
fused attention, or softmax over (batch, head, query, key), is that block's own; a `TorchFunctionMode` watches for it.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from probes.capture.attention_call import AttentionCall, read_call
from probes.errors import DoesNotApply, ModelError

if TYPE_CHECKING:
    from probes.models import Model
    from probes.models.structure import Block, Structure

Handle = Callable[[AttentionCall], "AttentionCall | Tensor | None"]


@dataclass(frozen=True)
class _Handler:
    handle: Handle
    blocks: frozenset[int]


class _Watch(TorchFunctionMode):
    """One per model in use: knows which block computes now, and asks the handlers in the order they came."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.handlers: list[_Handler] = []
        self._now: Block | None = None
        self._seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # fmt: skip
        kwargs = kwargs or {}
        block = self._now
        if block is None or block.heads is None:
            return func(*args, **kwargs)
        call = read_call(block.index, block.heads, func, args, kwargs)
        if call is None:
            return func(*args, **kwargs)
        if self._seen:
            raise ModelError(f"block {block.index} of {self.name} computes attention twice")
        self._seen = True
        found = self._asked(call)
        if found is call:  # unchanged: the very call that the model made, to the bit
            return func(*args, **kwargs)
        return found.result() if isinstance(found, AttentionCall) else found

    def _asked(self, call: AttentionCall) -> AttentionCall | Tensor:
        for handler in list(self.handlers):
            if call.block not in handler.blocks:
                continue
            answer = handler.handle(call)
            if isinstance(answer, Tensor):
                return answer
            call = call if answer is None else answer
        return call

    def enter(self, block: Block) -> None:
        wanted = any(block.index in handler.blocks for handler in self.handlers)
        self._now, self._seen = (block if wanted else None), False

    def leave(self, block: Block) -> None:
        passed = self._now is block and not self._seen
        self._now = None
        if passed:
            raise ModelError(
                f"block {block.index} of {self.name} computes its attention out of sight: "
                'load the model with attn_implementation="sdpa" or "eager"'
            )

    def hooks(self, structure: Structure) -> list[Any]:
        handles: list[Any] = []
        for block in structure.blocks:
            if block.o_proj is None or block.heads is None:
                continue
            handles.append(block.module.register_forward_pre_hook(_call(self.enter, block)))
            handles.append(block.o_proj.register_forward_pre_hook(_call(self.leave, block)))
        return handles


def _call(function: Callable[[Block], None], block: Block) -> Callable[..., None]:
    return lambda *_: function(block)


_watches: weakref.WeakKeyDictionary[nn.Module, _Watch] = weakref.WeakKeyDictionary()  # in use now


@contextlib.contextmanager
def attention_calls(
    model: Model, handle: Handle, blocks: Iterable[int] | None = None
) -> Generator[None]:
    """While the context lasts, `handle(call)` is asked about the attention of each block in every forward pass.

    `handle` answers None to leave the call as it is (bit for bit), another `AttentionCall` to put in its place, or a
    tensor that becomes the result of the model's own attention function. Contexts may be nested: the inner one sees
    what the outer one has made of the call, so reading inside `temperature` reads the changed pattern.

    `blocks` are the blocks asked about, all by default. Only passes in this thread are seen. A context that changes
    anything should enter `probes.capture.hooks.marked_edited` as well.

    Raises `DoesNotApply` with the reason where a block has no attention heads, `InputError` for a block that does not
    exist; the pass raises `ModelError` where attention runs in a kernel that cannot be seen into.

    Examples:
        >>> def sink_share(model, inputs):  # attention that the first token gets, per block and head
        ...     shares = {}
        ...     def look(call):
        ...         shares[call.block] = call.pattern()[..., 0].mean((0, 2))  # (batch, head, query) -> (head,)
        ...     with torch.inference_mode(), attention_calls(model, look):
        ...         model.hf_model(**inputs)
        ...     return shares
    """
    handler = _Handler(handle, check_blocks(model, blocks))
    base = model.structure.base
    watch = _watches.get(base)
    if watch is not None:
        watch.handlers.append(handler)
        try:
            yield
        finally:
            watch.handlers.remove(handler)
        return
    watch = _Watch(model.name)
    watch.handlers.append(handler)
    handles = watch.hooks(model.structure)
    _watches[base] = watch
    try:
        with watch:
            yield
    finally:
        del _watches[base]
        for each in handles:
            each.remove()


def check_blocks(model: Model, blocks: Iterable[int] | None) -> frozenset[int]:
    """The block numbers asked for, all when None; `DoesNotApply` for the first that has no attention heads."""
    chosen = frozenset(range(model.n_layers) if blocks is None else blocks)
    for index in sorted(chosen):
        try:
            model.structure.module_for("z", index)
        except DoesNotApply:
            raise DoesNotApply(
                f"attention of block {index} of {model.name}: {model.structure.why_missing('z', index)}"
            ) from None
    return chosen
