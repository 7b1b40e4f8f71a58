"""What is left of collapse under a condition, against none: paired, and equal to resamples written out."""

from __future__ import annotations

import numpy as np
import pytest

from probes.collapse.cosines import fit_slope
from probes.collapse.left import Cuts, Meter
from probes.exits.resample import Resamples

N, D, DRAWS = 30, 6, 100
ENDS = ("difference", "difference_low", "difference_high")


def states(strength: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, D)) + strength * np.ones(D)


def by_hand(X: np.ndarray) -> np.ndarray:
    """Mean cosine of different rows: of all, then of every resample."""
    U = X / np.linalg.norm(X, axis=1, keepdims=True)
    found = []
    for weights in [np.ones(N, dtype=int), *Resamples.make(N, DRAWS, 3).counts.T]:
        rows = np.repeat(np.arange(N), weights)
        found.append((U[rows] @ U[rows].T)[rows[:, None] != rows[None, :]].mean())
    return np.asarray(found)


def interval(own: np.ndarray, plain: np.ndarray) -> list[float]:
    gap = own - plain
    return [gap[0], *np.quantile(gap[1:], [0.025, 0.975])]


def test_differences_are_those_of_resamples_written_out() -> None:
    meter = Meter(DRAWS, 3)
    X = states(1.0)
    lengths = (8, 32, 128)
    cuts = Cuts({t: {2: states(0.4 * step, seed=1)} for step, t in enumerate(lengths)})

    def centre(Y: np.ndarray) -> np.ndarray:
        return Y - X.mean(axis=0)

    plain, own = meter.read(X, cuts, 2), meter.read(centre(X), cuts, 2, centre)
    row = own.row(plain)
    cosines = by_hand(centre(X)), by_hand(X)
    assert row["anisotropy"] == pytest.approx(cosines[0][0])
    assert [row[f"anisotropy_{end}"] for end in ENDS] == pytest.approx(interval(*cosines))
    slopes = [
        fit_slope(lengths, np.stack([by_hand(change(cuts.states[t][2])) for t in lengths]))
        for change in (centre, lambda Y: Y)
    ]
    assert row["collapse_slope"] == pytest.approx(slopes[0][0])
    assert [row[f"collapse_slope_{end}"] for end in ENDS] == pytest.approx(interval(*slopes))
    assert row["anisotropy_difference_high"] < 0
    same = plain.row(plain)
    assert [same[f"collapse_slope_{end}"] for end in ENDS] == [0, 0, 0]


def test_what_is_undefined_is_null() -> None:
    meter = Meter(DRAWS, 0)
    X = states(0.5)
    plain = meter.read(X, None, 2)
    assert plain.row(plain)["collapse_slope"] is None
    gone = meter.read(X, None, 2).row(meter.read(0 * X, None, 2))
    assert gone["anisotropy"] is not None
    assert gone["anisotropy_difference"] is None
