"""TopK: the k largest pre-activations of each row, with an auxiliary loss that revives dead features.

Gao et al. 2024 (arXiv 2406.04093). The backward pass is written by hand and touches only active codes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from probes.sae.network import VARIANTS, Network, Outcome, Weights, scores
from probes.sae.settings import Recipe
from probes.sae.sparse import Codes, flat_codes, pair_dots, reconstruction_gradients, top_k

AUX_ROWS = 4  # the auxiliary loss is estimated on every batch's first quarter: it costs as much as the main one
CPU_SCORES = (
    4 << 20
)  # scores (of 4 bytes) that are held at a time: with fewer, products of matrices are slower
OTHER_SCORES = 64 << 20


class TopK:
    """z = the k largest, whatever their sign: every row has exactly k active features (Gao et al., eq. 5)."""

    name = "topk"
    threshold = False

    def extra(self, recipe: Recipe) -> Weights:
        return {}

    def choose(self, net: Network, x: Tensor) -> Codes:
        """Codes of the batch x (rows, d)."""
        recipe, k = net.recipe, net.recipe.sizes.k
        found: list[tuple[Tensor, Tensor]] = []
        for part, pre in score_parts(net, x):
            if recipe.precision == "preselect":
                found.append(_rescored(net.weights, part, pre, k))
            else:
                found.append(top_k(pre, k))
        return flat_codes(
            torch.cat([v for v, _ in found]).float(), torch.cat([c for _, c in found])
        )

    def prefixes(self, recipe: Recipe) -> tuple[int, ...]:
        return (recipe.sizes.m,)

    @torch.no_grad()
    def backward(self, net: Network, x: Tensor) -> Outcome:
        codes = self.choose(net, x)
        w = net.weights
        sums = reconstruction_gradients(
            codes, x, x, w["decoder"], w["decoder_bias"], self.prefixes(net.recipe)
        )
        for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
            net.add_gradient(name, getattr(sums, name))
        revive(net, x, sums.error)
        active = codes.values != 0
        fired = torch.zeros(len(w["decoder"]), dtype=torch.bool, device=x.device)
        fired[codes.cols[active]] = True
        return Outcome(sums.squares[-1] / len(x), active.sum() / len(x), fired)

    def score(self, net: Network, x: Tensor) -> Tensor:
        return scores(net.weights, x)

    def frozen_bias(self, net: Network, level: float) -> Tensor:
        return net.weights["encoder_bias"].detach()

    def frozen_threshold(self, net: Network, level: float) -> Tensor | None:
        return None


def score_parts(net: Network, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some rows of x after others, with their pre-activations: those of all rows would be the largest tensor."""
    precision = net.recipe.precision
    names = ("encoder", "encoder_bias")
    held = CPU_SCORES if x.device.type == "cpu" else OTHER_SCORES
    if precision == "float32":
        weights = {name: net.weights[name] for name in names}
    else:
        weights, held = {name: net.weights[name].bfloat16() for name in names}, 2 * held
    for part in x.split(max(1, held // net.recipe.sizes.m)):
        yield part, scores(weights, part, precision)


def _rescored(w: Weights, x: Tensor, pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest among half as many again that bfloat16 thinks largest, scored in float32."""
    n, m = pre.shape
    wide = min(m, k + max(8, k // 2))
    cols = top_k(pre, wide)[1]
    flat = cols.reshape(-1)
    rows = torch.arange(n, device=x.device).repeat_interleave(wide)
    exact = pair_dots(x, rows, w["encoder"], flat) + w["encoder_bias"][flat]
    values, chosen = exact.view(n, wide).topk(k, dim=1, sorted=False)
    return values, cols.gather(1, chosen)


@torch.no_grad()
def revive(net: Network, x: Tensor, error: Tensor) -> None:
    """AuxK: gradients of how well the dead features alone explain what the living ones leave (error is held fixed)."""
    recipe = net.recipe
    if not recipe.aux_k or not recipe.aux_weight:
        return
    dead = net.dead().nonzero()[:, 0]
    if not len(dead):
        return
    n = max(1, len(x) // AUX_ROWS)
    k = min(recipe.aux_k, len(dead))
    theirs = {name: net.weights[name][dead] for name in ("encoder", "encoder_bias", "decoder")}
    values, cols = top_k(scores(theirs, x[:n], recipe.precision).float(), k)
    sums = reconstruction_gradients(
        flat_codes(values.relu_(), cols), x[:n], -error[:n], theirs["decoder"], None, (len(dead),)
    )
    weight = recipe.aux_weight * k / recipe.aux_k
    for name in ("encoder", "encoder_bias", "decoder"):
        whole = net.weights[name].grad
        assert whole is not None
        whole.index_add_(0, dead, getattr(sums, name), alpha=weight)


VARIANTS.add("topk", TopK())
