"""Recording one forward pass: which module ran when, on which tensor, giving which tensor.

Everything that finds the structure of a model works on these records, so nothing has to know the
names of classes. Tensors stay alive while a record lives: a freed buffer could be handed out again,
and two different tensors would then look like one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

Key = tuple[int, tuple[int, ...], tuple[int, ...]]


def key(tensor: Tensor) -> Key:
    """Identity of a tensor: where its data lie, shape and strides; a view of all of it is the same."""
    return (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()))


def first_tensor(value: Any) -> Tensor | None:
    """The tensor itself, or the first one in a tuple, list or mapping; None where there is none.

    Blocks of some transformers releases return a bare tensor, of others a tuple.

    >>> first_tensor((None, torch.zeros(2), 3)).shape
    torch.Size([2])
    """
    if isinstance(value, Tensor):
        return value
    members: Any = ()
    if isinstance(value, Mapping):
        members = cast("Mapping[str, Any]", value).values()
    elif isinstance(value, (tuple, list)):
        members = cast("tuple[Any, ...]", value)
    return next((member for member in members if isinstance(member, Tensor)), None)


def with_first_tensor(value: Any, new: Tensor) -> Any:
    """`value` with its first tensor replaced by `new`; a new container, the given one is not edited.

    >>> with_first_tensor((torch.zeros(1), "cache"), torch.ones(1))
    (tensor([1.]), 'cache')
    """
    if isinstance(value, Tensor):
        return new
    if isinstance(value, Mapping):
        mapping = cast("Mapping[str, Any]", value)
        name = next(k for k, member in mapping.items() if isinstance(member, Tensor))
        return cast("Any", type(mapping))(**{**mapping, name: new})
    members = list(cast("tuple[Any, ...]", value))
    place = next(i for i, member in enumerate(members) if isinstance(member, Tensor))
    members[place] = new
    return type(value)(members) if type(value) in (tuple, list) else type(value)(*members)


def copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


@dataclass(eq=False)
class Call:
    """One call of one module; `start` and `end` order all starts and ends of a pass.

    `input` and `output` are the very tensors (for identity), `given` and `result` their values then.
    """

    path: str
    module: nn.Module
    start: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    input: Tensor | None  # the first tensor among args, then kwargs
    given: Tensor | None  # a copy of it: some models add to a tensor in place later
    output: Tensor | None = None
    result: Tensor | None = None  # a copy of the output
    end: int = -1

    def holds(self, tensor: Tensor) -> bool:
        """Whether `tensor` is among the arguments."""
        wanted = key(tensor)
        return any(
            isinstance(value, Tensor) and key(value) == wanted
            for value in (*self.args, *self.kwargs.values())
        )


@dataclass
class Trace:
    """All finished calls of a pass, in the order in which they started."""

    calls: list[Call] = field(default_factory=list[Call])
    clock: int = 0

    def of(self, module: nn.Module) -> list[Call]:
        return [call for call in self.calls if call.module is module]


@contextlib.contextmanager
def recording(root: nn.Module, prefix: str = "") -> Generator[Trace]:
    """Record every module call under `root` (itself included) while the context is open."""
    trace = Trace()
    open_calls: list[Call] = []

    def before(path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = first_tensor((*args, *kwargs.values()))
        call = Call(path, module, trace.clock, args, dict(kwargs), given, copied(given))
        trace.clock += 1
        trace.calls.append(call)
        open_calls.append(call)

    def after(module: nn.Module, output: Any) -> None:
        while open_calls:
            call = open_calls.pop()
            if call.module is module:
                call.output = first_tensor(output)
                call.result = copied(call.output)
                call.end = trace.clock
                trace.clock += 1
                return

    handles: list[Any] = []
    try:
        for path, module in root.named_modules(prefix=prefix):

            def enter(
                module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: str = path
            ) -> None:
                before(path, module, args, kwargs)

            def leave(module: nn.Module, args: Any, output: Any) -> None:
                after(module, output)

            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave))
        yield trace
    finally:
        for handle in handles:
            handle.remove()
    trace.calls = [call for call in trace.calls if call.end >= 0]


@contextlib.contextmanager
def in_float32(module: nn.Module) -> Generator[None]:
    """Run `module` in float32 for a while; half-precision weights come back bit for bit.

    A sum is checked by subtracting, which half precision is too coarse for.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point() and tensor.dtype != torch.float32:
                kept.append((tensor, tensor.data))
                tensor.data = tensor.data.float()
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


@contextlib.contextmanager
def replacing_forward(modules: Iterable[nn.Module], answer: Callable[..., Any]) -> Generator[None]:
    """While the context lasts, each of `modules` computes `answer(*args, **kwargs)` and nothing else; hooks stay."""
    replaced: list[Any] = list(modules)
    before = [vars(module).get("forward") for module in replaced]
    try:
        for module in replaced:
            module.forward = answer
        yield
    finally:
        for module, forward in zip(replaced, before, strict=True):
            if forward is not None:
                module.forward = forward
            elif "forward" in vars(module):
                del module.forward
