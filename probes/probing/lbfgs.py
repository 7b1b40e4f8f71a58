"""Many L2 logistic regressions on the same states at once: preconditioned L-BFGS, one problem per *row*.

    F(W, b) = Σ_i loss(y_i, W z_i + b) + ‖W‖² / (2C)

Folds, values of C and concepts are rows of one matrix, so each step is two matrix products over the shared states. One
eigendecomposition of the layer's correlation matrix preconditions every row: H₀ = (a S + I/C)⁻¹ with a the row's mean
curvature Σ p(1 − p). A row is finished when its Newton decrement, which estimates F − min F, is small beside F.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from probes.probing.design import Design

ABSENT = 1e4  # taken off the logit of a class that a training part does not hold: its probability is exactly zero
MEMORY = 8  # pairs kept per row
REFRESH = (20, 35, 60, 100, 150)
PRECONDITIONER_ROWS = 4  # times d: more rows do not make a better preconditioner


@dataclass(frozen=True)
class Problems:
    """P problems: targets, weights of the rows of X, the fold that standardises, and the regularisation."""

    y: Tensor  # (P, n) class codes 0…K−1
    weight: Tensor  # (P, n) 1 where the row counts
    fold: Tensor  # (P,)
    C: Tensor  # (P,)
    kin: Tensor  # (P,) problems that share a preconditioner: same C and concept, other folds
    n_classes: int

    def rows(self, index: Tensor) -> Problems:
        return Problems(
            self.y[index],
            self.weight[index],
            self.fold[index],
            self.C[index],
            self.kin[index],
            self.n_classes,
        )


@dataclass(frozen=True)
class Solution:
    """theta (P, c, d + 1): weights on the fold's standardised states, intercept last; c is 1 for two classes."""

    theta: Tensor
    logits: Tensor  # (P, c, n)
    objective: Tensor  # (P,)
    iterations: int
    converged: bool


class Preconditioner:
    """Approximate inverse Hessians of many problems on the same states.

    At first one eigendecomposition of the second moments S serves all rows: (a S + I/C)⁻¹. Where weak regularisation makes the
    curvature p(1 − p) so uneven that this is a poor guide, `refresh` gives the rows of one kin (same C, other folds, hence
    nearly the same curvature) the inverse of their mean Hessian.
    """

    def __init__(self, design: Design) -> None:
        n, d = design.X.shape
        X = self.states = design.X
        if n > PRECONDITIONER_ROWS * d:
            X = X[:: n // (PRECONDITIONER_ROWS * d)]
        n = len(X)
        if n >= d:
            values, self.vectors = torch.linalg.eigh(X.T @ X)
        else:
            values, left = torch.linalg.eigh(X @ X.T)
            keep = values > 1e-6 * values[-1].clamp(min=1e-30)
            values, left = values[keep], left[:, keep]
            self.vectors = (X.T @ left) / values.sqrt()
        self.values = values.clamp(min=0) / n  # (r,)
        self.complete = self.vectors.shape[1] == d
        self.refreshed: dict[int, Tensor] = {}

    def apply(self, g: Tensor, a: Tensor, problems: Problems) -> Tensor:
        """g (P, c, d + 1) through each row's inverse; a (P, c) is the row's summed curvature."""
        out = torch.empty_like(g)
        kin = problems.kin
        old = torch.ones_like(kin, dtype=torch.bool)
        for name, inverse in self.refreshed.items():
            rows = kin == name
            old &= ~rows
            out[rows] = self._inside(g[rows], inverse, 1 / problems.C[rows])
        if old.any():
            out[old] = self._spectral(g[old], a[old], 1 / problems.C[old])
        return out

    def _spectral(self, g: Tensor, a: Tensor, ridge: Tensor) -> Tensor:
        ridge = ridge[:, None, None]
        rotated = g[..., :-1] @ self.vectors
        inverse = 1 / (a[:, :, None] * self.values + ridge)
        if self.complete:
            W = (rotated * inverse) @ self.vectors.T
        else:
            W = g[..., :-1] / ridge + (rotated * (inverse - 1 / ridge)) @ self.vectors.T
        return torch.cat([W, (g[..., -1] / a)[..., None]], dim=-1)

    def _inside(self, g: Tensor, inverse: Tensor, ridge: Tensor) -> Tensor:
        """g (P, c, d + 1) times `inverse` (c, r + 1, r + 1), which acts in the span of the vectors; 1/ridge beyond."""
        if self.complete:
            return torch.einsum("pcd,cde->pce", g, inverse)
        W = g[..., :-1]
        rotated = W @ self.vectors
        inner = torch.einsum("pcd,cde->pce", torch.cat([rotated, g[..., -1:]], dim=-1), inverse)
        beyond = (W - rotated @ self.vectors.T) / ridge[:, None, None]
        return torch.cat([inner[..., :-1] @ self.vectors.T + beyond, inner[..., -1:]], dim=-1)

    def refresh(self, kin: int, curvature: Tensor, ridge: Tensor) -> None:
        """Give `kin` the inverse of its mean Hessian: curvature (c, n) of each row of X, ridge 1/C."""
        if (
            not self.complete
            and self.states is not None
            and self.states.shape[1] != self.vectors.shape[1]
        ):
            self.states = self.states @ self.vectors
        X, r = self.states, self.states.shape[1]
        hessian = X.new_empty(len(curvature), r + 1, r + 1)
        for block, weight in zip(hessian, curvature, strict=True):
            used = weight > 1e-4 * weight.max()
            rows, weight = X[used], weight[used]
            weighted = weight[:, None] * rows
            block[:-1, :-1] = rows.T @ weighted
            block[-1, :-1] = block[:-1, -1] = weighted.sum(0)
            block[-1, -1] = weight.sum()
        diagonal = hessian.diagonal(dim1=-2, dim2=-1)
        diagonal[:, :-1] += ridge
        diagonal += 2e-6 * diagonal.amax(dim=-1, keepdim=True)  # float32 keeps it positive definite
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if not failed.any():
            self.refreshed[kin] = torch.cholesky_inverse(factor)


class _Objective:
    """F, its gradient, and its course along a line; all (P, …)."""

    def __init__(self, design: Design, problems: Problems) -> None:
        self.design = design
        self.problems = problems
        self.scale = design.scale[problems.fold]  # (P, d)
        self.centre = design.centre[problems.fold]
        self.ridge = 1 / problems.C
        self.binary = problems.n_classes == 2
        if not self.binary:
            self.one_hot = torch.nn.functional.one_hot(problems.y, problems.n_classes).transpose(
                1, 2
            )
            present = (self.one_hot * problems.weight[:, None]).sum(-1) > 0  # (P, c)
            self.absent = (~present).to(design.X.dtype)[..., None] * ABSENT

    def rows(self, index: Tensor) -> _Objective:
        return _Objective(self.design, self.problems.rows(index))

    def logits(self, theta: Tensor) -> Tensor:
        """(P, c, d + 1) -> (P, c, n); a class without training rows is shut out."""
        Z = self.linear(theta)
        return Z if self.binary else Z - self.absent

    def linear(self, theta: Tensor) -> Tensor:
        P, c, _ = theta.shape
        A = theta[..., :-1] * self.scale[:, None]
        offset = theta[..., -1] - (A * self.centre[:, None]).sum(-1)
        Z = (A.reshape(P * c, -1) @ self.design.X.T).view(P, c, -1)
        return Z.add_(offset[..., None])

    def loss(self, Z: Tensor) -> Tensor:
        """Σ loss over the rows, (P,) in float64."""
        y, weight = self.problems.y, self.problems.weight
        if self.binary:
            z = Z[:, 0]
            each = torch.nn.functional.softplus(z).sub_(y * z)
        else:
            each = torch.logsumexp(Z, dim=1) - Z.gather(1, y[:, None])[:, 0]
        return each.mul_(weight).sum(-1, dtype=torch.float64)

    def residual(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """∂loss/∂Z (P, c, n) and the summed curvature p(1 − p) (P, c)."""
        weight = self.problems.weight[:, None]
        if self.binary:
            p = torch.sigmoid(Z)
            target = self.problems.y[:, None]
        else:
            p = torch.softmax(Z, dim=1)
            target = self.one_hot
        R = (p - target).mul_(weight)
        curvature = p.mul_(p.neg().add_(1)).mul_(weight).sum(-1)
        return R, curvature

    def gradient(self, R: Tensor, theta: Tensor) -> Tensor:
        P, c, n = R.shape
        total = R.sum(-1)
        gA = (R.reshape(P * c, n) @ self.design.X).view(P, c, -1)
        g = torch.empty_like(theta)
        g[..., :-1] = (gA - total[..., None] * self.centre[:, None]) * self.scale[:, None]
        g[..., :-1] += self.ridge[:, None, None] * theta[..., :-1]
        g[..., -1] = total
        return g


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(-1, dtype=torch.float64)


class _Memory:
    """The last pairs (step, change of gradient) of every row, and the two-loop recursion over them."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y (P, c, d + 1); rho (P,)

    def add(self, s: Tensor, y: Tensor) -> None:
        curvature = _dot(s, y)
        usable = curvature > 1e-12 * _dot(s, s).mul(_dot(y, y)).sqrt()
        rho = torch.where(usable, 1 / curvature.where(usable, torch.ones_like(curvature)), 0.0)
        self.pairs = [*self.pairs[-(MEMORY - 1) :], (s, y, rho.to(s.dtype))]

    def keep(self, index: Tensor) -> None:
        self.pairs = [(s[index], y[index], rho[index]) for s, y, rho in self.pairs]

    def direction(self, g: Tensor, precondition: Callable[[Tensor], Tensor]) -> Tensor:
        q = g.clone()
        alphas: list[Tensor] = []
        for s, y, rho in reversed(self.pairs):
            alpha = rho * _dot(s, q).to(g.dtype)
            q -= alpha[:, None, None] * y
            alphas.append(alpha)
        q = precondition(q)
        for (s, y, rho), alpha in zip(self.pairs, reversed(alphas), strict=True):
            beta = rho * _dot(y, q).to(g.dtype)
            q += (alpha - beta)[:, None, None] * s
        return q.neg_()


@dataclass
class _Point:
    """Where every active row stands."""

    theta: Tensor
    logits: Tensor
    residual: Tensor
    curvature: Tensor
    loss: Tensor
    gradient: Tensor

    @classmethod
    def at(cls, objective: _Objective, theta: Tensor, logits: Tensor) -> _Point:
        residual, curvature = objective.residual(logits)
        return cls(theta, logits, residual, curvature, objective.loss(logits),
                   objective.gradient(residual, theta))  # fmt: skip

    def value(self, ridge: Tensor) -> Tensor:
        W = self.theta[..., :-1]
        return self.loss + 0.5 * ridge * _dot(W, W)

    def rows(self, index: Tensor) -> _Point:
        return _Point(self.theta[index], self.logits[index], self.residual[index],
                      self.curvature[index], self.loss[index], self.gradient[index])  # fmt: skip


def minimise(
    design: Design,
    problems: Problems,
    preconditioner: Preconditioner,
    start: Tensor | None = None,
    *,
    tol: float = 1e-7,
    max_iter: int = 300,
) -> Solution:
    """Minimise every problem from `start` (P, c, d + 1), or from zero, to `tol` of its own objective."""
    P, n = problems.y.shape
    c = 1 if problems.n_classes == 2 else problems.n_classes
    objective = _Objective(design, problems)
    theta = design.X.new_zeros(P, c, design.X.shape[1] + 1) if start is None else start.clone()
    logits = objective.logits(theta)
    values = design.X.new_zeros(P, dtype=torch.float64)
    active = torch.arange(P, device=theta.device)
    point = _Point.at(objective, theta, logits)
    memory = _Memory()
    iteration = 0
    for iteration in range(1, max_iter + 1):
        direction = memory.direction(
            point.gradient,
            partial(
                preconditioner.apply, a=_floored(objective, point), problems=objective.problems
            ),
        )
        slope = _dot(point.gradient, direction)
        value = point.value(objective.ridge)
        going = -0.5 * slope > tol * value
        if not going.all():
            _store(theta, logits, values, active[~going], point.rows(~going), value[~going])
            active = active[going]
            if not len(active):
                break
            point, objective = point.rows(going), objective.rows(going)
            direction, slope, value = direction[going], slope[going], value[going]
            memory.keep(going)
        fresh = _line_search(objective, point, direction, slope, value)
        memory.add(fresh.theta - point.theta, fresh.gradient - point.gradient)
        point = fresh
        if iteration in REFRESH:
            _refresh(preconditioner, objective, point)
    if len(active):
        _store(theta, logits, values, active, point, point.value(objective.ridge))
    return Solution(theta, logits, values, iteration, not len(active))


def _floored(objective: _Objective, point: _Point) -> Tensor:
    return torch.maximum(point.curvature, 1e-4 * objective.problems.weight.sum(-1, keepdim=True))


def _refresh(preconditioner: Preconditioner, objective: _Objective, point: _Point) -> None:
    problems = objective.problems
    p = torch.sigmoid(point.logits) if objective.binary else torch.softmax(point.logits, dim=1)
    each = p * (1 - p) * problems.weight[:, None]
    for kin in problems.kin.unique():
        rows = problems.kin == kin
        seen = problems.weight[rows].sum(0).clamp(min=1)
        used = problems.weight[rows].mean()
        preconditioner.refresh(int(kin), each[rows].sum(0) / seen * used, objective.ridge[rows][0])


def _store(
    theta: Tensor, logits: Tensor, values: Tensor, rows: Tensor, point: _Point, value: Tensor
) -> None:
    theta[rows], logits[rows], values[rows] = point.theta, point.logits, value


def _line_search(
    objective: _Objective, point: _Point, direction: Tensor, slope: Tensor, value: Tensor
) -> _Point:
    """A step per row that lowers F enough. Logits are linear in the step, so only sums are recomputed per trial."""
    course = objective.linear(direction)
    W, D = point.theta[..., :-1], direction[..., :-1]
    linear, square = objective.ridge * _dot(W, D), objective.ridge * _dot(D, D)
    base = 0.5 * objective.ridge * _dot(W, W)
    t = torch.ones_like(slope)
    noise = 1e-7 if point.theta.dtype == torch.float32 else 1e-14
    for _trial in range(8):
        step = t.to(direction.dtype)[:, None, None]
        logits = point.logits + step * course
        residual, curvature = objective.residual(logits)
        loss = objective.loss(logits)
        slope_t = _dot(residual, course) + linear + t * square
        value_t = loss + base + t * linear + 0.5 * t * t * square
        low_enough = value_t <= value + 1e-4 * t * slope + noise * value
        far_enough = slope_t >= 0.9 * slope
        done = low_enough & far_enough
        if done.all():
            break
        secant = slope / (slope - slope_t).clamp(max=-1e-300)
        t = torch.where(done, t, t * secant.clamp(0.1, 0.5).where(~low_enough, secant.clamp(2, 10)))
    theta = point.theta + step * direction
    return _Point(theta, logits, residual, curvature, loss, objective.gradient(residual, theta))
