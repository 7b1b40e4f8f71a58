"""Minimum description length of labels given states: the online code of a linear probe, in bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax
from sklearn.base import clone

from probes.errors import EstimatorInputError
from probes.probing.base import Concept, FloatArray, IntArray, checked_groups
from probes.probing.folds import HOLD_OUT, FoldPlan, inner_hold_out
from probes.probing.linear import DEFAULT_CS, LinearProbe

PORTIONS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25.0, 50.0, 100.0)  # per cent of the rows
CODE_TOL = 1e-5  # of the fits on prefixes: moves the code by a thousandth, a tenth of what another order does
SPREAD = 8  # prefixes of more unequal sizes are not solved together: the short would pay for the rows of the long


@dataclass(frozen=True)
class OnlineCode:
    """What it costs to send the labels: `bits` (n,) of every row, in the order of the data.

    Rows are sent in `order` (n,); portion i is order[bounds[i] : bounds[i + 1]]. `C` (portions,) is the regularisation
    of the probe that coded a portion, NaN where the uniform code was used.
    """

    bits: FloatArray
    order: IntArray
    bounds: IntArray
    C: FloatArray

    def per_portion(self) -> FloatArray:
        """Bits of every portion (portions,)."""
        return np.add.reduceat(self.bits[self.order], self.bounds[:-1])


class MDLProbe(LinearProbe):
    """A `LinearProbe` that also says how many bits the labels cost when they are sent with its help.

    The rows are put in random order and sent in portions; each portion is coded by a probe that was
    trained, C chosen by its own hold-out, on all portions before it (Voita & Titov's online code):

        L = n₁ log₂ K + Σ_i −log₂ p_i(portion i)      L_uniform = n log₂ K      compression = L_uniform / L

    So a representation is better if few labels suffice to read the concept from it, which the
    accuracy of one probe on all rows does not tell. K is the number of classes in y. The first
    portion, and every one before which there are fewer than five rows (or groups), one class, or no
    possible hold-out, is coded uniformly: log₂ K bits a row. A probability p learnt from m rows is used
    as (1 − ε) p + ε / K with ε = 1 / (m + 1), the escape probability of Cleary & Witten's method A: a
    class that was never seen has a finite price, log₂ K(m + 1) bits at most, and being always right still
    costs next to nothing (log₂(1 + 1/m) bits). A predictor without knowledge costs n log₂ K exactly.

    Parameters
    ----------
    Cs, tol, max_iter, device : as for `LinearProbe`.
    portions : ends of the portions in per cent of the rows, ascending to 100. With groups, each end is
    moved to the end of its group, so that no group is on both sides.
    random_state : whole number that draws the order and the hold-outs.

    Attributes
    ----------
    mdl_ : L in bits, at least 0, down is better. uniform_bits_ : n log₂ K. compression_ : their ratio, 1 means
    nothing was learnt. portion_sizes_, portion_bits_ (portions,) : rows and bits of every portion, empty ones
    left out; portion_C_ the C used, NaN for uniform. bits_ (n,) : bits of every row, in the order of X.
    And those of `LinearProbe`, fitted on all rows.

    Raises what `LinearProbe` raises. See also `mdl_sweep`. Paper: Voita & Titov 2020 (arXiv
    2003.12298); Cleary & Witten 1984; Blier & Ollivier 2018 (arXiv 1802.07044).

    >>> rng = np.random.default_rng(0)
    >>> y = rng.permutation(np.arange(400) % 2)
    >>> X = rng.normal(size=(400, 5)); X[:, 0] += 4 * y
    >>> probe = MDLProbe().fit(X, y)
    >>> probe.uniform_bits_, probe.compression_ > 3, probe.score(X, y) > 0.9
    (400.0, True, True)
    """

    def __init__(
        self,
        *,
        Cs: Sequence[float] = DEFAULT_CS,
        portions: Sequence[float] = PORTIONS,
        tol: float = 1e-7,
        max_iter: int = 500,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        super().__init__(
            Cs=Cs, tol=tol, max_iter=max_iter, random_state=random_state, device=device
        )
        self.portions = portions

    def fit(self, X: Any, y: Any, groups: Any = None) -> MDLProbe:
        """X (n, d) states, y (n,) classes of any type, groups (n,) that are sent and held out together."""
        super().fit(X, y, groups)
        states, codes = self._checked(X, y)
        K = len(self.classes_)
        code = self.online_code(states, codes, K, checked_groups(groups, len(codes)))
        self.bits_ = code.bits
        self.portion_sizes_ = np.diff(code.bounds)
        self.portion_bits_ = code.per_portion()
        self.portion_C_ = code.C
        self.mdl_ = float(code.bits.sum())
        self.uniform_bits_ = float(len(codes) * np.log2(K))
        self.compression_ = self.uniform_bits_ / self.mdl_
        return self

    def online_code(
        self, X: FloatArray, y: IntArray, n_classes: int, groups: NDArray[Any] | None = None
    ) -> OnlineCode:
        """The code of classes y (n,) in 0…n_classes−1 given finite states X (n, d), without the fit on all rows."""
        order = sending_order(len(y), groups, self.random_state)
        bounds = portion_bounds(self.portions, None if groups is None else groups[order], len(y))
        bits = np.full(len(y), np.log2(n_classes))
        C = np.full(len(bounds) - 1, np.nan)
        learnt = [i for i in range(1, len(C)) if self._can_learn(y, groups, order[: bounds[i]])]
        prefixes = [order[: bounds[i]] for i in learnt]
        coming = [order[bounds[i] : bounds[i + 1]] for i in learnt]
        found = self._predicted(X, Concept(None, y, n_classes), prefixes, coming, groups)
        for i, prefix, rows, (log_p, chosen) in zip(learnt, prefixes, coming, found, strict=True):
            own = log_p[y[rows], np.arange(len(rows))]
            escape = 1 / (len(prefix) + 1)
            bits[rows] = -np.log2((1 - escape) * np.exp(own) + escape / n_classes)
            C[i] = chosen
        return OnlineCode(bits, order, bounds, C)

    def _can_learn(self, y: IntArray, groups: NDArray[Any] | None, prefix: IntArray) -> bool:
        own = None if groups is None else groups[prefix]
        units = len(prefix) if own is None else len(np.unique(own))
        if units < HOLD_OUT or len(np.unique(y[prefix])) < 2:
            return False
        try:  # fails where the only rows to hold out are a class's last
            if np.size(self.Cs) > 1:
                inner_hold_out(y[prefix], own, self.random_state)
        except EstimatorInputError:
            return False
        return True

    def _predicted(
        self,
        X: FloatArray,
        concept: Concept,
        prefixes: Sequence[IntArray],
        coming: Sequence[IntArray],
        groups: NDArray[Any] | None,
    ) -> list[tuple[FloatArray, float]]:
        """Per prefix: log-probabilities (K, rows) of the rows `coming` next, and the C taken.

        The prefixes are nested folds of one design, solved together; those much shorter than others are solved
        on the rows they need.
        """
        from probes.probing.design import make_design
        from probes.probing.lbfgs import Preconditioner

        if not prefixes:
            return []
        n, K = len(X), concept.n_classes
        plan = FoldPlan.make(prefixes, n)
        design = make_design(X, plan, self.device)
        preconditioner = Preconditioner(design)
        solver: Any = clone(self)
        solver.tol = max(self.tol, CODE_TOL)
        place = plan.restore
        found: list[tuple[FloatArray, float]] = []
        for folds in _of_like_size([len(prefix) for prefix in prefixes]):
            # what is sent first lies last in the plan's order
            part = design.part(folds, slice(n - len(prefixes[folds[-1]]), n))
            fit = solver._path(
                part, preconditioner, concept, [(prefixes[f], coming[f]) for f in folds], groups
            )
            for at, fold in enumerate(folds):
                logits = design.decision(fold, fit.theta[at], place[coming[fold]])
                seen = np.unique(concept.y[prefixes[fold]])
                found.append((_log_probabilities(logits, seen, K), float(fit.C[at])))
        return found


def _log_probabilities(logits: FloatArray, seen: IntArray, K: int) -> FloatArray:
    """(c, rows) -> (K, rows); c is 1 for two classes. Classes not `seen` in training have probability zero."""
    if K == 2:
        return log_expit(np.concatenate([-logits, logits]))
    shut = np.full_like(logits, -np.inf)
    shut[seen] = logits[seen]
    return log_softmax(shut, axis=0)


def _of_like_size(sizes: Sequence[int]) -> list[list[int]]:
    """Ascending sizes in runs whose largest is at most `SPREAD` times the smallest."""
    runs: list[list[int]] = []
    for number, size in enumerate(sizes):
        if runs and size <= SPREAD * sizes[runs[-1][0]]:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def sending_order(n: int, groups: NDArray[Any] | None, seed: int) -> IntArray:
    """Row numbers (n,) at random; the rows of a group follow one another."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if groups is None:
        return order
    code = np.unique(groups, return_inverse=True)[1]
    place = rng.permutation(int(code.max()) + 1)
    return order[np.argsort(place[code[order]], kind="stable")]


def portion_bounds(portions: Any, groups: NDArray[Any] | None, n: int) -> IntArray:
    """Bounds (portions + 1,) of the portions of n rows, empty ones left out.

    `groups` (n,) are those of the rows in sending order; a bound inside a group is moved to its end.

    >>> portion_bounds((1, 10, 50, 100), None, 20).tolist()
    [0, 2, 10, 20]
    >>> portion_bounds((1, 10, 50, 100), np.arange(20) // 3, 20).tolist()
    [0, 3, 12, 20]
    """
    ends = np.atleast_1d(np.asarray(portions, dtype=np.float64))
    good = ends.ndim == 1 and len(ends) and np.isfinite(ends).all() and ends[0] > 0
    if not good or (np.diff(ends) <= 0).any() or ends[-1] != 100:
        raise EstimatorInputError(
            f"portions are {portions!r}: positive percentages are needed, ascending and ending with 100"
        )
    rows = np.rint(ends / 100 * n).astype(np.int64)
    if groups is not None:
        last = np.append(groups[1:] != groups[:-1], True)
        borders = np.append(0, np.flatnonzero(last) + 1)
        rows = borders[np.searchsorted(borders, rows)]
    return np.unique(np.append(0, rows))
