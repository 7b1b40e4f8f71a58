"""A block run by itself on two nearly equal rows, so that what each of its modules does can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from probes.models.find_blocks import hidden_of
from probes.models.trace import Call, first_tensor, in_float32, recording

_ROUNDING = 3e-5  # relative to the largest coordinate of the token, float32


@dataclass(frozen=True)
class Replay:
    """One block run on two rows: x and out are (2, token, d); calls are those of its inner modules."""

    path: str
    x: Tensor
    out: Tensor
    calls: tuple[Call, ...]

    def per_token(self, tensor: Tensor | None) -> Tensor | None:
        """As (2, token, width), from that shape or from (2·token, width); None for any other."""
        rows, tokens, _ = self.x.shape
        if tensor is None or not tensor.is_floating_point():
            return None
        if tensor.ndim == 3 and tensor.shape[:2] == (rows, tokens):
            return tensor
        if tensor.ndim == 2 and tensor.shape[0] == rows * tokens:
            return tensor.reshape(rows, tokens, -1)
        return None

    def equal(self, a: Tensor, b: Tensor) -> bool:
        """Equal up to rounding, token by token: some tokens have states a thousand times larger."""
        scale = torch.stack([t.abs().amax(-1) for t in (a, b, self.x, self.out)]).amax(0)
        return bool(((a - b).abs().amax(-1) <= _ROUNDING * scale).all())


def replay_block(call: Call, place: int | str) -> Replay:
    """Run a block again in float32 on two rows that differ in token 0, which every later token sees."""
    hidden = hidden_of(call, place).float()
    x = hidden.clone()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape[-1], generator=generator).to(x.device)
    x[1, 0] += x[1].std() * noise
    args = [_as_float(value) for value in call.args]
    kwargs = {name: _as_float(value) for name, value in call.kwargs.items()}
    if isinstance(place, int):
        args[place] = x
    else:
        kwargs[place] = x
    original = x.clone()  # a block that adds in place would change what it is compared with
    with in_float32(call.module), torch.no_grad(), recording(call.module) as trace:
        out = first_tensor(call.module(*args, **kwargs))
    assert out is not None
    inner = tuple(c for c in trace.calls if c.module is not call.module)
    return Replay(call.path, original, out, inner)


def _as_float(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float()
    if isinstance(value, tuple):
        return tuple(_as_float(member) for member in cast("tuple[Any, ...]", value))
    return value
