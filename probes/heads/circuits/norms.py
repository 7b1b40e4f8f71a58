"""A norm as the linear map that it is once its scale is held fixed, found by trying it out, whatever its class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_LARGE = 1e4  # so large that the norm's epsilon does not count
_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """norm(x) = scale · weight · (x − mean) + bias at given states x (n, d): `scale` (n, 1) is that of x.

    `centred` is false for RMS norms, which take no mean off. `bias` (d,) is zero for norms without one.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    centred: bool

    def back(self, direction: Tensor) -> Tensor:
        """The direction (n, d) on which x itself is read, for one (n, d) on which norm(x) is."""
        found = direction * self.weight * self.scale
        return found - found.mean(-1, keepdim=True) if self.centred else found


def freeze(norm: nn.Module, states: Tensor) -> FrozenNorm | None:
    """The norm at `states` (n, d); None for a module that is no LayerNorm and no RMS norm there."""
    d = states.shape[-1]
    dtype = next(norm.parameters(), states).dtype
    signs = torch.ones(d, device=states.device)
    signs[1::2] = -1

    def ask(x: Tensor) -> Tensor:
        with torch.no_grad():
            return norm(x.to(dtype)[None])[0].float()

    even, odd = ask(_LARGE * torch.ones_like(signs)[None])[0], ask(_LARGE * signs[None])[0]
    wanted = ask(states)
    if wanted.shape != states.shape:
        return None  # a projection
    for centred in (False, True):
        bias = even if centred else torch.zeros_like(even)
        shift = signs - signs.mean() if centred else signs
        size = shift.pow(2).mean().sqrt()
        weight = (odd - bias) * size / shift
        x = states.float()
        x = x - x.mean(-1, keepdim=True) if centred else x
        plain = x * weight
        scale = (plain * (wanted - bias)).sum(-1, keepdim=True) / plain.pow(2).sum(-1, keepdim=True)
        error = (plain * scale + bias - wanted).norm() / wanted.norm()
        if float(error) < _TOLERANCE * (1 if dtype == torch.float32 else 20):
            return FrozenNorm(weight, bias, scale, centred)
    return None
