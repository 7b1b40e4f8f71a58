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

ROUGH = 1e-3  # accuracy at which hopeless values of C are told from contenders
CONTENDER = 1.1  # times the least hold-out loss


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

    def solve(weight: Tensor, fold: Tensor, C: Tensor, start: Tensor | None, to: float) -> Solution:
        problems = Problems(y.expand(len(fold), n), weight, fold, C, concept.n_classes)
        return minimise(design, problems, preconditioner, start, tol=to, max_iter=max_iter)

    loss, best, start, spent = None, torch.zeros_like(each_fold), None, 0
    if len(Cs) > 1:
        fold = each_fold.repeat_interleave(len(Cs))
        C, held_out = grid.repeat(folds), outside[fold]
        fitting = design.train[fold] - held_out

        def hold_out_loss(found: Solution, rows: Tensor) -> Tensor:
            return _mean_loss(found.logits, y, held_out[rows], concept.n_classes)

        everyone = torch.arange(len(fold), device=fold.device)
        rough = solve(fitting, fold, C, None, max(ROUGH, tol))
        loss = hold_out_loss(rough, everyone)
        least = loss.view(folds, -1).amin(dim=1)[fold]
        rows = everyone[loss <= CONTENDER * least]
        fine = solve(fitting[rows], fold[rows], C[rows], rough.theta[rows], tol)
        theta = rough.theta.index_copy(0, rows, fine.theta)
        loss[rows] = hold_out_loss(fine, rows)
        # the first of equals is the strongest regularisation
        best = loss.view(folds, -1).argmin(dim=1)
        start = theta[each_fold * len(Cs) + best]
        spent = rough.iterations + fine.iterations
    full = solve(design.train, each_fold, grid[best], start, tol)
    if not full.converged:
        warnings.warn(
            f"LinearProbe: not converged to {tol:g} in {max_iter} steps; raise max_iter or drop the largest C",
            ConvergenceWarning,
            stacklevel=2,
        )
    table = np.full((folds, 1), np.nan) if loss is None else loss.view(folds, -1).cpu().numpy()
    chosen = [float(Cs[int(b)]) for b in best]
    return PathFit(full.theta, full.logits, chosen, table, spent + full.iterations)


def _mean_loss(logits: Tensor, y: Tensor, weight: Tensor, n_classes: int) -> Tensor:
    """Mean log-loss (P,) over the weighted rows of logits (P, c, n)."""
    if n_classes == 2:
        each = torch.nn.functional.softplus(logits[:, 0]) - y * logits[:, 0]
    else:
        each = torch.nn.functional.cross_entropy(
            logits, y.expand(len(logits), -1), reduction="none"
        )
    return (each * weight).sum(-1, dtype=torch.float64) / weight.sum(-1)
