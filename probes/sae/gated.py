"""Gated: one path says which features are active, another how strongly (Rajamanoharan et al. 2024, arXiv 2404.16014).

Both share the encoder's directions. The L1 penalty acts on the gate alone, so magnitudes are not shrunk; an auxiliary
reconstruction from the gate, through a decoder that is held fixed, keeps the gate informative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.sae.dense import Pass, penalised_backward
from probes.sae.network import VARIANTS, Network, Outcome, Weights, scores
from probes.sae.settings import Recipe


class Gated:
    """z = 1[a + encoder_bias > 0] · relu(exp(magnitude_log_scale) · a + magnitude_bias) with a = x·encoderᵀ."""

    name = "gated"
    threshold = True

    def extra(self, recipe: Recipe) -> Weights:
        m = recipe.sizes.m
        return {"magnitude_log_scale": torch.zeros(m), "magnitude_bias": torch.zeros(m)}

    def forward(self, net: Network, x: Tensor) -> Pass:
        w = net.weights
        gate, size = self._paths(net, x)
        open_ = gate.relu()
        shadow = torch.addmm(w["decoder_bias"].detach(), open_, w["decoder"].detach()).float()
        auxiliary = (shadow - x).square().sum(1).mean()
        penalty = open_.sum(1).mean() / net.recipe.sizes.l0
        codes = (gate > 0) * size
        return Pass(codes, penalty, auxiliary)

    def _paths(self, net: Network, x: Tensor) -> tuple[Tensor, Tensor]:
        w = net.weights
        gate = scores(w, x)
        direction = gate - w["encoder_bias"]
        return gate, (direction * w["magnitude_log_scale"].exp() + w["magnitude_bias"]).relu()

    def backward(self, net: Network, x: Tensor) -> Outcome:
        return penalised_backward(net, x, self.forward)

    def score(self, net: Network, x: Tensor) -> Tensor:
        """The gate's, where the size is positive: otherwise the code is zero though the gate be open."""
        gate, size = self._paths(net, x)
        return gate.masked_fill_(size <= 0, -torch.inf)

    def frozen_bias(self, net: Network, level: float) -> Tensor:
        return net.weights["encoder_bias"].detach()

    def frozen_threshold(self, net: Network, level: float) -> Tensor:
        return torch.full_like(net.weights["encoder_bias"], level)


VARIANTS.add("gated", Gated())
