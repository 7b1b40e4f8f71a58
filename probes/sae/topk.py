"""TopK: the k largest pre-activations of each row, with an auxiliary loss that revives dead features.

Gao et al. 2024 (arXiv 2406.04093). The backward pass is written by hand and touches only active codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.sae.network import VARIANTS, Network, Outcome, Weights, scores
from probes.sae.settings import Recipe
from probes.sae.sparse import Codes, flat_codes, pair_dots, reconstruction_gradients, top_k

AUX_ROWS = 4  # the auxiliary loss is estimated on every batch's first quarter: it costs as much as the main one


class TopK:
    """z = relu of the k largest; every row has k active features, where as many scores are positive."""

    name = "topk"
    threshold = False

    def extra(self, recipe: Recipe) -> Weights:
        return {}

    def choose(self, net: Network, x: Tensor) -> tuple[Codes, Tensor]:
        """Codes of the batch, and the pre-activations (rows, m) they were chosen from."""
        recipe, k = net.recipe, net.recipe.sizes.k
        pre = scores(net.weights, x, recipe.precision)
        if recipe.precision == "preselect":
            values, cols = _rescored(net.weights, x, pre, k)
        else:
            values, cols = top_k(pre, k)
        return flat_codes(values.float(), cols), pre

    def prefixes(self, recipe: Recipe) -> tuple[int, ...]:
        return (recipe.sizes.m,)

    @torch.no_grad()
    def backward(self, net: Network, x: Tensor) -> Outcome:
        codes, pre = self.choose(net, x)
        w = net.weights
        sums = reconstruction_gradients(
            codes, x, x, w["decoder"], w["decoder_bias"], self.prefixes(net.recipe)
        )
        for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
            net.add_gradient(name, getattr(sums, name))
        revive(net, x, sums.error, pre)
        positive = codes.values > 0
        fired = torch.zeros(len(w["decoder"]), dtype=torch.bool, device=x.device)
        fired[codes.cols[positive]] = True
        return Outcome(sums.squares[-1] / len(x), positive.sum() / len(x), fired)

    def frozen_bias(self, net: Network) -> Tensor:
        return net.weights["encoder_bias"].detach()

    def frozen_threshold(self, net: Network) -> Tensor | None:
        return None


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
def revive(net: Network, x: Tensor, error: Tensor, pre: Tensor) -> None:
    """AuxK: gradients of how well the dead features alone explain what the living ones leave (error is held fixed)."""
    recipe = net.recipe
    if not recipe.aux_k or not recipe.aux_weight:
        return
    dead = net.dead().nonzero()[:, 0]
    if not len(dead):
        return
    n = max(1, len(x) // AUX_ROWS)
    k = min(recipe.aux_k, len(dead))
    values, cols = top_k(pre[:n].index_select(1, dead).float(), k)
    w = net.weights
    sums = reconstruction_gradients(
        flat_codes(values, cols), x[:n], -error[:n], w["decoder"][dead], None, (len(dead),)
    )
    weight = recipe.aux_weight * k / recipe.aux_k
    for name in ("encoder", "encoder_bias", "decoder"):
        whole = net.weights[name].grad
        assert whole is not None
        whole.index_add_(0, dead, getattr(sums, name), alpha=weight)


VARIANTS.add("topk", TopK())
