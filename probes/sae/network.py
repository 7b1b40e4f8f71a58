"""The weights of an autoencoder in training, what it remembers from step to step, and what every variant offers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from probes.registry import Registry
from probes.sae.settings import Recipe

# The largest of many random projections are large by luck: at full length they reconstruct too much at first, and the
# loss lags behind for hundreds of steps. 1/√3 is also what a linear layer's usual start amounts to.
FIRST_GAIN = 3**-0.5
FIRST_PENALTY = -4.0  # logarithm; low, or features are killed before they point anywhere

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What one step says: error per row and dimension sum, how many codes were active, and which features fired."""

    error: Tensor  # scalar, mean over rows of the squared error of the whole dictionary
    active: Tensor  # scalar, mean number of active features per row
    fired: Tensor  # (m,) bool


@dataclass(frozen=True)
class Network:
    """Weights with their gradients, and the state that a checkpoint keeps beside them.

    `weights`: encoder (m, d), encoder_bias (m,), decoder (m, d) with rows of unit length, decoder_bias (d,), and what a
    variant adds. `state`: quiet (m,), rows since each feature fired; level (), running mean of the smallest value that
    BatchTopK kept; active (), running mean of the logarithm of active features over the target; penalty (), logarithm
    of the weight of the sparsity loss; count (), steps done.
    """

    weights: Weights
    state: dict[str, Tensor]
    recipe: Recipe

    def dead(self) -> Tensor:
        """Which features have not fired for `dead_after` rows: (m,) bool."""
        return self.state["quiet"] > self.recipe.dead_after

    def add_gradient(self, name: str, gradient: Tensor) -> None:
        weight = self.weights[name]
        weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)


class Variant(Protocol):
    """One way to be sparse. `backward` leaves gradients in the weights; `codes` is frozen inference."""

    name: str
    threshold: bool  # whether a code is active by a score above a level, and not by rank

    def extra(self, recipe: Recipe) -> Weights:
        """Weights beside the four common ones, at their start."""
        ...

    def backward(self, net: Network, x: Tensor) -> Outcome:
        """Gradients for the batch x (rows, d), and new values of what the state remembers of the sparsity."""
        ...

    def score(self, net: Network, x: Tensor) -> Tensor:
        """(rows, m): a code of x is active where this is above a level; −∞ where no level makes it so."""
        ...

    def frozen_bias(self, net: Network, level: float) -> Tensor:
        """(m,) encoder bias that inference uses."""
        ...

    def frozen_threshold(self, net: Network, level: float) -> Tensor | None:
        """(m,) threshold by which inference has the codes active whose score is above `level`; None by rank."""
        ...


VARIANTS: Registry[Variant] = Registry("variant")


def start_network(variant: Variant, recipe: Recipe, seed: int, device: torch.device) -> Network:
    """Random unit decoder rows, the encoder as the same rows, shorter; the same on every device for one seed."""
    generator = torch.Generator().manual_seed(seed)
    m, d = recipe.sizes.m, recipe.sizes.d
    decoder = torch.randn(m, d, generator=generator)
    decoder /= torch.linalg.vector_norm(decoder, dim=1, keepdim=True)
    weights: Weights = {
        "encoder": FIRST_GAIN * decoder,
        "encoder_bias": torch.zeros(m),
        "decoder": decoder,
        "decoder_bias": torch.zeros(d),
        **variant.extra(recipe),
    }
    state = {
        "quiet": torch.zeros(m, dtype=torch.int64),
        "level": torch.zeros((), dtype=torch.float64),
        "active": torch.zeros((), dtype=torch.float64),
        "penalty": torch.full((), FIRST_PENALTY, dtype=torch.float64),
        "count": torch.zeros((), dtype=torch.int64),
    }
    return Network(
        {name: w.to(device).requires_grad_() for name, w in weights.items()},
        {name: s.to(device) for name, s in state.items()},
        recipe,
    )


def scores(weights: Mapping[str, Tensor], x: Tensor, precision: str = "float32") -> Tensor:
    """Pre-activations x·encoderᵀ + bias: (rows, m), in bfloat16 unless the precision is float32."""
    if precision == "float32":
        return torch.addmm(weights["encoder_bias"], x, weights["encoder"].T)
    half = torch.bfloat16
    return torch.addmm(weights["encoder_bias"].to(half), x.to(half), weights["encoder"].to(half).T)


MEMORY = 0.9  # of running means: about the last dozen of steps


def raised_bias(net: Network, level: float) -> Tensor:
    """(m,) encoder bias, raised by as much as the level is below zero: no threshold can add to ReLU codes."""
    return net.weights["encoder_bias"].detach() - min(level, 0.0)


def threshold_above(net: Network, level: float) -> Tensor:
    """(m,) threshold that goes with `raised_bias`."""
    return torch.full_like(net.weights["encoder_bias"], max(level, 0.0))
