"""Ridge regression for many λ and many targets by one eigendecomposition per fold, with exact leave-one-out errors.

With Z the fold's standardised training states, ZᵀZ = V S Vᵀ and U = Z V, the fit at λ is ŷ = ȳ + U
(S + λ)⁻¹ Uᵀ (y − ȳ), and row i's error when it is left out is e_i / (1 − h_i) with h_i = 1/n + Σ_j
u_ij² / (s_j + λ). When groups are left out together it is (I − H_gg)⁻¹ e_g, H the hat matrix.
Neither needs a second decomposition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.linalg import Array
from probes.probing.base import IntArray
from probes.probing.design import Design, make_design
from probes.probing.folds import FoldPlan, clusters_by_size


@dataclass(frozen=True)
class RidgeFit:
    """The best fit of every target on one fold."""

    theta: Tensor  # (t, d + 1) weights on the fold's standardised states, intercept last
    alpha: Tensor  # (owner,) the λ taken
    loo: Tensor  # (λ, owner) mean squared leave-one-out error, summed over the owner's targets


def fit_folds(
    X: Array,
    Y: Array,
    owner: IntArray,
    plan: FoldPlan,
    alphas: Array,
    groups: NDArray[Any] | None = None,
    device: str = "cpu",
) -> tuple[Design, list[RidgeFit]]:
    """All folds of targets Y (t, n) on states X (n, d); targets of one owner (t,) share their λ.

    `alphas` ascending; rows of one of `groups` (n,) are left out together.
    """
    design = make_design(X, plan, device)
    grid = torch.from_numpy(alphas).to(design.X)
    targets = torch.from_numpy(Y[:, plan.order]).to(design.X)
    owners = torch.from_numpy(owner).to(design.X.device)
    tall = plan.train.sum(axis=1).min() >= X.shape[1]
    grams = fold_grams(design) if tall else [None] * len(plan.train)
    fits: list[RidgeFit] = []
    for fold, gram in enumerate(grams):
        factor = FoldFactor.make(design, fold, gram)
        clusters = None
        if groups is not None:
            own = clusters_by_size(groups[plan.order][plan.train[fold]])
            clusters = [torch.from_numpy(members).to(targets.device) for members in own]
        fits.append(factor.fit(targets[:, factor.rows], owners, grid, clusters))
    return design, fits


def predict_folds(
    design: Design, fits: Sequence[RidgeFit], tests: Sequence[IntArray]
) -> NDArray[np.float64]:
    """Predictions (t, n) of every row by the fold that tests it; zero for rows no fold tests."""
    place = design.plan.restore
    scores = np.zeros((len(fits[0].theta), len(place)))
    for fold, test in enumerate(tests):
        scores[:, test] = design.decision(fold, fits[fold].theta, place[test])
    return scores


@dataclass(frozen=True)
class FoldFactor:
    """The eigendecomposition of one fold's training states; serves every target and every λ."""

    rows: Tensor  # (n,) training rows of the design
    values: Tensor  # (r,) S
    U: Tensor  # (n, r)
    weights: Callable[
        [Tensor], Tensor
    ]  # coefficients on U (t, r) -> on the standardised states (t, d)

    @classmethod
    def make(cls, design: Design, fold: int, gram: Tensor | None) -> FoldFactor:
        """By the smaller side; `gram` is the training rows' XᵀX where it is at hand."""
        rows = torch.from_numpy(np.flatnonzero(design.plan.train[fold])).to(design.X.device)
        X, scale, centre = design.X[rows], design.scale[fold], design.centre[fold]
        n, d = X.shape
        if n < d:
            Z = (X - centre) * scale
            values, left = torch.linalg.eigh(Z @ Z.T)
            values = values.clamp(min=0)
            return cls(rows, values, left * values.sqrt(), partial(_from_kernel, values, left, Z))
        moment = torch.addr(X.T @ X if gram is None else gram, centre, centre, alpha=-n)
        values, V = torch.linalg.eigh(moment.mul_(scale).mul_(scale[:, None]))
        outer = scale[:, None] * V  # turns design rows into U without standardising them
        U = torch.addmm(-(centre @ outer), X, outer)
        return cls(rows, values.clamp(min=0), U, lambda u: u @ V.T)

    def fit(
        self, Y: Tensor, owner: Tensor, alphas: Tensor, clusters: list[Tensor] | None = None
    ) -> RidgeFit:
        """Targets Y (t, n); those of one owner (t,) share the λ with the least summed leave-one-out error.

        `clusters` holds row positions (clusters, size) of what is left out together; None leaves
        out single rows.
        """
        mean = Y.mean(dim=1, keepdim=True)
        centred = Y - mean
        inverse = 1 / (self.values + alphas[:, None])  # (λ, r)
        coefficients = inverse[:, None] * (centred @ self.U)  # (λ, t, r)
        fitted = (coefficients.flatten(0, 1) @ self.U.T).view(len(alphas), *Y.shape)
        residual = centred - fitted
        if clusters is None:
            left_out = residual.div_(self._unexplained(inverse)[:, None])
        else:
            left_out = without_clusters(self.U, residual, inverse, clusters)
        error = left_out.square_().mean(dim=-1)  # (λ, t)
        summed = error.new_zeros(len(alphas), int(owner.max()) + 1).index_add_(1, owner, error)
        best = len(alphas) - 1 - summed.flip(0).argmin(dim=0)  # of equals the strongest
        chosen = best[owner]
        u = coefficients[chosen, torch.arange(len(Y), device=Y.device)]
        return RidgeFit(torch.cat([self.weights(u), mean], dim=1), alphas[best], summed)

    def _unexplained(self, inverse: Tensor) -> Tensor:
        """1 − h_i at every λ, (λ, n); kept off zero, where a row determines its own fit."""
        leverage = inverse @ self.U.square().T + 1 / len(self.U)
        return (1 - leverage).clamp(min=8 * torch.finfo(inverse.dtype).eps)


def without_clusters(
    U: Tensor, residual: Tensor, inverse: Tensor, clusters: Sequence[Tensor]
) -> Tensor:
    """Residuals (λ, t, n) of every row when its whole cluster is left out of the fit; exact.

    The fit is ŷ = ȳ + U diag(inverse) Uᵀ (y − ȳ) with orthogonal, centred columns U (n, r) and `inverse`
    (λ, r) = 1 / (eigenvalue + λ); `residual` (λ, t, n) holds y − ŷ of t targets. `clusters` are those of
    `clusters_by_size`: together they hold every row once. Left out, cluster g has the residual
    (I − H_gg)⁻¹ e_g with H = U diag(inverse) Uᵀ + 1/n.
    """
    left_out = torch.empty_like(residual)
    for members in clusters:
        size = members.shape[1]
        own = U[members]  # (clusters, size, r)
        eye = torch.eye(size, dtype=own.dtype, device=own.device)
        jitter = 8 * torch.finfo(own.dtype).eps * size
        for at, weight in enumerate(inverse):
            hat = (own * weight) @ own.transpose(1, 2) + 1 / len(U)
            e = residual[at][:, members].permute(1, 2, 0)  # (clusters, size, t)
            solved = torch.linalg.solve((1 + jitter) * eye - hat, e)
            left_out[at][:, members] = solved.permute(2, 0, 1)
    return left_out


def _from_kernel(values: Tensor, left: Tensor, Z: Tensor, u: Tensor) -> Tensor:
    """W = Zᵀ left S^{-1/2} u; directions that carry no variance are left out."""
    floor = values.max().clamp(min=1e-30) * len(values) * torch.finfo(values.dtype).eps
    dual = torch.where(values > floor, u / values.clamp(min=1e-30).sqrt(), 0.0)
    return (dual @ left.T) @ Z


def fold_grams(design: Design) -> list[Tensor]:
    """XᵀX of every fold's training rows; each cell is multiplied once."""
    parts = torch.stack([design.X[rows].T @ design.X[rows] for rows in design.plan.cells()])
    member = torch.from_numpy(design.plan.member).to(parts)
    return list((member @ parts.flatten(1)).view(-1, *parts.shape[1:]))
