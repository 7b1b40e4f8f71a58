"""BatchTopK: the k · rows largest pre-activations of a batch, as many in each row as it needs.

Bussmann, Leask & Nanda 2024 (arXiv 2412.06410). At inference a code is active above a fixed threshold, the running mean
of the smallest value that training kept, so that it does not depend on the rest of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probes.sae.network import VARIANTS, Network, follow, level_of, scores
from probes.sae.sparse import Codes, pair_dots
from probes.sae.topk import TopK


class BatchTopK(TopK):
    """TopK over the whole batch in training, over a threshold afterwards."""

    name = "batchtopk"
    threshold = True

    def choose(self, net: Network, x: Tensor) -> tuple[Codes, Tensor]:
        recipe = net.recipe
        pre = scores(net.weights, x, recipe.precision)
        wanted = round(recipe.sizes.l0 * len(x))
        places = largest(pre, wanted, guess=level_of(net))
        rows, cols = places // pre.shape[1], places % pre.shape[1]
        if recipe.precision == "preselect":
            w = net.weights
            values = pair_dots(x, rows, w["encoder"], cols) + w["encoder_bias"][cols]
        else:
            values = pre.view(-1)[places].float()
        least = float(values.min()) if len(values) else 0.0
        follow(net, least)
        return Codes(rows, cols, values.clamp_min(0), len(x)), pre

    def frozen_threshold(self, net: Network) -> Tensor:
        bias = net.weights["encoder_bias"]
        return torch.full_like(bias, max(level_of(net), 0.0))


def largest(pre: Tensor, wanted: int, guess: float) -> Tensor:
    """Places in the flattened pre (rows, m) of its `wanted` largest positive values, ascending.

    Only values above 0.7 times the last threshold (`guess`) are sorted, where those are enough.
    """
    flat = pre.reshape(-1)
    for floor in (0.7 * guess, 0.0):
        found = (flat > floor).nonzero()[:, 0]
        if len(found) >= wanted or floor <= 0:
            break
    if len(found) > wanted:
        best = flat[found].topk(wanted, sorted=False)[1]
        found = found[best].sort()[0]
    return found


VARIANTS.add("batchtopk", BatchTopK())
