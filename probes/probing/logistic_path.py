"""The choice of C: all folds × C on the fitting part, the best on the hold-out, and once more on the whole training part."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from probes.probing.base import Concept
from probes.probing.design import Design
from probes.probing.lbfgs import Preconditioner, Problems, Solution, minimise


@dataclass(frozen=True)
class PathFit:
    """theta (fold, c, d + 1), logits of all rows (fold, c, n) in plan order, the C of every fold and why."""

    theta: Tensor
    logits: Tensor
    C: list[float]
    hold_out_loss: NDArray[np.float64]  # (fold, C)
    iterations: int


def fit_path(
    design: Design,
    preconditioner: Preconditioner,
    concept: Concept,
    held: NDArray[np.bool_],
    Cs: NDArray[np.float64],
    *,
    tol: float,
    max_iter: int,
) -> PathFit:
    """Choose C per fold on the rows `held` (fold, n; the caller's order) and fit; `Cs` ascending."""
    like = {"dtype": design.X.dtype, "device": design.X.device}
    y = torch.as_tensor(concept.y[design.plan.order], device=design.X.device)
    if concept.n_classes == 2:
        y = y.to(design.X.dtype)
    folds, n = design.train.shape
    grid = torch.as_tensor(Cs, **like)
    outside = torch.as_tensor(held[:, design.plan.order], **like)
    each_fold = torch.arange(folds, device=design.X.device)

    def solve(
        weight: Tensor, fold: Tensor, C: Tensor, kin: Tensor, start: Tensor | None
    ) -> Solution:
        problems = Problems(y.expand(len(fold), n), weight, fold, C, kin, concept.n_classes)
        solution = minimise(design, problems, preconditioner, start, tol=tol, max_iter=max_iter)
        if not solution.converged:
            warnings.warn(
                f"LinearProbe: not converged to {tol:g} in {max_iter} steps; raise max_iter or drop the largest C",
                ConvergenceWarning,
                stacklevel=2,
            )
        return solution

    preconditioner.refreshed.clear()
    if len(Cs) == 1:
        full = solve(design.train, each_fold, grid.expand(folds), torch.zeros_like(each_fold), None)
        loss = np.full((folds, 1), np.nan)
        return PathFit(full.theta, full.logits, [float(Cs[0])] * folds, loss, full.iterations)
    fold = each_fold.repeat_interleave(len(Cs))
    kin = torch.arange(len(Cs), device=fold.device).repeat(folds)
    inner = solve(design.train[fold] * (1 - outside[fold]), fold, grid.repeat(folds), kin, None)
    loss = _mean_loss(inner.logits, y, outside[fold], concept.n_classes).view(folds, len(Cs))
    best = loss.argmin(dim=1)  # the first of equals: the strongest regularisation
    start = inner.theta.view(folds, len(Cs), *inner.theta.shape[1:])[each_fold, best]
    full = solve(design.train, each_fold, grid[best], best, start)
    return PathFit(
        full.theta,
        full.logits,
        [float(Cs[int(b)]) for b in best],
        loss.cpu().numpy(),
        inner.iterations + full.iterations,
    )


def _mean_loss(logits: Tensor, y: Tensor, weight: Tensor, n_classes: int) -> Tensor:
    """Mean log-loss (P,) over the weighted rows of logits (P, c, n)."""
    if n_classes == 2:
        each = torch.nn.functional.softplus(logits[:, 0]) - y * logits[:, 0]
    else:
        each = torch.nn.functional.cross_entropy(
            logits, y.expand(len(logits), -1), reduction="none"
        )
    return (each * weight).sum(-1, dtype=torch.float64) / weight.sum(-1)
