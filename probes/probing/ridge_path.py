"""Ridge regression for many λ and many targets by one eigendecomposition per fold, with exact leave-one-out errors.

With Z the fold's standardised training states, ZᵀZ = V S Vᵀ and U = Z V, the fit at λ is ŷ = ȳ + U (S + λ)⁻¹ Uᵀ (y − ȳ) and row i's
error when it is left out is e_i / (1 − h_i), h_i = 1/n + Σ_j u_ij² / (s_j + λ). Neither needs a second decomposition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probes.probing.design import Design


@dataclass(frozen=True)
class RidgeFit:
    """The best fit of every target on one fold: theta (t, d + 1) as in lbfgs, its λ (t,) and all errors (λ, t)."""

    theta: Tensor
    alpha: Tensor
    loo: Tensor  # mean squared leave-one-out error, summed over the targets of a group


class FoldFactor:
    """The eigendecomposition of one fold's training states; serves every target and every λ."""

    def __init__(self, design: Design, fold: int, gram: Tensor | None = None) -> None:
        plan = design.plan
        self.scale, self.centre = design.scale[fold], design.centre[fold]
        self.rows = torch.from_numpy(plan.train[fold].nonzero()[0]).to(design.X.device)
        X = _rows(design.X, plan.train[fold])
        n, d = X.shape
        if n >= d:
            values, V = torch.linalg.eigh(self._moment(X if gram is None else None, gram, n))
            self.values = values.clamp(min=0)
            self.vectors = self.scale[:, None] * V  # (d, r): turns design rows into U
            self.U = torch.addmm(-(self.centre @ self.vectors), X, self.vectors)
            self.back = self.vectors
        else:
            Z = (X - self.centre) * self.scale
            values, left = torch.linalg.eigh(Z @ Z.T)
            self.values = values.clamp(min=0)
            self.U = left * self.values.sqrt()
            self.back = None
            self.Z, self.left = Z, left

    def _moment(self, X: Tensor | None, gram: Tensor | None, n: int) -> Tensor:
        """ZᵀZ from the states, or from their uncentred gram matrix."""
        if X is not None:
            gram = X.T @ X
        assert gram is not None
        inner = torch.addr(gram, self.centre, self.centre, alpha=-n)
        return inner.mul_(self.scale).mul_(self.scale[:, None])

    def fit(self, Y: Tensor, groups: Tensor, alphas: Tensor) -> RidgeFit:
        """Targets Y (t, n_train); the targets of a group (t,) share the λ with the least summed leave-one-out error."""
        n = Y.shape[1]
        mean = Y.mean(dim=1, keepdim=True)
        centred = Y - mean
        inverse = 1 / (self.values + alphas[:, None])  # (λ, r)
        projected = centred @ self.U  # (t, r)
        coefficients = inverse[:, None] * projected  # (λ, t, r)
        fitted = (coefficients.flatten(0, 1) @ self.U.T).view(len(alphas), len(Y), n)
        leverage = inverse @ self.U.square().T + 1 / n  # (λ, n)
        left = 1 - leverage
        smallest = 8 * torch.finfo(Y.dtype).eps
        error = (centred - fitted).div_(left.clamp(min=smallest)[:, None]).square_().mean(dim=-1)
        summed = torch.zeros(
            len(alphas), int(groups.max()) + 1, dtype=error.dtype, device=error.device
        )
        summed.index_add_(1, groups, error)
        # ties go to the stronger regularisation
        best = len(alphas) - 1 - summed.flip(0).argmin(dim=0)
        chosen = best[groups]
        u = coefficients[chosen, torch.arange(len(Y), device=Y.device)]
        return RidgeFit(self._theta(u, mean[:, 0], alphas[chosen]), alphas[best], summed)

    def _theta(self, u: Tensor, mean: Tensor, alpha: Tensor) -> Tensor:
        """Weights on the fold's standardised states, intercept last."""
        if self.back is not None:
            alive = torch.where(self.scale > 0, self.scale, 1.0)
            W = (u @ self.back.T) / alive
        else:
            W = _kernel_weights(u, self.values, self.left, self.Z)
        return torch.cat([W, mean[:, None]], dim=1)


def _kernel_weights(u: Tensor, values: Tensor, left: Tensor, Z: Tensor) -> Tensor:
    """W = Zᵀ left S^{-1/2} u, with the directions that carry no variance left out."""
    alive = values > values.max().clamp(min=1e-30) * len(values) * torch.finfo(values.dtype).eps
    dual = torch.where(alive, u / values.clamp(min=1e-30).sqrt(), 0.0)
    return (dual @ left.T) @ Z


def _rows(X: Tensor, train: object) -> Tensor:
    index = torch.from_numpy(train).to(X.device)  # type: ignore[arg-type]
    return X[index]


def fold_grams(design: Design) -> list[Tensor]:
    """Uncentred XᵀX of every fold's training rows, each cell multiplied once."""
    parts = [design.X[rows].T @ design.X[rows] for rows in design.plan.cells()]
    total = torch.stack(parts)
    member = torch.from_numpy(design.plan.member).to(total)
    return list((member @ total.flatten(1)).view(len(member), *total.shape[1:]))
