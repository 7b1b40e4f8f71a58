"""The standard autoencoder: ReLU codes and an L1 penalty.

Bricken et al. 2023; Cunningham et al. 2023 (arXiv 2309.08600).
"""

from __future__ import annotations

from torch import Tensor

from probes.sae.dense import Pass, penalised_backward
from probes.sae.network import (
    VARIANTS,
    Network,
    Outcome,
    Weights,
    raised_bias,
    scores,
    threshold_above,
)
from probes.sae.settings import Recipe


class L1:
    """z = relu(pre-activation); decoder rows have length 1, so the penalty cannot be dodged by scaling."""

    name = "l1"
    threshold = True

    def extra(self, recipe: Recipe) -> Weights:
        return {}

    def forward(self, net: Network, x: Tensor) -> Pass:
        codes = scores(net.weights, x).relu()
        return Pass(codes, codes.sum(1).mean() / net.recipe.sizes.l0)

    def backward(self, net: Network, x: Tensor) -> Outcome:
        return penalised_backward(net, x, self.forward)

    def score(self, net: Network, x: Tensor) -> Tensor:
        return scores(net.weights, x)

    def frozen_bias(self, net: Network, level: float) -> Tensor:
        """Raised where training ended with too few codes; it makes up for some of the penalty's shrinkage."""
        return raised_bias(net, level)

    def frozen_threshold(self, net: Network, level: float) -> Tensor:
        return threshold_above(net, level)


VARIANTS.add("l1", L1())
