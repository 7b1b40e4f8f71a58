"""Linear probe: L2 logistic regression, with C chosen inside the training data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from probes.probing.base import (
    Concept,
    FloatArray,
    IntArray,
    OutOfFold,
    Probe,
    as_classes,
    checked_groups,
    positive_values,
)
from probes.probing.folds import FoldPlan, inner_hold_out

if TYPE_CHECKING:
    from probes.probing.logistic_path import PathFit

DEFAULT_CS = tuple(float(c) for c in np.logspace(-4, 3, 8))


class LinearProbe(Probe):
    """L2 logistic regression, multinomial for more than two classes, with C chosen by one inner hold-out.

    Minimises Σ loss(y_i, W z_i + b) + ‖W‖² / (2C) on states z standardised on the training rows. A
    stratified fifth of them (whole groups, if `fit` is given groups) is held out, the C with the
    least log-loss there is taken, ties to the stronger regularisation, and the probe is fitted
    again on all training rows. Batched L-BFGS to `tol` of the objective.

    Parameters
    ----------
    Cs : inverse regularisation strengths to choose from, positive; a single one is taken as it is,
    without a hold-out.
    tol : Newton decrement over objective at which a fit is done; the objective is then within about
    1e-6 of its minimum by default. max_iter : steps at most.
    random_state : whole number that draws the hold-out. device : torch device of the computation.

    Attributes
    ----------
    coef_ (1 or K, d), intercept_ : act on raw states. C_ : the value taken. hold_out_loss_
    (len(Cs),) : mean log-loss.

    Raises `EstimatorInputError` (a `ValueError`) for fewer than two classes, no possible hold-out
    or bad parameters; warns (`ConvergenceWarning`) when max_iter was too small. See also
    `RidgeProbe`, `sweep`. Paper: Alain & Bengio 2016.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(60, 5)); y = np.where(X[:, 0] > 0, "yes", "no")
    >>> probe = LinearProbe().fit(X, y)
    >>> probe.score(X, y) > 0.9, probe.predict_proba(X).shape
    (True, (60, 2))
    """

    def __init__(
        self,
        *,
        Cs: Sequence[float] = DEFAULT_CS,
        tol: float = 1e-7,
        max_iter: int = 500,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.Cs = Cs
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any, groups: Any = None) -> LinearProbe:
        """X (n, d) states, y (n,) classes of any type, groups (n,) that the inner hold-out keeps together."""
        from probes.probing.design import make_design
        from probes.probing.lbfgs import Preconditioner

        states, codes = self._checked(X, y)
        n = len(codes)
        groups = checked_groups(groups, n)
        rows = np.arange(n)
        design = make_design(states, FoldPlan.make([rows], n), self.device)
        concept = Concept(None, codes, len(self.classes_))
        fit = self._path(design, Preconditioner(design), concept, [(rows, rows)], groups)
        theta = fit.theta[0]
        self.coef_, self.intercept_ = design.raw_weights(0, theta[:, :-1], theta[:, -1])
        self.C_ = float(fit.C[0])
        self.n_iter_ = fit.iterations
        self.hold_out_loss_ = fit.hold_out_loss[0]
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """Probability of every class, (n, K), rows summing to one."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            p = expit(scores)
            return np.stack([1 - p, p], axis=1)
        return softmax(scores, axis=1)

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Logarithm of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def _path(
        self,
        design: Any,
        preconditioner: Any,
        concept: Concept,
        folds: Sequence[tuple[IntArray, IntArray]],
        groups: NDArray[Any] | None,
    ) -> PathFit:
        from probes.probing.logistic_path import fit_path

        Cs = positive_values(self.Cs, "Cs")
        held = np.zeros((len(folds), len(concept.y)), dtype=bool)
        if len(Cs) > 1:
            for fold, (train, _) in enumerate(folds):
                own = None if groups is None else groups[train]
                held[fold, train] = inner_hold_out(concept.y[train], own, self.random_state)
        return fit_path(
            design, preconditioner, concept, held, Cs, tol=self.tol, max_iter=self.max_iter
        )

    def out_of_fold(
        self,
        X: FloatArray,
        concepts: Sequence[Concept],
        folds: Sequence[tuple[IntArray, IntArray]],
        plan: FoldPlan,
        groups: NDArray[Any] | None = None,
    ) -> list[OutOfFold]:
        """See `BatchedProbe`: folds and C of a concept are solved together."""
        from probes.probing.design import make_design
        from probes.probing.lbfgs import Preconditioner

        design = make_design(X, plan, self.device)
        preconditioner = Preconditioner(design)
        place = plan.restore
        results: list[OutOfFold] = []
        for concept in concepts:
            fit = self._path(design, preconditioner, concept, folds, groups)
            logits = fit.logits.double().cpu().numpy()  # (fold, c, n)
            scores = np.zeros((logits.shape[1], len(X)))
            for fold, (_, test) in enumerate(folds):
                scores[:, test] = logits[fold][:, place[test]]
            decision = scores[0] if len(scores) == 1 else scores.T
            results.append(OutOfFold(decision, as_classes(decision), tuple(fit.C.tolist())))
        return results
