"""The states of one layer, and what many metrics need of them, worked out once: unit rows and three spectra."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply
from probes.linalg import check_matrix, normalise_rows, rounding_left

FloatArray = NDArray[np.floating[Any]]
T = TypeVar("T")
BLOCK = 4096  # rows in float64 at a time


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a matrix of states, largest first, and each row's share in their squares."""

    sigma: FloatArray  # (r,), r = min(n, d)
    project: Callable[[], FloatArray]

    @cached_property
    def shares(self) -> FloatArray:
        """(n, r) float32: (v_jᵀx_i)², which sums over i to σ_j²; computed when first asked for."""
        return self.project()

    @property
    def eigenvalues(self) -> FloatArray:
        """Squares of the singular values, (r,)."""
        return np.square(self.sigma)

    def influence(self, slope: FloatArray) -> FloatArray:
        """Derivative in each row's weight, (n,), of a function with derivatives `slope` (r,) in the eigenvalues.

        With weights w on the rows dλ_j/dw_i = (v_jᵀx_i)²; a centred spectrum needs no more, for the
        movement of the mean enters only squared.
        """
        return self.shares @ slope


class States:
    """A checked (n, d) array whose unit rows and spectra are computed on first use and then kept.

    Metrics take an array or a `States`; a table over all metrics hands them the same `States`, so
    that each decomposition happens once. Everything is worked out on X / `scale`, so that no square
    overflows. Singular values come from a blocked QR of the rows, not from a Gram matrix: small
    ones stay exact, and no more than `BLOCK` rows are ever in float64.
    """

    def __init__(self, X: Any) -> None:
        self.array = check_matrix(X)
        self.n, self.d = self.array.shape
        self.scale = float(np.abs(self.array).max()) or 1.0
        self._known: dict[str, Any] = {}

    @classmethod
    def of(cls, X: Any) -> States:
        return X if isinstance(X, States) else cls(X)

    def centred(self, what: str) -> Spectrum:
        """Spectrum of X / scale less its mean; `DoesNotApply` in the name of `what` where all rows are equal."""
        return self._nonzero(self._centred, what, "all rows are equal")

    def uncentred(self, what: str) -> Spectrum:
        """Spectrum of X / scale; `DoesNotApply` where all rows are zero."""
        return self._nonzero(self._uncentred, what, "all rows are zero")

    def units(self, what: str, least: int = 2) -> FloatArray:
        """Rows at unit length, (n, d) float64; `DoesNotApply` for too few rows and for rows of zero length."""
        if self.n < least:
            raise DoesNotApply(f"{what} of one row: at least two are needed")
        zero = np.flatnonzero(~self._units.any(axis=1))
        if len(zero):
            raise DoesNotApply(
                f"{what}: row {zero[0]} is zero ({len(zero)} of {self.n} rows), it has no direction"
            )
        return self._units

    def unit_spectrum(self, what: str) -> Spectrum:
        """Spectrum of the unit rows, not centred; errors as `units`."""
        self.units(what)
        return self._unit_spectrum

    def once(self, name: str, work: Callable[[], T]) -> T:
        """What `work` gives, called only the first time that `name` is asked for."""
        if name not in self._known:
            self._known[name] = work()
        return self._known[name]

    def release(self) -> None:
        """Forget everything but the array. Spectra refer back to their states: without this they would stay in memory,
        layer after layer, until Python happens to look for cycles."""
        if "_unit_states" in self.__dict__:
            self._unit_states.release()
        kept = {name: self.__dict__[name] for name in ("array", "n", "d", "scale")}
        self.__dict__.clear()
        self.__dict__.update(kept, _known={})

    def _nonzero(self, spectrum: Spectrum, what: str, kind: str) -> Spectrum:
        if spectrum.sigma[0] <= rounding_left(self.array):
            raise DoesNotApply(f"{what} of {self.n} rows: {kind}, there is no direction to count")
        return spectrum

    @cached_property
    def _mean(self) -> FloatArray:
        return sum(block.sum(axis=0) for _, block in self._blocks()) / self.n  # type: ignore[no-any-return]

    @cached_property
    def _triangle(self) -> FloatArray:
        """R (r, d) with RᵀR = Σ (x_i − mean)(x_i − mean)ᵀ."""
        return _triangle(block - self._mean for _, block in self._blocks())

    @cached_property
    def _centred(self) -> Spectrum:
        return self._spectrum(self._triangle, self._mean)

    @cached_property
    def _uncentred(self) -> Spectrum:
        """By one more row on the centred triangle: XᵀX = RᵀR + n · mean meanᵀ."""
        return self._spectrum(np.vstack([self._triangle, np.sqrt(self.n) * self._mean]), 0.0)

    @cached_property
    def _units(self) -> FloatArray:
        return normalise_rows(self.array.astype(np.float64) / self.scale)

    @cached_property
    def _unit_states(self) -> States:
        units = States(self._units)
        units.scale = 1.0
        return units

    @property
    def _unit_spectrum(self) -> Spectrum:
        return self._unit_states._uncentred

    def _spectrum(self, triangle: FloatArray, mean: FloatArray | float) -> Spectrum:
        _, sigma, directions = np.linalg.svd(triangle, full_matrices=False)
        rank = min(self.n, self.d)

        def project() -> FloatArray:
            shares = np.empty((self.n, rank), dtype=np.float32)
            for first, block in self._blocks():
                shares[first : first + len(block)] = np.square((block - mean) @ directions[:rank].T)
            return shares

        return Spectrum(sigma[:rank], project)

    def _blocks(self) -> Iterator[tuple[int, FloatArray]]:
        """(first row, rows / scale in float64), block after block."""
        for first in range(0, self.n, BLOCK):
            yield first, self.array[first : first + BLOCK].astype(np.float64) / self.scale


def _triangle(blocks: Iterator[FloatArray]) -> FloatArray:
    """R with RᵀR = XᵀX for X the blocks one above the other."""
    found: FloatArray | None = None
    for block in blocks:
        rows = block if found is None else np.vstack([found, block])
        found = np.asarray(np.linalg.qr(rows, mode="r"))
    assert found is not None
    return found


def sample_rows(n: int, limit: int | None, seed: int) -> NDArray[np.int64]:
    """All row numbers below n, or `limit` of them drawn without repetition, in order.

    >>> sample_rows(5, 10, seed=0).tolist(), len(sample_rows(50, 10, seed=0))
    ([0, 1, 2, 3, 4], 10)
    """
    if limit is None or n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))
