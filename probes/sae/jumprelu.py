"""JumpReLU: a learned threshold per feature, below which a code is zero (Rajamanoharan et al. 2024, arXiv 2407.14435).

The step has no gradient; a rectangle of width `BANDWIDTH` around the threshold stands in for its derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probes.sae.dense import Pass, penalised_backward
from probes.sae.network import VARIANTS, Network, Outcome, Weights, scores
from probes.sae.settings import Recipe

BANDWIDTH = 0.5  # of states with a mean square of 1 per dimension
START = 0.5  # first threshold


class _Step(torch.autograd.Function):
    """1 where pre > threshold; the threshold's gradient is −rectangle((pre − threshold) / width) / width."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < BANDWIDTH / 2
        return None, -(grads[0] * near).sum(0) / BANDWIDTH


class _Jump(torch.autograd.Function):
    """pre where pre > threshold, else 0; the threshold's gradient is −threshold/width · rectangle."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        pre, threshold = ctx.saved_tensors
        near = (pre - threshold).abs() < BANDWIDTH / 2
        to_threshold = -(threshold / BANDWIDTH) * (grads[0] * near).sum(0)
        return grads[0] * (pre > threshold), to_threshold


class JumpReLU:
    """z = pre-activation where it exceeds exp(log_threshold), trained on the number of active features itself."""

    name = "jumprelu"
    threshold = True

    def extra(self, recipe: Recipe) -> Weights:
        return {"log_threshold": torch.full((recipe.sizes.m,), START).log()}

    def forward(self, net: Network, x: Tensor) -> Pass:
        pre = scores(net.weights, x)
        threshold = net.weights["log_threshold"].exp()
        active: Any = _Step.apply(pre, threshold)
        codes: Any = _Jump.apply(pre, threshold)
        return Pass(codes, active.sum(1).mean() / net.recipe.sizes.l0)

    def backward(self, net: Network, x: Tensor) -> Outcome:
        return penalised_backward(net, x, self.forward)

    def score(self, net: Network, x: Tensor) -> Tensor:
        pre = scores(net.weights, x)
        above = pre - net.weights["log_threshold"].exp()
        return above.masked_fill_(pre <= 0, -torch.inf)

    def frozen_bias(self, net: Network, level: float) -> Tensor:
        return net.weights["encoder_bias"].detach()

    def frozen_threshold(self, net: Network, level: float) -> Tensor:
        return (net.weights["log_threshold"].detach().exp() + level).clamp_min(0)


VARIANTS.add("jumprelu", JumpReLU())
