"""The evidence a choice is made from: chains fixed on the tune part, and what the calibrate part says of each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.decision import Costs
from probes.exits.resample import Resamples
from probes.exits.walk import CLUSTER, FULL, MADE_UP

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]


def build_chains(
    scores: CandidateScores, tune: IntArray, costs: Costs | None = None
) -> pd.DataFrame:
    """The chains of one dataset: `chains_of` by the quality on its tune part."""
    values = scores.quality(list(scores.candidates), tune).tolist()
    quality = dict(zip(scores.candidates, values, strict=True))
    return chains_of(quality, scores.full, costs or Costs.counted(scores))


def chains_of(quality: Mapping[Candidate, float], full: Candidate, costs: Costs) -> pd.DataFrame:
    """One chain per variant: its cost–quality front on the tune part, most costly first, after the full model.

    A candidate is on the front when no cheaper (or equally cheap) one of its variant has at least its tune quality;
    going down the chain both cost and tune quality fall. Candidates as costly as the full model are left out. `cost` is
    the share of the full model's time, by `costs`.
    """
    rows: list[dict[str, Any]] = []
    for variant in dict.fromkeys(c.variant for c in quality):
        own = [c for c in quality if c.variant == variant and costs.saves(c, full)]
        front: list[Candidate] = []
        for candidate in sorted(own, key=lambda c: c.cost):
            if not front or quality[candidate] > quality[front[-1]]:
                front.append(candidate)
        for order, candidate in enumerate([full, *reversed(front)]):
            place = {
                "chain": variant or "raw",
                "order": order,
                "name": candidate.name,
                "variant": candidate.variant,
            }
            numbers = {
                "layer": candidate.layer,
                "dim": candidate.dim,
                "cost": costs.of(candidate),
                "tune_quality": quality[candidate],
            }
            rows.append({**place, **numbers})
    return pd.DataFrame(rows).astype({"variant": "string"})


def loss_table(scores: CandidateScores, wanted: list[Candidate], rows: IntArray) -> pd.DataFrame:
    """Calibrate losses, one row per example: `example`, `cluster`, `full`, and a column per candidate."""
    table = scores.losses([scores.full, *wanted], rows)
    columns: dict[str, Any] = {"example": rows, CLUSTER: scores.task.clusters[rows], FULL: table[0]}
    return pd.DataFrame(
        {**columns, **{c.name: line for c, line in zip(wanted, table[1:], strict=True)}}
    )


@dataclass(frozen=True)
class Drawn:
    """Bootstrap draws on one calibrate part: `quality` (candidates, draws), and (draws,) of the full model's quality,
    of what the made-up example adds to it, and of chance.
    """

    quality: Array
    full: Array
    made_up: Array
    chance: Array

    def times(self, weight: float) -> Drawn:
        return Drawn(*(weight * values for values in vars(self).values()))

    def plus(self, other: Drawn) -> Drawn:
        """Sums, draw by draw: of independent samples, each with resamples of its own."""
        return Drawn(*(vars(self)[key] + vars(other)[key] for key in vars(self)))

    def table(self, wanted: list[Candidate], full: Candidate) -> pd.DataFrame:
        """The table of `share_table`; `wanted` names the rows of `quality`."""
        shares = ratio(self.quality, self.full + self.made_up)
        shares[wanted.index(full)] = 1.0  # by definition, free of rounding
        evidence = {FULL: self.full - self.chance, MADE_UP: ratio(self.made_up, self.full)}
        return pd.DataFrame(
            {**evidence, **{c.name: line for c, line in zip(wanted, shares, strict=True)}}
        )


def share_table(
    scores: CandidateScores,
    wanted: list[Candidate],
    fit: IntArray,
    calibrate: IntArray,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Bootstrap draws of quality(c)/quality(full) on the calibrate part, resamples shared; `full`: its quality above
    chance. Where the full model's quality is not positive in a draw, the share counts as 0.
    """
    return draw_quality(scores, wanted, fit, calibrate, draws, seed).table(wanted, scores.full)


def draw_quality(
    scores: CandidateScores,
    wanted: list[Candidate],
    fit: IntArray,
    calibrate: IntArray,
    draws: int,
    seed: int,
) -> Drawn:
    """The draws behind `share_table`.

    Where every example has a score in [0, 1], one made-up cluster is added to the sample on which the full model is
    right and every candidate wrong. It costs little where data are many, and where no example tells candidate and full
    model apart, so that a plain bootstrap sees no variance at all, it gives the rule of three (about 3/n at 95 %).
    """
    rows = calibrate
    resamples = Resamples.make(len(rows), draws, seed, scores.task.clusters[rows])
    full = scores.draws([scores.full], rows, resamples)[0]
    chance = resamples.means(scores.task.chance(rows, fit)[None, :])[0]
    made_up = np.zeros_like(full)
    if scores.task.kind != "similarity":
        made_up = _made_up(len(np.unique(scores.task.clusters[rows])), draws, seed)
    return Drawn(scores.draws(wanted, rows, resamples), full, made_up, chance)


def _made_up(clusters: int, draws: int, seed: int) -> Array:
    """What the made-up cluster adds to the full model's mean in every draw: its copies over the number of clusters."""
    rng = np.random.default_rng([seed, 1])
    return rng.binomial(clusters + 1, 1 / (clusters + 1), size=draws) / clusters


def ratio(top: Array, bottom: Array) -> Array:
    """top / bottom, and 0 where the bottom is not positive: a share of nothing is nothing."""
    bottom = np.broadcast_to(bottom, top.shape)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def with_calibrate(
    chains: pd.DataFrame, scores: CandidateScores, wanted: list[Candidate], rows: IntArray
) -> pd.DataFrame:
    """`chains` with quality and share of every candidate on the calibrate part `rows`."""
    values = scores.quality(wanted, rows)
    return with_numbers(chains, wanted, values, ratio(values, scores.quality([scores.full], rows)))


def with_numbers(
    chains: pd.DataFrame, wanted: list[Candidate], values: Array, shares: Array
) -> pd.DataFrame:
    """`chains` with the columns `calibrate_quality` and `calibrate_share`."""
    quality = {c.name: float(v) for c, v in zip(wanted, values, strict=True)}
    share = {c.name: float(v) for c, v in zip(wanted, shares, strict=True)}
    return chains.assign(
        calibrate_quality=[quality[name] for name in chains["name"]],
        calibrate_share=[share[name] for name in chains["name"]],
    )
