"""One layer's states, standardised once and shared by all folds.

Every fold has its own mean and scale, but copying the states per fold would cost more than the
probes. The states are therefore standardised once by all rows, and each fold keeps the thin
correction that turns this into its own standardisation: z = (x − centre) · scale. The correction is
exact, so no test row reaches a fold's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.linalg import Standardiser
from probes.probing.folds import FoldPlan

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]

BLOCK_ROWS = 8192  # rows widened to float64 at a time
FAR = 30.0  # standard deviations of a fold between its mean and the common one


@dataclass(frozen=True)
class Design:
    """States in plan order with each fold's correction; `standardisers` act on the caller's raw states."""

    X: Tensor  # (n, d)
    centre: Tensor  # (fold, d)
    scale: Tensor  # (fold, d), 0 for dimensions that are constant in the fold
    train: Tensor  # (fold, n), 1 where the fold trains
    plan: FoldPlan
    standardisers: tuple[Standardiser, ...]

    def raw_weights(self, fold: int, W: Tensor, b: Tensor) -> tuple[FloatArray, FloatArray]:
        """Weights (c, d) and intercepts (c,) on the fold's standardised states, turned to act on raw states."""
        own = self.standardisers[fold]
        coef = W.double().cpu().numpy() * own.inverse_scale
        return coef, b.double().cpu().numpy() - coef @ own.mean

    def decision(self, fold: int, theta: Tensor, rows: IntArray) -> FloatArray:
        """Scores (c, rows) by weights theta (c, d + 1) of a fold; `rows` are positions in plan order."""
        A = theta[:, :-1] * self.scale[fold]
        offset = theta[:, -1] - A @ self.centre[fold]
        return (A @ self.X[rows].T + offset[:, None]).double().cpu().numpy()

    def part(self, folds: Sequence[int], rows: slice) -> Design:
        """Some folds on a stretch of rows in plan order, which must hold all they train on; nothing is copied."""
        own = list(folds)
        plan = FoldPlan(
            train=self.plan.train[own, rows],
            order=self.plan.order[rows],
            bounds=self.plan.bounds,  # of the whole: a part is solved, not standardised again
            member=self.plan.member[own],
        )
        return Design(
            self.X[rows],
            self.centre[own],
            self.scale[own],
            self.train[own, rows],
            plan,
            tuple(self.standardisers[fold] for fold in own),
        )


def make_design(X: FloatArray, plan: FoldPlan, device: str = "cpu", scale: bool = True) -> Design:
    """The design of states X (n, d), in float64 if X is and in float32 otherwise.

    Where a fold's own standardisation is far from the common one (rows of another scale in its test
    part), float32 would lose the difference, and float64 is used.
    """
    dtype = torch.float64 if X.dtype == np.float64 else torch.float32
    ordered = torch.from_numpy(np.ascontiguousarray(X[plan.order])).to(device=device, dtype=dtype)
    moments = _Moments.of_cells(ordered, plan)
    whole = moments.standardiser(np.ones(len(plan.bounds) - 1, dtype=bool), scale)
    own = tuple(moments.standardiser(member, scale) for member in plan.member)
    # the shift is rounded to the states' precision first, so that the corrections below are exact
    shift = torch.from_numpy(whole.mean).to(ordered)
    factor = torch.from_numpy(whole.inverse_scale).to(ordered)
    shift64, factor64 = shift.double().cpu().numpy(), factor.double().cpu().numpy()
    centre = np.stack([(s.mean - shift64) * factor64 for s in own])
    alive = factor64 > 0
    ratio = np.stack(
        [np.where(alive, s.inverse_scale / np.where(alive, factor64, 1), 0) for s in own]
    )
    ordered.sub_(shift).mul_(factor)
    if np.abs(centre * ratio).max() > FAR:
        ordered = ordered.double()
    return Design(
        X=ordered,
        centre=torch.from_numpy(centre).to(ordered),
        scale=torch.from_numpy(ratio).to(ordered),
        train=torch.from_numpy(plan.train).to(ordered),
        plan=plan,
        standardisers=own,
    )


@dataclass(frozen=True)
class _Moments:
    """Count, mean and sum of squared deviations of every cell, in float64."""

    count: NDArray[np.float64]  # (cell,)
    mean: NDArray[np.float64]  # (cell, d)
    spread: NDArray[np.float64]  # (cell, d)

    @classmethod
    def of_cells(cls, X: Tensor, plan: FoldPlan) -> _Moments:
        parts = [_combine(*_block_moments(X[rows])) for rows in plan.cells()]
        return cls(*(np.stack(column) for column in zip(*parts, strict=True)))

    def standardiser(self, member: NDArray[np.bool_], scale: bool) -> Standardiser:
        n, mean, spread = _combine(self.count[member], self.mean[member], self.spread[member])
        if not scale:
            return Standardiser(mean, np.ones_like(mean))
        return Standardiser.from_moments(mean, np.sqrt(spread / n))


def _block_moments(X: Tensor) -> tuple[FloatArray, FloatArray, FloatArray]:
    counts: list[int] = []
    means: list[FloatArray] = []
    spreads: list[FloatArray] = []
    for block in X.split(BLOCK_ROWS):
        wide = block.double()
        mean = wide.mean(dim=0)
        counts.append(len(block))
        means.append(mean.cpu().numpy())
        spreads.append((wide - mean).square_().sum(dim=0).cpu().numpy())
    return np.asarray(counts, dtype=np.float64), np.stack(means), np.stack(spreads)


def _combine(
    count: FloatArray, mean: FloatArray, spread: FloatArray
) -> tuple[np.float64, NDArray[np.float64], NDArray[np.float64]]:
    """Moments of a union from those of its parts, without cancellation (Chan, Golub & LeVeque 1979)."""
    n = np.float64(count.sum())
    joint = (count @ mean) / n
    between = (count[:, None] * np.square(mean - joint)).sum(axis=0)
    return n, joint, spread.sum(axis=0) + between
