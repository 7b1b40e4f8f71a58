"""Losses that make early layers and few coordinates useful, each a modifier of the loss that suits the data.

All but one are sentence-transformers' own. Starbucks is written here from its paper: the loss at a fixed list of
(layer, dim) pairs, all of them at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from probes.errors import DoesNotApply, InputError
from probes.exits.grid import default_dims
from probes.exits.training.rows import Objective
from probes.registry import Registry

Pair = tuple[int, int]  # layer, dim
Features = dict[str, Tensor]

MOST_PAIRS = 6  # as in the paper
KL_TEMPERATURE = 0.3  # that of sentence-transformers' AdaptiveLayerLoss


@dataclass(frozen=True)
class LossPlan:
    """What a loss is made for: `pairs` of Starbucks from small to large, and `dims` of the others, ascending."""

    n_layers: int
    pairs: tuple[Pair, ...]
    dims: tuple[int, ...]


LossBuilder = Callable[[Any, nn.Module, LossPlan], nn.Module]
LOSSES: Registry[LossBuilder] = Registry("loss")


def starbucks_pairs(n_layers: int, d: int) -> tuple[Pair, ...]:
    """At most six pairs: layers evenly spaced up to the last, dims powers of two up to d.

    >>> starbucks_pairs(12, 768)
    ((2, 32), (4, 64), (6, 128), (8, 256), (10, 512), (12, 768))
    >>> starbucks_pairs(3, 32)
    ((1, 8), (2, 16), (3, 32))
    """
    dims = default_dims(d)
    n = min(MOST_PAIRS, n_layers, len(dims))
    layers = [round(n_layers * (i + 1) / n) for i in range(n)]
    return tuple(zip(layers, dims[-n:], strict=True))


def check_pairs(pairs: Sequence[Pair], n_layers: int, d: int) -> tuple[Pair, ...]:
    """`pairs` in ascending order with the full model as the last; `InputError` for places that do not exist."""
    for layer, dim in pairs:
        if not (0 <= layer <= n_layers and 1 <= dim <= d):
            raise InputError(
                f"pair {layer}x{dim}: this model has layers 0 to {n_layers} and {d} coordinates"
            )
    return tuple(sorted({*pairs, (n_layers, d)}))


def _library() -> Any:
    try:
        return import_module("sentence_transformers.sentence_transformer.losses")
    except ModuleNotFoundError:  # before version 6
        return import_module("sentence_transformers.losses")


def base_loss(sentence_model: Any, objective: Objective) -> nn.Module:
    """The loss at one layer and width: CoSENT for scored pairs, multiple negatives ranking for the rest."""
    made = _library()
    if objective == "cosent":
        return made.CoSENTLoss(sentence_model)
    return made.MultipleNegativesRankingLoss(sentence_model)


class StarbucksLoss(nn.Module):
    """Mean over pairs (layer, dim) of `loss` on embeddings cut there, plus an alignment with the full embedding.

    The alignment of a pair is τ · KL(softmax(f/τ) ‖ softmax(e/τ)), e its embedding at unit length, f the first dim
    coordinates of the full one at unit length, not trained by it; τ = 0.3. The last pair is the full model.
    Paper: Zhuang et al. 2024 (Starbucks, arXiv 2410.13230), which adds the losses up; their mean keeps the size of
    a step independent of the number of pairs.
    """

    def __init__(
        self, model: Any, loss: Any, pairs: Sequence[Pair], alignment: float = 1.0
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.pairs = tuple(pairs)
        self.alignment = alignment

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        columns = [
            embeddings_at(self.model, features, self.pairs) for features in sentence_features
        ]
        total = torch.zeros((), device=columns[0][0].device)
        full = torch.cat([column[-1] for column in columns]).detach()  # (texts, d)
        for at, (_, dim) in enumerate(self.pairs):
            cut = [column[at] for column in columns]
            total = total + self.loss.compute_loss_from_embeddings(cut, labels)
            if at < len(self.pairs) - 1 and self.alignment > 0:
                target = functional.normalize(full[:, :dim], dim=-1) / KL_TEMPERATURE
                own = torch.cat(cut) / KL_TEMPERATURE
                divergence = functional.kl_div(
                    own.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True
                )  # fmt: skip
                total = total + self.alignment * KL_TEMPERATURE * divergence
        return total / len(self.pairs)

    def get_config_dict(self) -> dict[str, Any]:
        """What sentence-transformers asks of every loss."""
        return {
            "loss": type(self.loss).__name__,
            "pairs": self.pairs,
            "alignment": self.alignment,
        }


def embeddings_at(model: Any, features: Features, pairs: Sequence[Pair]) -> list[Tensor]:
    """Embeddings (texts, dim) at unit length of one column of texts, at every pair, from one pass."""
    transformer = model[0]
    config = transformer.auto_model.config
    before = config.output_hidden_states
    try:
        config.output_hidden_states = True
        states = transformer(dict(features))
    finally:
        config.output_hidden_states = before
    found: list[Tensor] = []
    for layer, dim in pairs:
        here = {**states, "token_embeddings": states["all_layer_embeddings"][layer]}
        for module in list(model)[1:]:
            here = module(here)
        found.append(functional.normalize(here["sentence_embedding"][:, :dim], dim=-1))
    return found


def exits_as_layers(sentence_model: Any, n_layers: int, tail: Sequence[nn.Module]) -> None:
    """Make the model hand out what it would return if it were cut at each layer.

    Where an architecture has a final norm, the library's `all_layer_embeddings` hold raw states at all layers but the
    last; a cut model norms them, so that is what has to be trained.
    """
    transformer = sentence_model[0]
    plain = transformer.forward

    def forward(features: Features, **more: Any) -> Features:
        found = plain(features, **more)
        states: Any = found.get("all_layer_embeddings")
        if states is None:
            return found
        if len(states) != n_layers + 1:
            raise DoesNotApply(
                f"the model hands out {len(states)} layers of {n_layers + 1}: exits of it cannot be trained"
            )
        changed: list[Tensor] = []
        for hidden in states[:-1]:
            for module in tail:
                hidden = module(hidden)
            changed.append(hidden)
        found["all_layer_embeddings"] = (*changed, states[-1])  # type: ignore[assignment]
        return found

    if tail:
        transformer.forward = forward


def _plain(model: Any, loss: nn.Module, plan: LossPlan) -> nn.Module:
    return loss


def _matryoshka(model: Any, loss: nn.Module, plan: LossPlan) -> nn.Module:
    made = _library()
    return made.MatryoshkaLoss(model, loss, list(reversed(plan.dims)))


def _adaptive_layer(model: Any, loss: nn.Module, plan: LossPlan) -> nn.Module:
    made = _library()
    return made.AdaptiveLayerLoss(model, loss)


def _matryoshka_2d(model: Any, loss: nn.Module, plan: LossPlan) -> nn.Module:
    made = _library()
    return made.Matryoshka2dLoss(model, loss, list(reversed(plan.dims)))


def _starbucks(model: Any, loss: nn.Module, plan: LossPlan) -> nn.Module:
    return StarbucksLoss(model, loss, plan.pairs)


LOSSES.add("plain", _plain)
LOSSES.add("matryoshka", _matryoshka)
LOSSES.add("adaptive-layer", _adaptive_layer)
LOSSES.add("2d-matryoshka", _matryoshka_2d)
LOSSES.add("starbucks", _starbucks)
