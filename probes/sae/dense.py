"""What the variants with a sparsity penalty share: autograd, and a controller of the penalty.

The penalty's weight follows the mean number of active features: it grows while that is above the target and falls
while it is below. What the controller leaves is taken up by the threshold of inference, see `calibrate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from probes.sae.network import MEMORY, Network, Outcome

AHEAD = 0.06  # share of the training that the controller looks ahead
GAIN = 10.0  # how far the penalty's logarithm travels over a training that is off by a factor of e


@dataclass(frozen=True)
class Pass:
    """One forward pass."""

    codes: Tensor  # (rows, m), 0 or more
    penalty: Tensor  # scalar, what the controller weighs
    auxiliary: Tensor | None = None  # scalar, a further loss of weight 1


class Forward(Protocol):
    def __call__(self, net: Network, x: Tensor) -> Pass: ...


def penalised_backward(net: Network, x: Tensor, forward: Forward) -> Outcome:
    """Gradients of reconstruction + exp(penalty) · sparsity, by autograd; moves penalty and level."""
    half = net.recipe.precision != "float32"
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        made = forward(net, x)
        w = net.weights
        error = torch.addmm(w["decoder_bias"], made.codes, w["decoder"]).float() - x
    loss = error.square().sum(1).mean()
    weight = float(net.state["penalty"].exp()) * warm_up(net)
    total = loss + weight * net.recipe.sizes.d * made.penalty
    if made.auxiliary is not None:
        total = total + made.auxiliary
    total.backward()
    with torch.no_grad():
        active = made.codes > 0
        mean_active = active.sum() / len(x)
        control(net, float(mean_active))
    return Outcome(loss.detach(), mean_active, active.any(0))


def warm_up(net: Network) -> float:
    """The penalty comes in over the first twentieth of the steps, when the directions are still random."""
    return min(1.0, (int(net.state["count"]) + 1) / max(1, net.recipe.steps // 20))


def control(net: Network, active: float) -> None:
    """Raise or lower the logarithm of the penalty in proportion to that of active / target, soon from now.

    What counts is where the number of active features is heading: it answers late, and would overshoot.
    """
    target, steps = net.recipe.sizes.l0, net.recipe.steps
    now = math.log(max(active, 1e-2 * target) / (1.02 * target))
    first = not int(net.state["count"])
    before = now if first else float(net.state["active"])
    mean = before + (1 - MEMORY) * (now - before)
    net.state["active"].fill_(mean)
    heading = now + AHEAD * steps * (mean - before)
    net.state["penalty"] += GAIN / (steps + 200) * max(-2.0, min(2.0, heading))
