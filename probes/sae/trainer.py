"""One training step, and all of its state as named tensors: what is saved and loaded is the whole of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probes.errors import NonFiniteError
from probes.sae.network import Network, start_network
from probes.sae.settings import Recipe
from probes.sae.variants import VARIANTS

Row = dict[str, float]


class Trainer:
    """Takes batches of scaled states; Adam with decoder rows held at unit length.

    The part of the decoder's gradient that points along a row would only change its length, and is removed first.
    """

    def __init__(self, variant: str, recipe: Recipe, seed: int, device: torch.device) -> None:
        self.variant = VARIANTS[variant]
        self.recipe = recipe
        self.net: Network = start_network(self.variant, recipe, seed, device)
        self.optimiser = torch.optim.Adam(
            list(self.net.weights.values()), lr=recipe.learning_rate, fused=True
        )
        self.step_count = 0

    @property
    def done(self) -> bool:
        return self.step_count >= self.recipe.steps

    def step(self, x: Tensor) -> Row:
        """Train on x (rows, d); returns what happened, as tensors' values only when `row` asks for them."""
        net = self.net
        self.optimiser.zero_grad(set_to_none=True)
        outcome = self.variant.backward(net, x)
        with torch.no_grad():
            decoder = net.weights["decoder"]
            assert decoder.grad is not None
            along = (decoder.grad * decoder).sum(1, keepdim=True)
            decoder.grad.addcmul_(decoder, along, value=-1)
            rate = self.recipe.rate(self.step_count)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            self.optimiser.step()
            decoder.div_(torch.linalg.vector_norm(decoder, dim=1, keepdim=True))
            quiet = net.state["quiet"].add_(len(x))
            quiet[outcome.fired] = 0
            net.state["count"] += 1
        self.step_count += 1
        self._last = outcome
        return {"learning_rate": rate}

    def row(self) -> Row:
        """The last step as a row of the history; `NonFiniteError` when training has diverged."""
        outcome, state = self._last, self.net.state
        error = float(outcome.error) / self.recipe.sizes.d  # states are scaled to a variance of 1
        if not error < float("inf"):
            raise NonFiniteError(
                f"training diverged at step {self.step_count}: the error is {error}. "
                "Lower learning_rate, or look for outliers in the states"
            )
        return {
            "step": self.step_count,
            "fvu": error,
            "l0": float(outcome.active),
            "dead_share": float(self.net.dead().double().mean()),
            "penalty": float(state["penalty"].exp()),
            "learning_rate": self.recipe.rate(self.step_count - 1),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Weights, moments of Adam and state, by name; the same names for the same variant."""
        found = {f"weights.{name}": w.detach() for name, w in self.net.weights.items()}
        found |= {f"state.{name}": s for name, s in self.net.state.items()}
        for name, w in self.net.weights.items():
            moments: dict[str, Any] = self.optimiser.state[w]
            found |= {f"adam.{name}.{key}": value for key, value in moments.items()}
        return found

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `tensors` of the same recipe gave."""
        for name, w in self.net.weights.items():
            w.copy_(tensors[f"weights.{name}"])
            prefix = f"adam.{name}."
            moments = {key: t for key, t in tensors.items() if key.startswith(prefix)}
            self.optimiser.state[w] = {
                key.removeprefix(prefix): t.clone().to(w.device) for key, t in moments.items()
            }
        for name, s in self.net.state.items():
            s.copy_(tensors[f"state.{name}"])
        self.step_count = int(self.net.state["count"])
