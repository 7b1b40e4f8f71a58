"""How good an autoencoder is: reconstruction, sparsity, dead features; streaming, with intervals, as tidy rows.

Anything with `transform` and `inverse_transform` can be measured, so the baselines are measured by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import EstimatorInputError
from probes.linalg import check_matrix
from probes.registry import Measure, register_measure
from probes.sae.data import ArrayRows, Rows, blocks
from probes.stats import Estimate, percentile_interval
from probes.tables import tidy

FloatArray = NDArray[np.floating[Any]]

_UNITS = 4096  # rows are pooled at random into so many for the bootstrap, which would be slow on millions

_FVU_PAPER = "Gao et al. 2024 (arXiv 2406.04093)"
register_measure(
    Measure(
        "explained_variance",
        "Explained variance",
        "",
        None,
        1.0,
        "up",
        "Share of the variance about the dataset mean that the reconstruction explains; the mean itself explains 0.",
        _FVU_PAPER,
        0.0,
    )
)
register_measure(
    Measure(
        "fvu",
        "Fraction of variance unexplained",
        "",
        0.0,
        None,
        "down",
        "Squared error of the reconstruction over the variance about the dataset mean; the mean itself leaves 1.",
        _FVU_PAPER,
        1.0,
    )
)
register_measure(
    Measure("l0", "Active features", "", 0.0, None, "none", "Mean number of codes per row that are not zero.")
)  # fmt: skip
register_measure(
    Measure("dead_share", "Dead features", "", 0.0, 1.0, "down", "Share of the features that are active in no row.")
)  # fmt: skip
register_measure(
    Measure(
        "norm_ratio",
        "Norm of the mean over that of the spread",
        "",
        0.0,
        None,
        "none",
        "Length of the mean state over that of its standard deviations; large ones predict dead features, uncentred.",
    )
)


class Coder(Protocol):
    """What can be measured."""

    def transform(self, X: Any) -> Any: ...
    def inverse_transform(self, codes: Any) -> Any: ...


def row_errors(X: FloatArray, X_hat: FloatArray, mean: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Squared length per row of X − X_hat and of X − mean, both (n,), in float64 and by the same arithmetic."""
    wide = np.asarray(X, np.float64)
    error = np.square(wide - np.asarray(X_hat, np.float64)).sum(1)
    return error, np.square(wide - np.asarray(mean, np.float64)).sum(1)


def dataset_mean(X: Any) -> NDArray[np.float64]:
    """Mean (d,) of the rows of X, float64; X is an array or `Rows`."""
    if not isinstance(X, Rows):
        return check_matrix(X).mean(0, dtype=np.float64)
    rows = X
    total = np.zeros(rows.d)
    for block in blocks(rows):
        total += block.double().sum(0).cpu().numpy()
    return total / rows.n


def fvu(X: Any, X_hat: Any) -> float:
    """Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − μ‖², a ratio of sums about the mean μ of X.

    X, X_hat: (n, d). 0 for a perfect copy, exactly 1 for `dataset_mean(X)` in every row, no upper bound. Raises
    `EstimatorInputError` for shapes that differ and where all rows are equal, `NonFiniteError` for NaN.

    >>> X = np.array([[0.0, 1], [2, 3], [4, 8]])
    >>> fvu(X, X), fvu(X, np.tile(dataset_mean(X), (3, 1)))
    (0.0, 1.0)
    """
    states, copy = check_matrix(X), check_matrix(X_hat, "X_hat")
    if states.shape != copy.shape:
        raise EstimatorInputError(
            f"X has shape {states.shape}, X_hat {copy.shape}: both must agree"
        )
    error, spread = row_errors(states, copy, dataset_mean(states))
    if not spread.sum() > 0:
        raise EstimatorInputError("all rows of X are equal: there is no variance to explain")
    return float(error.sum() / spread.sum())


def explained_variance(X: Any, X_hat: Any) -> float:
    """1 − `fvu`: exactly 0 for the mean of X in every row, 1 for a perfect copy, negative for worse than the mean."""
    return 1.0 - fvu(X, X_hat)


def l0(codes: Any) -> float:
    """Mean number of codes per row that are not zero, of codes (n, m), sparse or dense.

    >>> l0(np.array([[0, 1.0, 2], [0, 0, 3]]))
    1.5
    """
    return float(row_l0(codes).mean())


def row_l0(codes: Any) -> NDArray[np.int64]:
    """Codes that are not zero in each row: (n,)."""
    return np.diff(_table(codes).indptr).astype(np.int64)


def feature_density(codes: Any) -> NDArray[np.float64]:
    """Share of the rows in which each feature is active: (m,), in [0, 1]."""
    table = _table(codes)
    return np.bincount(table.indices, minlength=table.shape[1]) / table.shape[0]


def dead_share(density: FloatArray) -> float:
    """Share of the features that are never active, from `feature_density`."""
    return float(np.mean(np.asarray(density) == 0))


def density_histogram(density: FloatArray, bins: int = 40) -> pd.DataFrame:
    """Histogram of log10 densities from 1e-8 to 1 without dead features: columns `low`, `high` (log10), `features`."""
    values = np.asarray(density, np.float64)
    counts, edges = np.histogram(np.log10(values[values > 0]), bins=bins, range=(-8, 0))
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "features": counts})


def norm_ratio(X: Any) -> float:
    """‖μ‖ / ‖σ‖ of the rows of X (n, d) or `Rows`: how far from zero the cloud of states lies, in its own size.

    A predictor of dead features for encoders that do not centre. Raises `EstimatorInputError` where all rows are equal.

    >>> norm_ratio(np.array([[3.0], [5.0]]))
    4.0
    """
    rows = X if isinstance(X, Rows) else ArrayRows(X)
    mean = dataset_mean(rows)
    total = 0.0
    for block in blocks(rows):
        total += float(np.square(block.double().cpu().numpy() - mean).sum())
    if not total > 0:
        raise EstimatorInputError("all rows of X are equal: their spread is zero")
    return float(np.linalg.norm(mean) / np.sqrt(total / rows.n))


def _table(codes: Any) -> Any:
    table: Any = sparse.csr_array(codes)
    if table.ndim != 2 or 0 in table.shape:
        raise EstimatorInputError(f"codes have shape {table.shape}: (n, m) is needed")
    if table.nnz and not np.all(table.data):
        table = table.copy()
        table.eliminate_zeros()
    return table


@dataclass(frozen=True)
class Measured:
    """What one pass over the data leaves: three numbers per row and one per feature."""

    error: FloatArray  # (n,)
    spread: FloatArray  # (n,)
    active: NDArray[np.int64]  # (n,)
    density: FloatArray  # (m,)

    @property
    def explained_variance(self) -> float:
        return 1.0 - float(self.error.sum() / self.spread.sum())


def measure(coder: Coder, X: Any) -> Measured:
    """Pass X, an array (n, d) or `Rows`, through `coder` block by block."""
    rows = X if isinstance(X, Rows) else ArrayRows(X)
    mean = dataset_mean(rows)
    errors, spreads, active, counts = [], [], [], None
    for block in blocks(rows):
        states = block.cpu().numpy()
        codes = _table(coder.transform(states))
        error, spread = row_errors(states, coder.inverse_transform(codes), mean)
        errors.append(error)
        spreads.append(spread)
        active.append(row_l0(codes))
        here = np.bincount(codes.indices, minlength=codes.shape[1])
        counts = here if counts is None else counts + here
    assert counts is not None
    spread = np.concatenate(spreads)
    if not spread.sum() > 0:
        raise EstimatorInputError("all rows of X are equal: there is no variance to explain")
    return Measured(np.concatenate(errors), spread, np.concatenate(active), counts / rows.n)


def evaluate(
    coders: Mapping[str, Coder],
    X: Any,
    *,
    groups: Sequence[Any] | NDArray[Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    **where: Any,
) -> pd.DataFrame:
    """Tidy rows of explained variance, FVU, L0, dead share and norm ratio of each coder on X, with 95 % intervals.

    The intervals are percentiles over resampled rows, or over resampled `groups` (n,), such as texts, where rows of one
    group belong together; all coders share the resamples. Dead share and norm ratio have none. `coders` maps the
    variant's name to an autoencoder or baseline; `where` fills further columns (site=, layer=, dataset=, …).

    >>> from probes.sae.baselines import PCACoder
    >>> X = np.random.default_rng(0).normal(size=(50, 4))
    >>> table = evaluate({"pca": PCACoder(2).fit(X)}, X, resamples=20)
    >>> sorted(table.measure)
    ['dead_share', 'explained_variance', 'fvu', 'l0', 'norm_ratio']
    """
    rows = X if isinstance(X, Rows) else ArrayRows(X)
    weights = _resampled(rows.n, groups, resamples, seed)
    shared = {"seed": seed, **where}
    ratio = norm_ratio(rows)
    found = [{"measure": "norm_ratio", "value": ratio, "n": rows.n, **shared}]
    for name, coder in coders.items():
        one = measure(coder, rows)
        unit = {"n": rows.n, "variant": name, **shared}
        left = _ratio(one.error, one.spread, weights)
        found.append({"measure": "fvu", **left.row(), **unit})
        gained = Estimate(1 - left.value, _less(left.high), _less(left.low), rows.n)
        found.append({"measure": "explained_variance", **gained.row(), **unit})
        active = _ratio(one.active.astype(np.float64), np.ones(rows.n), weights)
        found.append({"measure": "l0", **active.row(), **unit})
        found.append({"measure": "dead_share", "value": dead_share(one.density), **unit})
    return tidy(found)


def _less(bound: float | None) -> float | None:
    return None if bound is None else 1 - bound


@dataclass(frozen=True)
class _Resamples:
    unit: NDArray[np.int64]  # (n,) which unit a row belongs to
    weights: FloatArray  # (resamples, units)


def _resampled(n: int, groups: Any, resamples: int, seed: int) -> _Resamples:
    rng = np.random.default_rng((seed, 2))
    if groups is None:
        unit, units = np.arange(n), n
    else:
        given = np.asarray(groups)
        if given.shape != (n,):
            raise EstimatorInputError(f"groups have shape {given.shape}, ({n},) is needed")
        unit = np.unique(given, return_inverse=True)[1]
        units = int(unit.max()) + 1
    if units > _UNITS:
        unit = (rng.permutation(units) % _UNITS)[unit]
        units = _UNITS
    draws = rng.multinomial(units, np.full(units, 1 / units), size=resamples)
    return _Resamples(unit, draws.astype(np.float64))


def _ratio(top: FloatArray, bottom: FloatArray, resamples: _Resamples) -> Estimate:
    value = float(top.sum() / bottom.sum())
    units = resamples.weights.shape[1]
    if units < 2 or not len(resamples.weights):
        return Estimate(value, None, None, len(top))
    tops = resamples.weights @ np.bincount(resamples.unit, top, units)
    bottoms = resamples.weights @ np.bincount(resamples.unit, bottom, units)
    low, high = percentile_interval(tops[bottoms > 0] / bottoms[bottoms > 0])
    return Estimate(value, float(low), float(high), len(top))
