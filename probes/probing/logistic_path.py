"""The choice of C: all folds × C on the fitting part, the best on the hold-out, once more on all training rows."""

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
AT_ONCE = 2**24  # logits in one batch; more folds are solved one after the other


@dataclass(frozen=True)
class PathFit:
    """theta (fold, c, d + 1), logits of all rows (fold, c, n) in plan order, the C of every fold and why."""

    theta: Tensor
    logits: Tensor
    C: NDArray[np.float64]  # (fold,)
    hold_out_loss: NDArray[np.float64]  # (fold, C)
    iterations: int


@dataclass(frozen=True)
class _Path:
    """What the fits of one concept share."""

    design: Design
    preconditioner: Preconditioner
    y: Tensor  # (n,) in plan order; floats for two classes
    n_classes: int
    outside: Tensor  # (fold, n) 1 where a row is held out
    max_iter: int

    def solve(
        self, weight: Tensor, fold: Tensor, C: Tensor, start: Tensor | None, tol: float
    ) -> Solution:
        y = self.y.expand(len(fold), -1)
        problems = Problems(y, weight, fold, C, self.n_classes)
        return minimise(
            self.design, problems, self.preconditioner, start, tol=tol, max_iter=self.max_iter
        )

    def choose(self, folds: Tensor, grid: Tensor, tol: float) -> tuple[Tensor, Tensor, Tensor, int]:
        """Best column of `grid` per fold, its weights, the hold-out losses (fold, C) and the steps taken.

        All C are solved roughly; those whose hold-out loss comes near the least, and the neighbours
        of the best, are solved exactly. So the C taken is a minimum of the exact losses.
        """
        columns = len(grid)
        fold = folds.repeat_interleave(columns)
        C, held = grid.repeat(len(folds)), self.outside[fold]
        weight = self.design.train[fold] - held
        found = self.solve(weight, fold, C, None, max(ROUGH, tol))
        theta, steps = found.theta, found.iterations
        loss = self._hold_out_loss(found, held).view(len(folds), columns)
        exact = torch.zeros_like(loss, dtype=torch.bool)
        wanted = loss <= CONTENDER * loss.amin(dim=1, keepdim=True)
        while wanted.any():
            rows = torch.nonzero(wanted.flatten())[:, 0]
            found = self.solve(weight[rows], fold[rows], C[rows], theta[rows], tol)
            theta[rows], steps = found.theta, steps + found.iterations
            loss[wanted] = self._hold_out_loss(found, held[rows])
            exact |= wanted
            best = loss.argmin(dim=1, keepdim=True)  # of equals the strongest regularisation
            near = (torch.arange(columns, device=best.device) - best).abs() <= 1
            wanted = near & ~exact
        best = loss.argmin(dim=1)
        own = torch.arange(len(folds), device=best.device) * columns + best
        return best, theta[own], loss, steps

    def _hold_out_loss(self, found: Solution, held: Tensor) -> Tensor:
        """Mean log-loss (P,) over the rows held out."""
        if self.n_classes == 2:
            z = found.logits[:, 0]
            each = torch.nn.functional.softplus(z) - self.y * z
        else:
            y = self.y.expand(len(held), -1)
            each = torch.nn.functional.cross_entropy(found.logits, y, reduction="none")
        return (each * held).sum(-1, dtype=torch.float64) / held.sum(-1)

    def fit(self, folds: Tensor, Cs: NDArray[np.float64], tol: float) -> PathFit:
        """Choose C and fit on the whole training part of some folds."""
        grid = torch.from_numpy(Cs).to(self.design.X)
        best, start, spent = torch.zeros_like(folds), None, 0
        table = grid.new_full((len(folds), len(grid)), torch.nan)
        if len(grid) > 1:
            best, start, table, spent = self.choose(folds, grid, tol)
        full = self.solve(self.design.train[folds], folds, grid[best], start, tol)
        if self.n_classes > 2:  # a shift of all intercepts changes nothing: pin it down
            shift = full.theta[..., -1].mean(dim=1)
            full.theta[..., -1] -= shift[:, None]
            full.logits.sub_(shift[:, None, None])
        if not full.converged:
            warnings.warn(
                f"LinearProbe: not converged to {tol:g} in {self.max_iter} steps; raise max_iter or "
                "drop the largest C",
                ConvergenceWarning,
                stacklevel=2,
            )
        chosen = Cs[best.cpu().numpy()]
        losses = table.double().cpu().numpy()
        return PathFit(full.theta, full.logits, chosen, losses, spent + full.iterations)


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
    order, K = design.plan.order, concept.n_classes
    y = torch.from_numpy(concept.y[order]).to(design.X.device)
    outside = torch.from_numpy(held[:, order]).to(design.X)
    path = _Path(
        design, preconditioner, y.to(design.X.dtype) if K == 2 else y, K, outside, max_iter
    )
    folds, n = design.train.shape
    together = max(1, AT_ONCE // (len(Cs) * n * (1 if K == 2 else K)))
    parts = torch.arange(folds, device=y.device).split(together)
    fits = [path.fit(some, Cs, tol) for some in parts]
    return PathFit(
        theta=torch.cat([fit.theta for fit in fits]),
        logits=torch.cat([fit.logits for fit in fits]),
        C=np.concatenate([fit.C for fit in fits]),
        hold_out_loss=np.concatenate([fit.hold_out_loss for fit in fits]),
        iterations=sum(fit.iterations for fit in fits),
    )
