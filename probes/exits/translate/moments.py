"""First and second moments of states and embeddings, merged batch by batch: all that a linear map needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.linalg import Standardiser

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Moments:
    """Running count, means and centred second moments of X and Y (Chan's update: no cancellation)."""

    n: int
    mean_x: Array  # (d,)
    mean_y: Array  # (e,)
    xx: Array  # (d, d)
    xy: Array  # (d, e)
    yy: Array  # (e,) diagonal

    @classmethod
    def empty(cls, d: int, e: int) -> Moments:
        return cls(0, np.zeros(d), np.zeros(e), np.zeros((d, d)), np.zeros((d, e)), np.zeros(e))

    @classmethod
    def of(cls, X: Array, Y: Array) -> Moments:
        mean_x, mean_y = X.mean(axis=0), Y.mean(axis=0)
        A, B = X - mean_x, Y - mean_y
        return cls(len(X), mean_x, mean_y, A.T @ A, A.T @ B, (B * B).sum(axis=0))

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of rows together."""
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        n = self.n + other.n
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        share = self.n * other.n / n
        return Moments(
            n,
            self.mean_x + dx * other.n / n,
            self.mean_y + dy * other.n / n,
            self.xx + other.xx + share * np.outer(dx, dx),
            self.xy + other.xy + share * np.outer(dx, dy),
            self.yy + other.yy + share * dy * dy,
        )

    def standardiser(self) -> Standardiser:
        """Frozen scaling with the same rule for constant coordinates as `Standardiser.fit`."""
        deviation = np.sqrt(np.clip(np.diag(self.xx), 0, None) / self.n)
        return Standardiser.from_moments(self.mean_x, deviation)
