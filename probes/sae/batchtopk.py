"""BatchTopK: the k · rows largest pre-activations of a batch, as many in each row as it needs.

Bussmann, Leask & Nanda 2024 (arXiv 2412.06410). At inference a code is active above a fixed threshold, so that it does
not depend on the rest of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from probes.sae.network import MEMORY, VARIANTS, Network, raised_bias, threshold_above
from probes.sae.sparse import Codes, pair_dots
from probes.sae.topk import TopK, score_parts


class BatchTopK(TopK):
    """TopK over the whole batch in training, over a threshold afterwards."""

    name = "batchtopk"
    threshold = True

    def choose(self, net: Network, x: Tensor) -> Codes:
        recipe = net.recipe
        wanted = round(recipe.sizes.l0 * len(x))
        for floor in (
            0.7 * _level(net),
            0.0,
        ):  # few are above the last threshold: only they are sorted
            parts = (pre for _, pre in score_parts(net, x))
            places, values = largest(parts, wanted, floor)
            if len(places) >= wanted or floor <= 0:
                break
        rows, cols = places // recipe.sizes.m, places % recipe.sizes.m
        if recipe.precision == "preselect":
            w = net.weights
            values = pair_dots(x, rows, w["encoder"], cols) + w["encoder_bias"][cols]
        values = values.float()
        net.state["level"].mul_(MEMORY).add_((1 - MEMORY) * (values.min() if len(values) else 0.0))
        return Codes(rows, cols, values.clamp_min(0), len(x))

    def frozen_bias(self, net: Network, level: float) -> Tensor:
        return raised_bias(net, level)

    def frozen_threshold(self, net: Network, level: float) -> Tensor:
        return threshold_above(net, level)


def _level(net: Network) -> float:
    """Running mean of the smallest value kept, corrected for its start at zero."""
    count = int(net.state["count"])
    return float(net.state["level"]) / (1 - MEMORY**count) if count else 0.0


def largest(parts: Iterable[Tensor], wanted: int, floor: float) -> tuple[Tensor, Tensor]:
    """Places, ascending, and values of the `wanted` largest above `floor` in parts (rows, m) laid end to end.

    Fewer where not so many are above it; never many more than `wanted` are held at a time.
    """
    places: list[Tensor] = []
    values: list[Tensor] = []
    begin = 0
    for part in parts:
        flat = part.reshape(-1)
        here = (flat > floor).nonzero()[:, 0]
        places.append(here + begin)
        values.append(flat[here])
        begin += flat.numel()
        if sum(map(len, places)) > 2 * wanted:
            places, values = _best(places, values, wanted)
    places, values = _best(places, values, wanted)
    return places[0], values[0]


def _best(
    places: list[Tensor], values: list[Tensor], wanted: int
) -> tuple[list[Tensor], list[Tensor]]:
    where, what = torch.cat(places), torch.cat(values)
    if len(where) > wanted:
        chosen = what.topk(wanted, sorted=False)[1].sort()[0]
        where, what = where[chosen], what[chosen]
    return [where], [what]


VARIANTS.add("batchtopk", BatchTopK())
