"""The batched solvers against brute force and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from probes.linalg import Standardiser
from probes.probing import LinearProbe, RidgeProbe
from probes.probing.base import Concept
from probes.probing.design import make_design
from probes.probing.folds import FoldPlan, stratified_folds
from probes.probing.lbfgs import Preconditioner, Problems, class_axes, minimise
from probes.probing.sweep import out_of_fold


def hard(n: int, d: int, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """States with a steep spectrum, large means and a dead dimension; labels that are not separable."""
    rng = np.random.default_rng(n + d)
    X = (
        rng.normal(size=(n, d))
        * np.arange(1, d + 1) ** -1.0
        @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    )
    z = X @ rng.normal(size=(d, classes))
    y = (z / z.std() + rng.gumbel(size=z.shape) * 0.5).argmax(axis=1)
    X += 3 * rng.normal(size=d)
    X[:, -1] = 4.2
    return X.astype(np.float32), y


def objective(W: np.ndarray, b: np.ndarray, Z: np.ndarray, y: np.ndarray, C: float) -> float:
    scores = Z @ W.T + b
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    top = scores.max(axis=1)
    loss = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[np.arange(len(y)), y]
    return float(loss.sum() + (W**2).sum() / (2 * C))


@pytest.mark.parametrize(("n", "d", "classes"), [(400, 30, 2), (300, 30, 4), (120, 150, 2)])
def test_every_fold_and_strength_reaches_the_optimum(n: int, d: int, classes: int) -> None:
    """Within 1e-6 of scikit-learn at tight tolerance, on standardised training rows, in float32."""
    X, y = hard(n, d, classes)
    folds = stratified_folds(y, None, 3, 0)
    plan = FoldPlan.make([train for train, _ in folds], n)
    design = make_design(X, plan)
    Cs = np.logspace(-4, 2, 4)
    fold = torch.arange(3).repeat_interleave(len(Cs))
    codes = torch.from_numpy(y[plan.order])
    problems = Problems(
        (codes.float() if classes == 2 else codes).expand(len(fold), -1),
        design.train[fold],
        fold,
        torch.from_numpy(Cs).float().repeat(3),
        classes,
    )
    found = minimise(design, problems, Preconditioner(design), tol=1e-7, max_iter=500)
    assert found.converged
    for row, (f, C) in enumerate(zip(fold.tolist(), np.tile(Cs, 3), strict=True)):
        train = folds[f][0]
        Z = Standardiser.fit(X[train]).transform(X[train])
        judge = LogisticRegression(C=C, tol=1e-8, max_iter=20_000).fit(Z, y[train])
        best = objective(judge.coef_, judge.intercept_, Z, y[train], C)
        theta = found.theta[row].double().numpy()
        ours = objective(theta[:, :-1], theta[:, -1], Z, y[train], C)
        assert ours <= best * (1 + 1e-6)
        assert float(found.objective[row]) == pytest.approx(ours, rel=1e-5)


def brute_force_loo(Z: np.ndarray, Y: np.ndarray, alpha: float, left: list[np.ndarray]) -> float:
    """Mean squared error over rows that were left out, each set refitted with its own intercept."""
    errors = np.empty_like(Y)
    for rows in left:
        keep = np.setdiff1d(np.arange(len(Z)), rows)
        errors[rows] = Y[rows] - Ridge(alpha).fit(Z[keep], Y[keep]).predict(Z[rows]).reshape(
            Y[rows].shape
        )
    return float((errors**2).mean(axis=0).sum())


@pytest.mark.parametrize(("n", "d"), [(40, 8), (24, 60)])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("grouped", [False, True])
def test_ridge_leave_one_out_is_exact(n: int, d: int, classes: int, grouped: bool) -> None:
    X, y = hard(n, d, classes)
    X = X.astype(np.float64)
    alphas = (0.1, 10.0, 1000.0)
    groups = np.random.default_rng(0).integers(0, 9, n) if grouped else None
    probe = RidgeProbe(alphas=alphas).fit(X, y, groups=groups)
    Z = Standardiser.fit(X).transform(X)
    Y = np.where(y[:, None] == (np.arange(classes) if classes > 2 else [1]), 1.0, -1.0)
    owner = np.arange(n) if groups is None else groups
    left = [np.flatnonzero(owner == g) for g in np.unique(owner)]
    brute = [brute_force_loo(Z, Y, a, left) for a in alphas]
    np.testing.assert_allclose(probe.loo_error_, brute, rtol=1e-8)
    assert probe.alpha_ == alphas[int(np.argmin(brute))]
    judge = Ridge(probe.alpha_).fit(Z, Y)
    expected = judge.predict(Z).reshape(n, -1)
    np.testing.assert_allclose(probe.decision_function(X).reshape(n, -1), expected, atol=1e-8)


@pytest.mark.parametrize("probe", [LinearProbe(tol=1e-11), RidgeProbe()], ids=str)
@pytest.mark.parametrize(("n", "d", "classes"), [(150, 12, 2), (150, 12, 3), (40, 90, 2)])
@pytest.mark.parametrize("grouped", [False, True])
def test_batched_folds_equal_a_loop_of_fits(
    probe: LinearProbe | RidgeProbe, n: int, d: int, classes: int, grouped: bool
) -> None:
    """What a fold learns depends on its training rows only, though all folds share one design."""
    X, y = hard(n, d, classes)
    X = X.astype(np.float64)
    groups = np.arange(n) // 3 if grouped else None
    folds = stratified_folds(y, groups, 4, 0)
    concepts = [Concept("a", y, classes), Concept("b", np.arange(n) % 2, 2)]
    results = out_of_fold(probe, X, concepts, folds, groups=groups)
    for concept, result in zip(concepts, results, strict=True):
        for number, (train, test) in enumerate(folds):
            own = None if groups is None else groups[train]
            alone = type(probe)(**probe.get_params()).fit(X[train], concept.y[train], groups=own)
            scores = alone.decision_function(X[test])
            np.testing.assert_allclose(
                result.scores[test], scores, atol=2e-4 * np.abs(scores).max()
            )
            assert (
                result.chosen[number] == getattr(alone, "C_", None)
                or result.chosen[number] == alone.alpha_
            )


def test_test_rows_do_not_reach_the_fold_that_tests_them() -> None:
    X, y = hard(90, 10)
    folds = stratified_folds(y, None, 3, 0)
    spoilt = X.copy()
    spoilt[folds[0][1]] *= 1000
    concept = [Concept(None, y, 2)]
    for probe in (RidgeProbe(), LinearProbe()):
        clean = out_of_fold(probe, X, concept, folds[:1])[0].chosen
        assert out_of_fold(probe, spoilt, concept, folds[:1])[0].chosen == clean


def test_a_feature_that_is_constant_in_training_says_nothing() -> None:
    """One dimension is alive in the test rows of fold 0 only."""
    X, y = hard(90, 10)
    folds = stratified_folds(y, None, 3, 0)
    X = np.column_stack([X, np.full(90, 5.0)]).astype(np.float32)
    X[folds[0][1], -1] = 1e4
    for probe in (RidgeProbe(), LinearProbe()):
        with_it = out_of_fold(probe, X, [Concept(None, y, 2)], folds)[0].scores[folds[0][1]]
        without = out_of_fold(probe, X[:, :-1], [Concept(None, y, 2)], folds)[0].scores[folds[0][1]]
        np.testing.assert_allclose(with_it, without, atol=1e-2 * np.abs(without).max())


@pytest.mark.parametrize("probe", [RidgeProbe(), LinearProbe()], ids=str)
def test_inputs_are_left_as_they_were(probe: RidgeProbe | LinearProbe) -> None:
    for dtype in (np.float32, np.float64):
        X, y = hard(60, 6)
        X = X.astype(dtype)
        before = X.copy()
        out_of_fold(probe, X, [Concept(None, y, 2)], stratified_folds(y, None, 3, 0))
        np.testing.assert_array_equal(X, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("probe", [LinearProbe, RidgeProbe])
def test_cuda_agrees_with_the_cpu(probe: type[LinearProbe] | type[RidgeProbe]) -> None:
    X, y = hard(300, 20, 3)
    folds = stratified_folds(y, None, 3, 0)
    concept = [Concept(None, y, 3)]
    cpu, cuda = (out_of_fold(probe(device=d), X, concept, folds)[0] for d in ("cpu", "cuda"))
    assert cpu.chosen == cuda.chosen
    np.testing.assert_allclose(cuda.scores, cpu.scores, atol=1e-2)


def test_curvature_of_certain_predictions_has_axes() -> None:
    # Met on real states: probabilities of 0 and 1 up to denormal numbers, on which a float32 solver gave up.
    matrix = torch.zeros(7, 7)
    matrix[1, 1], matrix[2, 2], matrix[4, 4], matrix[6, 6] = 1.55e-5, 1.42e-5, 1.31e-6, 9.8e-45
    matrix[1, 2] = matrix[2, 1] = -1.41e-5
    matrix[1, 4] = matrix[4, 1] = -1.3e-6
    matrix[1, 6] = matrix[6, 1] = -9.8e-45
    values, axes = class_axes(torch.stack([torch.eye(7), matrix]))
    assert torch.isfinite(values).all()
    back = axes @ torch.diag_embed(values) @ axes.transpose(1, 2)
    assert torch.allclose(back[1], matrix, atol=1e-11)
    assert torch.allclose(axes @ axes.transpose(1, 2), torch.eye(7).expand(2, 7, 7), atol=1e-6)
