"""The level above which codes are active at inference, so that as many are on new rows as were asked for.

A dictionary fits the rows it was trained on better than others, and a few more or fewer of its features are active on
new ones. So some rows are kept out of training where codes have a threshold, and the level is set on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.sae.network import Network, Variant

SHARE = 10  # one row in so many is held out,
MOST = 8192  # up to so many: the mean number of active features is then known to about one in a hundred
FEWEST = 500  # rows of data, below which none are held out: they would be too few to say much
RUN = 64  # neighbours are held out together: tokens of one text resemble each other
_PICKS = 4096


@dataclass(frozen=True)
class HeldOut:
    """Which of the rows numbered 0 … end − 1 are held out: one run of `run` rows, at random, in `every` runs."""

    end: int
    run: int
    every: int
    seed: int

    @classmethod
    def of(cls, n: int, seed: int) -> HeldOut | None:
        """For n rows; None where they are too few."""
        if n < FEWEST:
            return None
        return cls(n, min(RUN, max(1, n // 100)), max(SHARE, -(-n // MOST)), seed)

    def mask(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each row is held out: (rows,)."""
        picks = np.random.default_rng((self.seed, 5)).integers(self.every, size=_PICKS)
        runs = numbers // self.run
        chosen = runs % self.every == picks[runs // self.every % _PICKS]
        return chosen & (numbers < self.end)

    def numbers(self) -> NDArray[np.int64]:
        """The rows that are held out, ascending."""
        return np.flatnonzero(self.mask(np.arange(self.end)))


@torch.no_grad()
def calibrated_level(variant: Variant, net: Network, rows: Tensor, everything: Tensor) -> float:
    """The level that target_l0 scores per row exceed, on average over the scaled states `rows` (n, d).

    Rows are weighted to be as long, on average, as `everything` (N, d): long states have more active features, and that
    the held-out ones happen to be long would otherwise be most of the error.
    """
    m, l0 = net.recipe.sizes.m, net.recipe.sizes.l0
    weights = weights_like(rows, everything)
    wanted = 2 * max(1, round(l0 * len(rows)))  # enough whatever the weights
    best, theirs = rows.new_zeros(0), weights.new_zeros(0)
    size = max(1, (1 << 22) // m)
    for part, weight in zip(rows.split(size), weights.split(size), strict=True):
        scores = variant.score(net, part).float()
        some = scores > -torch.inf
        best = torch.cat([best, scores[some]])
        theirs = torch.cat([theirs, weight[:, None].expand_as(scores)[some]])
        if len(best) > wanted:
            best, chosen = best.topk(wanted, sorted=False)
            theirs = theirs[chosen]
    if not len(best):
        return 0.0
    best, order = best.double().sort(descending=True)
    through = int((theirs[order].cumsum(0) <= l0).sum())
    if through == len(best):  # all of them are let through
        return float(best[-1]) - 1.0
    return float(best[max(0, through - 1)] + best[through]) / 2


def weights_like(rows: Tensor, everything: Tensor) -> Tensor:
    """Weights (n,) with sum 1 under which length and squared length of rows (n, d) have the mean of `everything`."""

    def lengths(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1).double()
        return torch.stack([length, length.square()], 1)  # (n, 2)

    mine, wanted = lengths(rows), lengths(everything).mean(0)
    centred = mine - mine.mean(0)
    spread = torch.linalg.pinv(centred.T @ centred / len(rows), hermitian=True)
    weights = (1 + centred @ spread @ (wanted - mine.mean(0))).clamp_min(0)
    return weights / weights.sum()
