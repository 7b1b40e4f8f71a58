"""Superposition with known features, and one thread, so that results repeat bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Planted:
    """X (n, d) = codes (n, m) @ directions (m, d), of which every row has `active`."""

    X: np.ndarray
    directions: np.ndarray
    codes: np.ndarray

    def recovered(self, decoder: np.ndarray) -> float:
        """Mean over the true features of the largest cosine with a row of `decoder`."""
        rows = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
        return float((self.directions @ rows.T).max(1).mean())


def superposition(
    n: int = 6000, m: int = 48, d: int = 24, active: int = 3, seed: int = 0
) -> Planted:
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(m, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    codes = np.zeros((n, m))
    chosen = rng.random((n, m)).argsort(1)[:, :active]
    np.put_along_axis(codes, chosen, rng.uniform(0.5, 1.5, (n, active)), 1)
    X = codes @ directions + 2 * directions[0]  # far from centred
    return Planted(X.astype(np.float32), directions, codes)


@pytest.fixture(scope="session")
def planted() -> Planted:
    return superposition()


@pytest.fixture(scope="session")
def plant() -> Any:
    """`superposition`, for tests that want other sizes."""
    return superposition
