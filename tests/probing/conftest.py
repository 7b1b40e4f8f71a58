"""Planted data for the probing tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def planted() -> Callable[..., tuple[dict[int, np.ndarray], np.ndarray]]:
    """Layers of noise; from layer `k` on one random direction carries the class with strength `shift`."""

    def make(
        k: int, layers: int = 6, n: int = 240, d: int = 20, classes: int = 2, shift: float = 2.5
    ) -> tuple[dict[int, np.ndarray], np.ndarray]:
        rng = np.random.default_rng(k)
        y = rng.permutation(np.arange(n) % classes)
        states: dict[int, np.ndarray] = {}
        for layer in range(layers):
            X = rng.normal(size=(n, d))
            if layer >= k:
                X += shift * np.eye(classes, d)[y] @ np.linalg.qr(rng.normal(size=(d, d)))[0]
            states[layer] = X.astype(np.float32)
        return states, y

    return make
