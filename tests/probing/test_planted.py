"""A concept planted from layer k on: every probe's robust depth is k, neither more nor less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.probing import (
    LinearProbe,
    MassMeanProbe,
    MDLProbe,
    RidgeProbe,
    cross_validate,
    depth_numbers,
    mdl_depth,
    mdl_sweep,
    minimal_pair_sweep,
    regression_sweep,
)
from probes.probing.curves import Curve

L = 4
N, D = 240, 12
STARTS = (0, 2, L)
STRENGTH = 2.0  # in standard deviations of the noise

PROBES: list[Any] = [
    LinearProbe(),
    RidgeProbe(),
    MassMeanProbe(),
    MassMeanProbe(covariance=True),
    MDLProbe(),
]


def planted(k: int, signal: np.ndarray, seed: int = 0) -> dict[int, np.ndarray]:
    """Noise in every layer; from layer k on `signal` (n, t) along t directions of each layer's own."""
    rng = np.random.default_rng([seed, k])
    states: dict[int, np.ndarray] = {}
    for layer in range(L + 1):
        scale = 10.0 ** rng.integers(-2, 3)  # norms differ by layer
        X = scale * rng.normal(size=(len(signal), D))
        if layer >= k:
            directions = np.linalg.qr(rng.normal(size=(D, D)))[0][: signal.shape[1]]
            X += scale * signal @ directions
        states[layer] = X.astype(np.float32)
    return states


def depth_of(curve: Curve) -> float | None:
    table = depth_numbers(curve, L, draws=500)
    found = dict(zip(table.measure, table.value, strict=True))
    return None if "robust_depth" not in found else float(found["robust_depth"])


@pytest.mark.parametrize("probe", PROBES, ids=str)
@pytest.mark.parametrize(("classes", "distance"), [(2, 2.0), (3, 2.5)])
def test_probes_find_the_layer(probe: Any, classes: int, distance: float) -> None:
    """Classes `distance` standard deviations apart; the best there is gets 0.84 and 0.82."""
    y = np.random.default_rng(0).permutation(np.arange(N) % classes)
    for k in STARTS:
        states = planted(k, distance / np.sqrt(2) * np.eye(classes)[y])
        swept = cross_validate(probe, states, y, controls=("shuffled",), draws=300)
        assert depth_of(swept.curve()) == k
        assert depth_of(swept.curve(None, "shuffled")) is None
        assert 0.75 < swept.curve().values[k:].mean() < 0.86


def test_code_length_finds_the_layer() -> None:
    y = np.random.default_rng(0).permutation(np.arange(N) % 2)
    for k in STARTS:
        states = planted(k, STRENGTH * y[:, None])
        table, bits = mdl_sweep(states, y, orders=2)
        rows = table[(table.measure == "compression") & table.variant.isna()].set_index("layer")
        assert rows.value[rows.value > 1.15].index.min() == k
        curve = Curve(
            None, None, "mdl", tuple(range(L + 1)), -np.asarray(bits), np.arange(N), None, -1.0
        )
        assert depth_of(curve) == k
        shortest = mdl_depth(bits, range(L + 1), guess_bits=1.0, draws=300)
        assert shortest.value[0] >= k
        assert shortest.low[0] >= k


def test_no_code_length_without_a_concept() -> None:
    y = np.random.default_rng(0).permutation(np.arange(N) % 2)
    _, bits = mdl_sweep(planted(L + 1, y[:, None]), y, orders=2)
    assert len(mdl_depth(bits, range(L + 1), guess_bits=1.0, draws=300)) == 0


def test_regression_finds_the_layer() -> None:
    target = np.random.default_rng(0).normal(size=N)
    for k in STARTS:
        states = planted(k, STRENGTH * target[:, None])
        _, curves = regression_sweep(states, target, draws=300)
        (curve,) = (c for c in curves if c.variant is None)
        assert depth_of(curve) == k
        expected = STRENGTH**2 / (1 + STRENGTH**2)
        assert curve.values[k:].mean() == pytest.approx(expected, abs=0.06)


def test_minimal_pairs_find_the_layer() -> None:
    """Good and bad sentences share everything but the planted difference."""
    ones = np.ones((N, 1))
    for k in STARTS:
        shared = planted(L + 1, ones, seed=1)
        good, bad = planted(k, STRENGTH * ones, seed=2), planted(L + 1, ones, seed=3)
        for layer, common in shared.items():
            for side in (good, bad):
                side[layer] = (
                    side[layer] / np.median(np.abs(side[layer])) + 3 * common / common.std()
                )
        _, curves = minimal_pair_sweep(good, bad, draws=300)
        (curve,) = (c for c in curves if c.variant is None)
        assert depth_of(curve) == k


def test_the_peak_of_equal_layers_wanders_but_the_depth_does_not() -> None:
    """Why there is a robust depth: over ten data sets the best layer is anywhere from k on."""
    y = np.random.default_rng(0).permutation(np.arange(N) % 2)
    peaks, depths = set(), set()
    for seed in range(10):
        states = planted(2, STRENGTH * y[:, None], seed)
        curve = cross_validate(RidgeProbe(), states, y, draws=200).curve()
        peaks.add(int(curve.values.argmax()))
        depths.add(depth_of(curve))
    assert len(peaks) > 1
    assert min(peaks) >= 2
    assert depths == {2.0}
