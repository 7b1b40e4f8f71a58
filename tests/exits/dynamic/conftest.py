"""Tasks with planted easy and hard examples: the easy ones can be read early, the hard ones at the last layer only."""

from __future__ import annotations

import numpy as np
import pytest

from probes.exits.classification import ClassificationTask
from probes.exits.material import Material


def _planted(n=800, layers=5, d=12, hard=0.3, seed=0, n_classes=3):
    """(material, pooled, hard (n,)): class signal from layer 1 on for easy texts, at the last layer for hard ones."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    difficult = rng.uniform(size=n) < hard
    corner = 4 * np.eye(n_classes, d)[labels]
    pooled = {}
    for layer in range(layers):
        readable = np.full(n, layer == layers - 1) | (~difficult & (layer > 0))
        pooled[layer] = rng.normal(size=(n, d)) + readable[:, None] * corner
    task = ClassificationTask("planted", np.arange(n), labels, n_classes, np.arange(n))
    order = rng.permutation(n)
    pieces = np.split(order, [int(0.4 * n), int(0.6 * n), int(0.8 * n)])
    parts = dict(zip(("fit", "tune", "calibrate", "test"), pieces, strict=True))
    return Material(task, parts, tuple(map(str, range(n))), 0, ()), pooled, difficult


@pytest.fixture
def planted():
    return _planted
