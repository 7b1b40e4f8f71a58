"""Token states of a padded batch, laid out so that neighbours are neighbours and padding is zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def in_front(states: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens that count, in order from position 0, and how many each text has.

    states (batch, token, d), keep (batch, token) -> float64 (batch, most, d), zero behind the last one, and (batch,).
    So it does not matter where padding or other tokens to be left out stand, nor what they hold (NaN included).
    """
    import torch

    keep = keep.bool()
    counts = keep.sum(1)
    most = max(1, int(counts.max()))  # no text at all still has a shape
    order = torch.argsort(~keep, dim=1, stable=True)[:, :most]  # the kept ones first
    if states.device.type == "mps":  # has no float64
        states, order, counts = states.cpu(), order.cpu(), counts.cpu()
    packed = torch.gather(states, 1, order[..., None].expand(-1, -1, states.shape[-1])).double()
    return packed.masked_fill(~real(packed, counts)[..., None], 0.0), counts


def real(packed: Tensor, counts: Tensor) -> Tensor:
    """(batch, token): whether a token of `in_front` is one of the text."""
    import torch

    return torch.arange(packed.shape[1], device=counts.device) < counts[:, None]


def undefined_where(bad: Tensor, values: Tensor) -> Tensor:
    """`values` (batch,) with NaN where `bad`."""
    import torch

    return torch.where(bad, torch.nan, values)
