"""Do intervals and verdicts keep their promise? 200 data sets each, and three standard errors of binomial noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.probing import (
    LinearProbe,
    MassMeanProbe,
    RidgeProbe,
    compare_depths,
    cross_validate,
    depth_numbers,
)
from probes.probing.curves import Curve

SEEDS = 200
NOISE = 3 * np.sqrt(0.05 * 0.95 / SEEDS)  # 0.046

pytestmark = pytest.mark.slow


def test_shuffled_labels_are_covered_at_the_nominal_rate() -> None:
    """The control as it is used: states with a strong concept, labels permuted, choice of λ included."""
    probes: list[Any] = [RidgeProbe(), LinearProbe(Cs=(1e-3, 1e-1, 10)), MassMeanProbe()]
    hits: dict[tuple[str, str], list[bool]] = {}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        y = rng.permutation(np.arange(100) % 2)
        X = rng.normal(size=(100, 15))
        X[:, 0] += 3 * y
        for probe in probes:
            table = cross_validate(
                probe, {0: X}, y, controls=("shuffled",), seed=seed, draws=300
            ).table
            for row in table[table.variant == "shuffled"].itertuples():
                key = (type(probe).__name__, str(row.measure))
                hits.setdefault(key, []).append(row.low <= 0.5 <= row.high)
    shares = {key: float(np.mean(hit)) for key, hit in hits.items()}
    assert len(shares) == 9
    assert min(shares.values()) >= 0.95 - NOISE, shares
    assert max(shares.values()) < 1, shares  # an interval that always covers says nothing


def test_selectivity_without_a_concept_covers_nought() -> None:
    """Random labels and random labels per type, both unreadable: their difference is 0."""
    hits = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        y = rng.permutation(np.arange(100) % 2)
        table = cross_validate(
            RidgeProbe(),
            {0: rng.normal(size=(100, 15))},
            y,
            controls=("control-task",),
            types=np.arange(100),
            seed=seed,
            draws=500,
        ).table
        row = table[table.measure == "selectivity"].iloc[0]
        hits.append(row.low <= 0 <= row.high)
    assert 0.95 - NOISE <= np.mean(hits) < 1


def scores(values: np.ndarray, n: int, rng: np.random.Generator) -> Curve:
    """A curve whose layers are right with these probabilities, half alike."""
    own, shared = rng.random((len(values), n)), rng.random(n)
    u = np.where(rng.random((len(values), n)) < 0.5, own, shared)
    right = (u < values[:, None]).astype(float)
    return Curve("c", None, "accuracy", tuple(range(len(values))), right, np.arange(n), None, 0.5)


def logistic(middle: float, top: float) -> np.ndarray:
    return 0.5 + (top - 0.5) / (1 + np.exp(middle - np.arange(13.0)))


def test_noise_seldom_has_a_depth_and_a_step_nearly_always_its_own() -> None:
    step = np.where(np.arange(13) < 5, 0.5, 0.8)
    false, right, covered = [], [], []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        noise = depth_numbers(scores(np.full(13, 0.5), 200, rng), 12, draws=300, seed=seed)
        false.append("robust_depth" in set(noise.measure))
        found = depth_numbers(scores(step, 200, rng), 12, draws=300, seed=seed)
        row = found[found.measure == "robust_depth"].iloc[0]
        right.append(row.value == 5)
        covered.append(row.low <= 5 <= row.high)
    assert np.mean(false) <= 0.05 + NOISE
    assert np.mean(right) >= 0.95 - NOISE
    assert np.mean(covered) >= 0.95 - NOISE


def test_noise_read_by_a_probe_seldom_has_a_depth() -> None:
    """With the dependence that cross-validation makes, not only with independent scores."""
    found = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        y = rng.permutation(np.arange(80) % 2)
        states = {layer: rng.normal(size=(80, 10)) for layer in range(5)}
        curve = cross_validate(RidgeProbe(alphas=(10.0,)), states, y, seed=seed, draws=100).curve()
        table = depth_numbers(curve, 4, draws=300, seed=seed)
        found.append("robust_depth" in set(table.measure))
    assert np.mean(found) <= 0.05 + NOISE


@pytest.mark.parametrize(
    ("first", "second", "sizes"),
    [
        (logistic(5, 0.9), logistic(5, 0.9), (300, 300)),
        (logistic(5, 0.9), logistic(5, 0.9), (2000, 200)),
        (logistic(5, 0.9), logistic(5, 0.75), (600, 600)),
        (np.linspace(0.5, 0.9, 13), np.linspace(0.5, 0.74, 13), (600, 600)),
    ],
    ids=["same", "more examples", "weaker", "slow and weaker"],
)
def test_equally_deep_concepts_are_seldom_told_apart(
    first: np.ndarray, second: np.ndarray, sizes: tuple[int, int]
) -> None:
    rejected = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        pair = {"a": scores(first, sizes[0], rng), "b": scores(second, sizes[1], rng)}
        rejected.append(compare_depths(pair, draws=500, seed=seed).p[0] < 0.05)
    assert np.mean(rejected) <= 0.05 + NOISE


def test_differently_deep_concepts_are_told_apart() -> None:
    deeper = []
    for seed in range(SEEDS // 4):
        rng = np.random.default_rng(seed)
        pair = {
            "early": scores(logistic(4, 0.9), 500, rng),
            "late": scores(logistic(7, 0.9), 500, rng),
        }
        deeper.append(compare_depths(pair, draws=1000, seed=seed).deeper[0])
    assert deeper.count("late") >= 0.9 * len(deeper)
    assert "early" not in deeper
