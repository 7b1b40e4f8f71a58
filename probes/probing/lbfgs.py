"""Many L2 logistic regressions on the same states at once: preconditioned L-BFGS, one problem per *row*.

    F(W, b) = Σ_i loss(y_i, W z_i + b) + ‖W‖² / (2C)

Folds, values of C and concepts are rows of one matrix, so each step is two matrix products over the
shared states. One eigendecomposition of the layer's correlation matrix preconditions every row: H₀
= (a S + I/C)⁻¹ with a the row's mean curvature Σ p(1 − p). A row is finished when its Newton
decrement, which estimates F − min F, is small beside F.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from probes.probing.design import Design

ABSENT = 1e4  # taken off the logit of a class that a training part does not hold: its probability is exactly zero
TRIALS = 8  # of a line search
MEMORY = 8  # pairs kept per row
ROWS_PER_DIM = 4  # more rows than this times d do not make a better preconditioner


@dataclass(frozen=True)
class Problems:
    """P problems: targets, weights of the rows of X, the fold that standardises, and the regularisation."""

    y: Tensor  # (P, n) class codes 0…K−1
    weight: Tensor  # (P, n) 1 where the row counts
    fold: Tensor  # (P,)
    C: Tensor  # (P,)
    n_classes: int

    def rows(self, index: Tensor) -> Problems:
        return Problems(
            self.y[index], self.weight[index], self.fold[index], self.C[index], self.n_classes
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
    """Applies (a S + λ)⁻¹ for many a and λ by one eigendecomposition of S, the second moments of a layer's states."""

    def __init__(self, design: Design) -> None:
        n, d = design.X.shape
        some = design.X if n <= ROWS_PER_DIM * d else design.X[:: n // (ROWS_PER_DIM * d)]
        n = len(some)
        if n >= d:
            values, vectors = torch.linalg.eigh(some.T @ some)
        else:
            values, left = torch.linalg.eigh(some @ some.T)
            keep = values > 1e-6 * values[-1].clamp(min=1e-30)
            values = values[keep]
            vectors = (some.T @ left[:, keep]) / values.sqrt()
        self.values = values.clamp(min=0) / n  # (r,)
        self.vectors = vectors  # (d, r)

    def apply(self, g: Tensor, a: Tensor, ridge: Tensor) -> Tensor:
        """g (P, c, d + 1) through each row's inverse; a (P, c) is its summed curvature, ridge (P,) its 1/C."""
        strength = ridge[:, None, None]
        W = g[..., :-1]
        rotated = W @ self.vectors
        inverse = 1 / (a[:, :, None] * self.values + strength)
        out = torch.empty_like(g)
        if self.vectors.shape[1] == W.shape[-1]:
            out[..., :-1] = (rotated * inverse) @ self.vectors.T
        else:  # S says nothing beyond the span of the vectors, where only the penalty curves
            out[..., :-1] = W / strength + (rotated * (inverse - 1 / strength)) @ self.vectors.T
        out[..., -1] = g[..., -1] / a
        return out


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

    def residual(self, Z: Tensor) -> Tensor:
        """∂loss/∂Z (P, c, n)."""
        p = torch.sigmoid(Z) if self.binary else torch.softmax(Z, dim=1)
        target = self.problems.y[:, None] if self.binary else self.one_hot
        return p.sub_(target).mul_(self.problems.weight[:, None])

    def curvature(self, Z: Tensor) -> Tensor:
        """Summed curvature of the loss in the logits, (P, c, c): Σ p(1 − p), or Σ diag(p) − p pᵀ."""
        weight = self.problems.weight[:, None]
        if self.binary:
            p = torch.sigmoid(Z)
            return (p * (1 - p) * weight).sum(-1, keepdim=True)
        p = torch.softmax(Z, dim=1)
        weighted = p * weight
        return torch.diag_embed(weighted.sum(-1)) - weighted @ p.transpose(1, 2)

    def gradient(self, R: Tensor, theta: Tensor) -> Tensor:
        P, c, n = R.shape
        total = R.sum(-1)
        gA = (R.reshape(P * c, n) @ self.design.X).view(P, c, -1)
        g = torch.empty_like(theta)
        g[..., :-1] = (gA - total[..., None] * self.centre[:, None]) * self.scale[:, None]
        g[..., :-1] += self.ridge[:, None, None] * theta[..., :-1]
        g[..., -1] = total
        return g

    def step(self, point: _Point, direction: Tensor, course: Tensor, t: Tensor) -> _Point:
        """Where a step t (P,) along `direction`, whose logits are `course`, leads; the gradient is left to do."""
        length = t.to(direction.dtype)[:, None, None]
        logits = point.logits + length * course
        theta = point.theta + length * direction
        return _Point(theta, logits, self.residual(logits), self.loss(logits), point.gradient)

    def inverse(self, preconditioner: Preconditioner, point: _Point) -> Callable[[Tensor], Tensor]:
        """The preconditioner at the rows' present curvature, in whose eigenvectors the classes are apart."""
        matrix = self.curvature(point.logits)
        floor = 1e-4 * self.problems.weight.sum(-1, keepdim=True)
        if self.binary:
            a = torch.maximum(matrix[..., 0], floor)
            return partial(preconditioner.apply, a=a, ridge=self.ridge)
        values, Q = class_axes(matrix)
        a = torch.maximum(values, floor)
        return lambda g: Q @ preconditioner.apply(Q.transpose(1, 2) @ g, a, self.ridge)


def class_axes(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (P, c) and eigenvectors (P, c, c) of curvatures in the logits.

    In float64: where all probabilities are 0 or 1, float32 holds denormal numbers on which LAPACK does not converge.
    """
    values, Q = torch.linalg.eigh(matrix.double())
    return values.to(matrix.dtype), Q.to(matrix.dtype)


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
    loss: Tensor
    gradient: Tensor

    @classmethod
    def at(cls, objective: _Objective, theta: Tensor, logits: Tensor) -> _Point:
        residual = objective.residual(logits)
        return cls(
            theta, logits, residual, objective.loss(logits), objective.gradient(residual, theta)
        )

    def value(self, ridge: Tensor) -> Tensor:
        W = self.theta[..., :-1]
        return self.loss + 0.5 * ridge * _dot(W, W)

    def rows(self, index: Tensor) -> _Point:
        parts = (self.theta, self.logits, self.residual, self.loss, self.gradient)
        return _Point(*(part[index] for part in parts))


def minimise(
    design: Design,
    problems: Problems,
    preconditioner: Preconditioner,
    start: Tensor | None = None,
    *,
    tol: float,
    max_iter: int,
) -> Solution:
    """Minimise every problem from `start` (P, c, d + 1), or from zero.

    A row is done when its Newton decrement is `tol` of its objective.
    """
    P = len(problems.y)
    c = 1 if problems.n_classes == 2 else problems.n_classes
    objective = _Objective(design, problems)
    theta = design.X.new_zeros(P, c, design.X.shape[1] + 1) if start is None else start.clone()
    logits = objective.logits(theta)
    values = design.X.new_zeros(P, dtype=torch.float64)
    active = torch.arange(P, device=theta.device)
    point = _Point.at(objective, theta, logits)
    memory = _Memory()
    iterations = 0
    while len(active) and iterations < max_iter:
        iterations += 1
        direction = memory.direction(point.gradient, objective.inverse(preconditioner, point))
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
    if len(active):
        _store(theta, logits, values, active, point, point.value(objective.ridge))
    return Solution(theta, logits, values, iterations, not len(active))


def _store(
    theta: Tensor, logits: Tensor, values: Tensor, rows: Tensor, point: _Point, value: Tensor
) -> None:
    theta[rows], logits[rows], values[rows] = point.theta, point.logits, value


def _line_search(
    objective: _Objective, point: _Point, direction: Tensor, slope: Tensor, value: Tensor
) -> _Point:
    """A step per row that lowers F enough. Logits are linear in the step, so a trial needs no matrix product."""
    course = objective.linear(direction)
    W, D = point.theta[..., :-1], direction[..., :-1]
    linear, square = objective.ridge * _dot(W, D), objective.ridge * _dot(D, D)
    noise = 1e-7 if point.theta.dtype == torch.float32 else 1e-14
    t = torch.ones_like(slope)
    for _trial in range(TRIALS):
        fresh = objective.step(point, direction, course, t)
        slope_t = _dot(fresh.residual, course) + linear + t * square
        value_t = fresh.loss - point.loss + t * linear + 0.5 * t * t * square + value
        low_enough = value_t <= value + 1e-4 * t * slope + noise * value
        done = low_enough & (slope_t >= 0.9 * slope)
        if done.all():
            break
        secant = slope / (slope - slope_t).clamp(max=-1e-300)
        factor = torch.where(low_enough, secant.clamp(2, 10), secant.clamp(0.1, 0.5))
        t = torch.where(done, t, t * factor)
    else:
        fresh = objective.step(point, direction, course, t)
    fresh.gradient = objective.gradient(fresh.residual, fresh.theta)
    return fresh
