"""What a head adds to the answer's logit from the needle: its values there, through its output matrix, to the head.

The direction is the gradient of (answer's logit - mean logit) with respect to the final residual stream at the row
where the answer is said: through the final norm as it stands there, gain and scale included (so a change of the norm's
scale by the head itself counts to first order). Logit caps and constant factors behind the head's matrix are left out.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from probes.capture.attention_call import AttentionCall, FusedCall
from probes.models.inputs import trial_inputs
from probes.models.trace import in_float32

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from probes.models import Model

_TOLERANCE = 1e-3
_reasons: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def no_contribution(model: Model) -> str | None:
    """Why direct contributions to the logits are not defined for this model; None where they are."""
    base = model.structure.base
    if base not in _reasons:
        _reasons[base] = _reason(model) or ""
    return _reasons[base] or None


def _reason(model: Model) -> str | None:
    from probes.capture.hooks import TorchRunner
    from probes.capture.sites import Place

    head = model.structure.lm_head
    weight = getattr(head, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        return "the language-model head has no plain weight matrix"
    for block in model.structure.blocks:
        for site, module in (("attn_out", block.attn_out), ("mlp_out", block.mlp_out)):
            if module is None:
                return f"site {site!r} of block {block.index}: {block.missing.get(site)}"
        if block.o_proj not in set(block.attn_out.modules() if block.attn_out else ()):
            return f"block {block.index} has a norm behind its output projection"
    seen: dict[Any, Tensor] = {}
    blocks = range(model.n_layers)
    places = [Place("resid_post", k) for k in range(model.n_layers + 1)]
    places += [Place(site, b) for site in ("attn_out", "mlp_out") for b in blocks]
    runner = TorchRunner(model, places)
    with in_float32(model.hf_model):  # half precision is too coarse for a sum told by subtracting
        runner(
            trial_inputs(model.hf_model, rows=1),
            lambda place, x: seen.__setitem__((place.site, place.number), x.double().clone()),
        )
    for b in blocks:
        before, after = seen["resid_post", b], seen["resid_post", b + 1]
        rest = after - before - seen["attn_out", b] - seen["mlp_out", b]
        if rest.norm() > _TOLERANCE * after.norm():
            return (
                f"block {b} does not simply add its attention and MLP to the residual stream"
                " (a norm behind it, or a factor)"
            )
    return None


def read_values(
    call: AttentionCall, rows: list[int], weights: Tensor, inside: Tensor
) -> Tensor | None:
    """What each head reads at needle keys less what it reads elsewhere: (row, head, d_head) in float32.

    `weights` (head, row, key) are its attention, `inside` (key,) says which keys are the needle's. None where the
    values cannot be seen (eager attention).
    """
    if not isinstance(call, FusedCall):
        return None
    value: Tensor = call.rest["value"]  # (1, kv head, key, d_head)
    sign = torch.where(inside, 1.0, -1.0).to(weights)
    group = call.heads.n // value.shape[1]
    wide = value[0].float().repeat_interleave(group, dim=0)  # (head, key, d_head)
    return ((weights * sign) @ wide).transpose(0, 1)


def contributions(
    model: Model, final: Tensor, answer: NDArray[np.int64], read: Mapping[int, Tensor]
) -> NDArray[np.float64]:
    """Mean over rows of each head's signed contribution in logits, (block, head); NaN where nothing was read.

    `final` (row, d) is the residual stream behind the last block, `read[block]` (row, head, d_head) from `read_values`.
    """
    from probes.heads.retrieval.passes import most_heads

    towards = _direction(model, final, answer)
    found = np.full((model.n_layers, most_heads(model)), np.nan)
    for index, values in read.items():
        block = model.structure.blocks[index]
        assert block.o_proj is not None
        rows, heads, width = values.shape
        z = values.reshape(1, rows, heads * width).to(model.dtype).clone().requires_grad_()
        with torch.enable_grad():
            out = block.o_proj(z)
        (gradient,) = torch.autograd.grad(out, z, towards[None].to(out))
        products = gradient[0].float().reshape(rows, heads, width) * values.float()
        found[index, :heads] = products.sum(-1).mean(0).double().cpu().numpy()
    return found


def _direction(model: Model, final: Tensor, answer: NDArray[np.int64]) -> Tensor:
    """d(logit of the answer - mean logit) / d(final residual stream), (row, d)."""
    head: Any = model.structure.lm_head
    weight: Tensor = head.weight
    target = torch.from_numpy(answer).to(weight.device)
    unembedding = (
        weight[target].float() - weight.mean(0, dtype=torch.float32)
    ).detach()  # (row, d)
    hidden = final.detach().clone()[None].requires_grad_()
    with torch.enable_grad():
        out = model.structure.apply_tail(hidden)
    (gradient,) = torch.autograd.grad(out, hidden, unembedding[None].to(out))
    return gradient[0].float()
