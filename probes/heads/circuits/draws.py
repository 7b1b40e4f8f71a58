"""Intervals over pairs: the same bootstrap draws for every number of a task, so that ratios are paired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
_LEAST_SPREAD = 1e-3  # of a resample, in parts of the whole sample's


@dataclass(frozen=True, eq=False)
class Draws:
    """`weights` (draws, n): how often each of n pairs is drawn, divided by n; a mean is `weights @ values`."""

    weights: Array
    seed: int

    @classmethod
    def make(cls, n: int, draws: int, seed: int) -> Draws:
        """`draws` resamples of n pairs.

        >>> bool(np.allclose(Draws.make(5, 20, 0).weights.sum(axis=1), 1))
        True
        """
        rng = np.random.default_rng(seed)
        return cls(rng.multinomial(n, np.full(n, 1 / n), size=draws) / n, seed)

    @property
    def n(self) -> int:
        return self.weights.shape[1]

    def mean(self, values: Array) -> list[dict[str, Any]]:
        """Columns value, low, high, n, seed of the mean over pairs; values (n, k), one dictionary per column."""
        drawn = self.weights @ values
        return self._rows(
            values.mean(axis=0), np.clip(drawn, values.min(axis=0), values.max(axis=0))
        )

    def ratio(self, top: Array, bottom: Array) -> list[dict[str, Any]]:
        """The same for mean(top) / mean(bottom), top (n, k), bottom (n,)."""
        return self._rows(
            top.mean(axis=0) / bottom.mean(),
            (self.weights @ top) / (self.weights @ bottom)[:, None],
        )

    def simultaneous(self, top: Array, bottom: Array) -> list[dict[str, Any]]:
        """The same for mean(top) / mean(bottom) with intervals that hold for all k columns at once, 95 %.

        value ± q · standard error, q the 95 % quantile over resamples of the largest |bootstrap t| of all columns. The
        ratio is taken as linear about its value. Paper: Romano & Wolf 2005 (Econometrica 73).

        >>> top = np.random.default_rng(0).normal(size=(20, 100))
        >>> rows = Draws.make(20, 500, 0).simultaneous(top, np.ones(20))
        >>> any(row["low"] > 0 for row in rows)
        False
        """
        value = top.mean(axis=0) / bottom.mean()
        x = (top - value * bottom[:, None]) / bottom.mean()  # (n, k), of mean 0
        error = x.std(axis=0, ddof=1) / np.sqrt(self.n)
        means = self.weights @ x
        spread = (self.weights @ x**2 - means**2) / (self.n - 1)
        least = _LEAST_SPREAD * x.var(axis=0) / (self.n - 1)  # a resample may hold one pair only
        own = np.sqrt(np.maximum(spread, least))
        t = np.divide(np.abs(means), own, out=np.zeros_like(means), where=own > 0)
        half = np.quantile(t.max(axis=1), 0.95) * error
        return self._rows(value, np.stack([value - half, value + half]), ends=True)

    def of(self, value: float, drawn: Array) -> dict[str, Any]:
        """The columns of a number whose values on the resamples, (draws,), are given."""
        return self._rows(np.asarray([value]), drawn[:, None])[0]

    def _rows(self, values: Array, drawn: Array, ends: bool = False) -> list[dict[str, Any]]:
        low, high = drawn if ends else percentile_interval(drawn)
        return [
            {"value": float(v), "low": float(a), "high": float(b), "n": self.n, "seed": self.seed}
            for v, a, b in zip(values, low, high, strict=True)
        ]
