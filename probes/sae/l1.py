"""The standard autoencoder: ReLU codes and an L1 penalty.

Bricken et al. 2023; Cunningham et al. 2023 (arXiv 2309.08600).
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.sae.dense import Pass, penalised_backward
from probes.sae.network import VARIANTS, Network, Outcome, Weights, level_of, scores
from probes.sae.settings import Recipe


class L1:
    """z = relu(pre-activation); decoder rows have length 1, so the penalty cannot be dodged by scaling."""

    name = "l1"
    threshold = True

    def extra(self, recipe: Recipe) -> Weights:
        return {}

    def forward(self, net: Network, x: Tensor) -> Pass:
        pre = scores(net.weights, x)
        codes = pre.relu()
        return Pass(pre, codes, codes.sum(1).mean() / net.recipe.sizes.l0)

    def backward(self, net: Network, x: Tensor) -> Outcome:
        return penalised_backward(net, x, self.forward)

    def frozen_bias(self, net: Network) -> Tensor:
        """Raised where training ended with too few codes; it makes up for some of the penalty's shrinkage."""
        return net.weights["encoder_bias"].detach() - min(level_of(net), 0.0)

    def frozen_threshold(self, net: Network) -> Tensor:
        return torch.full_like(net.weights["encoder_bias"], max(level_of(net), 0.0))


VARIANTS.add("l1", L1())
