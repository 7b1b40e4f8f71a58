"""Layers at relative depths: where a deep model is read when not every layer is worth its time."""

from __future__ import annotations

import numpy as np

ELEVEN = tuple(k / 10 for k in range(11))


def layers_at(n_layers: int, depths: tuple[float, ...]) -> list[int]:
    """Layers at relative depths, halves rounded up.

    >>> layers_at(6, (0.0, 0.25, 0.5, 1.0))
    [0, 2, 3, 6]
    """
    return sorted({int(np.floor(depth * n_layers + 0.5)) for depth in depths})
