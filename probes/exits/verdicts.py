"""What the calibrate part says of one candidate: an estimate, a p-value, and how many examples would do.

One dataset, or several. Of several, rows carry their dataset's name in the column `task`. Without the column `weight`
every dataset must keep the budget: the null "some dataset does not" is a union, and the largest of the p-values is a
p-value of it (intersection–union test), which costs no part of δ. With `weight` it is the weighted mean that must.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.exits.bounds import (
    factor_for_share,
    factor_for_weighted,
    loss_limit,
    size_for_loss,
    weighted_limit,
    weighted_p,
)
from probes.exits.budget import Budget
from probes.stats import hoeffding_bentkus

Array = NDArray[np.floating[Any]]

FULL = "full"  # column of the full model, in both tables of evidence
MADE_UP = "made_up"  # column of `share_draws`: what the made-up example adds, as a share of the full quality
CLUSTER = "cluster"  # column of `losses`: the unit that was drawn
TASK = "task"  # column of both tables where there are several datasets: the row's dataset
WEIGHT = (
    "weight"  # column of `losses` where their weighted mean counts: the weight of the row's dataset
)
ROUNDING = 1e-12  # a share this little below the asked one is equal to it


@dataclass(frozen=True)
class Verdict:
    """`p` of "it does not keep the budget", `fits`: p is at most its part of δ; `bound`: limit of the estimate."""

    estimate: float
    bound: float | None
    p: float
    fits: bool


class Test(Protocol):
    """A test of one candidate."""

    @property
    def enough(self) -> bool:
        """Whether there are bootstrap draws enough for δ."""
        ...

    def verdict(self, name: str, share: float) -> Verdict:
        """On candidate `name`, which keeps the share `share` of the calibrate part's quality."""
        ...

    def sizes(self, name: str, share: float) -> dict[str, int] | None:
        """Independent calibrate examples per dataset that would do; None where no number would."""
        ...


def make_test(
    share_draws: pd.DataFrame, losses: pd.DataFrame, budget: Budget, delta: float
) -> Test:
    """The test of `budget` at error `delta`."""
    if budget.max_loss is None:
        return ShareTest(share_draws, counts(losses), budget.min_quality, delta)
    return LossTest(losses, budget.max_loss, delta)


def by_task(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of every dataset, in order; one nameless dataset where no column tells them apart."""
    if TASK not in frame:
        return {"": frame}
    names = frame[TASK].to_numpy()
    return {str(name): frame.loc[names == name] for name in dict.fromkeys(names)}


def counts(losses: pd.DataFrame) -> dict[str, int]:
    """Independent calibrate examples (clusters) of every dataset."""
    return {
        name: len(np.unique(frame[CLUSTER].to_numpy())) for name, frame in by_task(losses).items()
    }


def lower_rank(delta: float, draws: int) -> int:
    """The k-th smallest draw is the lower bound at δ: the largest k with k/(draws + 1) ≤ δ."""
    return math.floor(delta * (draws + 1) + 1e-9)


def above_chance(share_draws: pd.DataFrame, budget: Budget) -> bool:
    """Is the full model's quality above chance, one-sided at the budget's confidence, on every dataset?"""
    for frame in by_task(share_draws).values():
        above = frame[FULL].to_numpy(dtype=float)
        p = (1 + int((above <= 0).sum())) / (len(above) + 1)
        if p > 1 - budget.confidence + ROUNDING:
            return False
    return True


class ShareTest:
    """Bootstrap (asymptotic): p = (1 + draws below the asked share) / (draws + 1)."""

    def __init__(
        self, share_draws: pd.DataFrame, sizes: Mapping[str, int], asked: float, delta: float
    ) -> None:
        self._frames = by_task(share_draws)
        self._sizes, self._asked, self._delta = sizes, asked, delta
        self._rank = lower_rank(delta, min(map(len, self._frames.values())))

    @property
    def enough(self) -> bool:
        return self._rank >= 1

    def verdict(self, name: str, share: float) -> Verdict:
        p, bounds = 0.0, list[float]()
        for frame in self._frames.values():
            draws = frame[name].to_numpy(dtype=float)
            below = int((draws < self._asked - ROUNDING).sum())
            p = max(p, (below + 1) / (len(draws) + 1))
            if self._rank >= 1:
                bounds.append(float(np.partition(draws, self._rank - 1)[self._rank - 1]))
        draws_needed = p * (min(map(len, self._frames.values())) + 1)
        return Verdict(share, min(bounds, default=None), p, round(draws_needed) <= self._rank)

    def sizes(self, name: str, share: float) -> dict[str, int] | None:
        if self._rank < 1:
            return None
        if len(self._frames) == 1:
            factor = self._factor(next(iter(self._frames.values())), name, share)
            return None if factor is None else _grown(self._sizes, factor)
        needed: dict[str, int] = {}
        for task, frame in self._frames.items():
            factor = self._factor(frame, name, None)
            if factor is None:
                return None
            needed |= _grown({task: self._sizes[task]}, factor)
        return needed

    def _factor(self, frame: pd.DataFrame, name: str, share: float | None) -> float | None:
        """Of the way from share to limit, the resampling's part shrinks with 1/√n, the made-up one with 1/n."""
        drawn = frame[name].to_numpy(dtype=float)
        made_up = frame[MADE_UP].to_numpy(dtype=float) if MADE_UP in frame else np.zeros(1)
        bound = float(np.sort(drawn)[self._rank - 1])
        plain = np.sort(drawn * (1 + made_up))
        share = float(np.median(plain)) if share is None else share
        alone = min(share, max(bound, float(plain[self._rank - 1])))
        return factor_for_share(
            share - self._asked, share - alone, max(0.0, alone - bound), self._delta
        )


class LossTest:
    """Hoeffding–Bentkus on the paired excess losses, clipped to [0, 1] and averaged within clusters (finite-sample).

    With weights the p-value is that of `weighted_p`.
    """

    def __init__(self, losses: pd.DataFrame, epsilon: float, delta: float) -> None:
        self._losses = {name: Losses(frame) for name, frame in by_task(losses).items()}
        self._weights = None if WEIGHT not in losses else [x.weight for x in self._losses.values()]
        self._epsilon, self._delta = epsilon, delta

    @property
    def enough(self) -> bool:
        return True

    def verdict(self, name: str, share: float) -> Verdict:
        units = [losses.excess(name) for losses in self._losses.values()]
        means = [float(x.mean()) for x in units]
        if self._weights is None:
            estimate = max(means)
            p = max(
                hoeffding_bentkus(mean, len(x), self._epsilon)
                for mean, x in zip(means, units, strict=True)
            )
        else:
            estimate = float(np.average(means, weights=self._weights))
            p = weighted_p(means, [len(x) for x in units], self._weights, self._epsilon)
        return Verdict(estimate, None, p, p <= self._delta)

    def limit(self, name: str) -> float:
        """Upper confidence limit at 1 − δ of the mean excess: of the worst dataset, or of the weighted mean."""
        units = [losses.excess(name) for losses in self._losses.values()]
        means, sizes = [float(x.mean()) for x in units], [len(x) for x in units]
        if self._weights is None:
            return max(loss_limit(m, n, self._delta) for m, n in zip(means, sizes, strict=True))
        return weighted_limit(means, sizes, self._weights, self._delta)

    def sizes(self, name: str, share: float) -> dict[str, int] | None:
        units = {task: losses.excess(name) for task, losses in self._losses.items()}
        moments = {t: (float(x.mean()), float(x.std()), len(x)) for t, x in units.items()}
        if self._weights is not None:
            factor = factor_for_weighted(
                list(moments.values()), self._weights, self._epsilon, self._delta
            )
            return None if factor is None else _grown({t: m[2] for t, m in moments.items()}, factor)
        found: dict[str, int] = {}
        for task, (mean, spread, n) in moments.items():
            fits = hoeffding_bentkus(mean, n, self._epsilon) <= self._delta
            size = n if fits else size_for_loss(mean, spread, n, self._epsilon, self._delta)
            if size is None:
                return None
            found[task] = size
        return found


class Losses:
    """The losses of one dataset, ready for the mean of any candidate's excess over clusters."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self._full = frame[FULL].to_numpy(dtype=float)
        code = np.unique(frame[CLUSTER].to_numpy(), return_inverse=True)[1]
        self._code, self._sizes = code, np.bincount(code)
        self.weight = float(frame[WEIGHT].iloc[0]) if WEIGHT in frame else 1.0

    def excess(self, name: str) -> Array:
        """Mean clipped excess loss of every cluster: (clusters,)."""
        excess = np.clip(self._frame[name].to_numpy(dtype=float) - self._full, 0, 1)
        return np.bincount(self._code, weights=excess) / self._sizes


def mean_excess(losses: pd.DataFrame, name: str) -> tuple[float, int]:
    """Mean over clusters of the clipped excess loss of candidate `name`, and the number of clusters."""
    units = Losses(losses).excess(name)
    return float(units.mean()), len(units)


def _grown(sizes: Mapping[str, int], factor: float) -> dict[str, int]:
    return {task: max(n, math.ceil(n * factor)) for task, n in sizes.items()}


def told(came: Mapping[str, int], needed: Mapping[str, int]) -> str:
    """How many calibrate examples came and how many would do, in words."""
    if set(came) == {""}:
        return (
            f"{came['']} independent calibrate examples came, about {needed['']:,} would do "
            "(in four of five cases, if the estimates hold)"
        )
    parts: Sequence[str] = [
        f"{name}: {came[name]}, about {n:,} would do"
        for name, n in needed.items()
        if n > came[name]
    ]
    return (
        f"independent calibrate examples that came, and would do in four of five cases if the estimates hold: "
        f"{'; '.join(parts)}"
    )
