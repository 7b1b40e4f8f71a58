"""Magnitude: planted linear and logarithmic codes are told apart; ranks are exact in every draw."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probes.errors import DataError, InputError, NonFiniteError
from probes.probing import magnitude_correlation
from probes.probing.magnitude import _bootstrap, _Items, _Ranked


def numbers(n: int = 120, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.geomspace(1, 1000, n)).round(2)


def coded(position: np.ndarray, noise: float = 0.1, d: int = 8, seed: int = 0) -> np.ndarray:
    """Points along a random line, at `position` scaled to unit spread, with noise."""
    rng = np.random.default_rng(seed)
    line = np.linalg.qr(rng.normal(size=(d, d)))[0][0]
    return np.outer((position - position.mean()) / position.std(), line) + noise * rng.normal(
        size=(len(position), d)
    )


def curve(table, variant):
    return table[table.variant == variant].set_index("layer").value.astype(float)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_linear_and_logarithmic_codes_are_told_apart(distance: str) -> None:
    x = numbers()
    rng = np.random.default_rng(1)
    angles = {1: x / 1000, 2: np.log(x) / np.log(1000)}
    states = {0: rng.normal(size=(len(x), 8))}
    for layer, angle in angles.items():
        # an arc: ordered by angle and by chord alike; its opposite half keeps the mean at the centre
        arc = np.stack([np.cos(np.pi * angle), np.sin(np.pi * angle)], axis=1)
        states[layer] = arc + 0.02 * rng.normal(size=arc.shape)
    if distance == "euclidean":
        states |= {1: coded(x), 2: coded(np.log(x))}
    table = magnitude_correlation(states, x, distance=distance, draws=100)
    linear, log = curve(table, "linear"), curve(table, "log")
    assert linear[1] > 0.85
    assert linear[1] > log[1] + 0.1
    assert log[2] > 0.85
    assert log[2] > linear[2] + 0.1
    assert abs(linear[0]) < 0.15 > abs(log[0])
    assert (curve(table, "shuffled").abs() < 0.1).all()
    paired = {row["layer"]: row for row in table.attrs["log_minus_linear"]}
    assert paired[1]["high"] < 0 < paired[2]["low"]
    assert paired[0]["low"] < 0 < paired[0]["high"]


def test_why_distances_and_not_values() -> None:
    """The claim of the module: ranks of x and log x are equal, those of their differences are not."""
    x = numbers()
    assert stats.spearmanr(x, np.log(x)).statistic == pytest.approx(1)
    assert magnitude_correlation({0: coded(x)}, x, draws=10).attrs["between"] < 0.9


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_value_equals_scipy(distance: str) -> None:
    x = np.round(numbers(40))  # with ties
    X = coded(np.log(x), noise=0.5)
    i, j = np.triu_indices(40, 1)
    Z = X - X.mean(axis=0)
    if distance == "cosine":
        Z /= np.linalg.norm(Z, axis=1, keepdims=True)
    apart = np.linalg.norm(Z[i] - Z[j], axis=1)
    table = magnitude_correlation({0: X}, x, distance=distance, draws=10)
    for variant, felt in (("linear", x), ("log", np.log(x))):
        expected = stats.spearmanr(apart, np.abs(felt[i] - felt[j])).statistic
        assert curve(table, variant)[0] == pytest.approx(expected, abs=1e-9)


def test_every_draw_is_ranked_anew_as_if_written_out() -> None:
    rng = np.random.default_rng(0)
    unit = np.repeat(np.arange(10), 2)
    x, X = rng.integers(1, 30, 20).astype(float), rng.normal(size=(20, 3))
    items = _Items.of(unit)
    weights = items.weights(np.random.default_rng(1))
    target, apart = items.differences(x), items.distances(X, "euclidean")
    found = _bootstrap([apart], {"linear": target}, [weights])["linear"][0, 0]
    times = weights.astype(int)
    assert times.max() > 1
    written = [np.repeat(r.code, times) for r in (apart, target)]
    assert found == pytest.approx(stats.spearmanr(*written).statistic, abs=1e-12)


@pytest.mark.slow
def test_interval_covers_and_control_band_holds_chance() -> None:
    inside, shuffled = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x = rng.uniform(1, 100, 40)
        table = magnitude_correlation({0: rng.normal(size=(40, 6))}, x, draws=100, seed=seed)
        own = table.set_index("variant")
        inside.append(own.low["linear"] <= 0 <= own.high["linear"])
        shuffled.append(own.low["shuffled"] <= own.value["linear"] <= own.high["shuffled"])
    for found in (inside, shuffled):
        assert np.mean(found) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 60)


def test_reference_year() -> None:
    """Years felt from the present: the far past is dense."""
    years = np.random.default_rng(0).permutation(np.linspace(1825, 2020, 100).round())
    felt = -np.log1p(2025 - years)
    states = {0: coded(years, d=4), 1: coded(felt, d=4)}
    table = magnitude_correlation(states, years, reference=2025, distance="euclidean", draws=50)
    assert curve(table, "linear")[0] > curve(table, "log")[0] + 0.1
    assert curve(table, "log")[1] > curve(table, "linear")[1] + 0.1
    # without the reference the logarithm of a year is nearly the year, and the table says so
    assert magnitude_correlation(states, years, draws=5).attrs["between"] > 0.99


def test_pairs_within_a_group_are_left_out_and_groups_are_drawn_whole() -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(rng.uniform(1, 100, 40), 3)  # each number in three sentences
    own = np.repeat(rng.normal(size=(40, 6)), 3, axis=0) + 0.01 * rng.normal(size=(120, 6))
    groups = np.repeat(np.arange(40), 3)
    blind = magnitude_correlation({0: own}, x, draws=100)
    honest = magnitude_correlation({0: own}, x, groups=groups, draws=100)
    once = magnitude_correlation({0: own[::3]}, x[::3], draws=100)
    assert curve(honest, "linear")[0] == pytest.approx(curve(once, "linear")[0], abs=0.02)
    assert (
        curve(blind, "linear")[0] > curve(honest, "linear")[0] + 0.01
    )  # sameness is not magnitude
    width = {k: float(t.high[0] - t.low[0]) for k, t in (("blind", blind), ("honest", honest))}
    assert width["blind"] < width["honest"]
    band = {k: float(t.high[2] - t.low[2]) for k, t in (("blind", blind), ("honest", honest))}
    assert band["honest"] > 0.5 * band["blind"]


def test_numbers_without_a_logarithm_are_noted() -> None:
    x = np.linspace(-5, 5, 30)
    table = magnitude_correlation({0: coded(x)}, x, draws=5)
    assert table.variant.tolist() == ["linear", "shuffled"]
    assert "the least number is -5" in table.attrs["notes"][0]
    assert table.attrs["log_minus_linear"] == []


def test_sample_is_seeded_and_counted() -> None:
    x = numbers(100)
    states = {0: coded(x)}
    first = magnitude_correlation(states, x, max_items=50, draws=20, seed=1)
    assert set(first.n) == {50}
    assert first.equals(magnitude_correlation(states, x, max_items=50, draws=20, seed=1))
    assert not first.equals(magnitude_correlation(states, x, max_items=50, draws=20, seed=2))


def test_constant_states_correlate_with_nothing() -> None:
    table = magnitude_correlation(
        {0: np.full((30, 4), 0.1, dtype=np.float32)}, numbers(30), draws=20
    )
    assert table.value.tolist() == [0.0, 0.0, 0.0]


def test_ranks_with_weights_are_average_ranks() -> None:
    values, times = np.array([3.0, 1.0, 3.0, 2.0]), np.array([2.0, 0.0, 1.0, 3.0])
    written = np.repeat(values, times.astype(int))
    expected = stats.rankdata(written) - 0.5
    found = np.repeat(_Ranked.of(values).weighted(times), times.astype(int))
    np.testing.assert_allclose(found, expected)


def test_errors_say_what_came() -> None:
    x = numbers(30)
    states = {0: coded(x)}
    with pytest.raises(NonFiniteError, match="number of row 2 is nan"):
        magnitude_correlation(states, np.where(np.arange(30) == 2, np.nan, x))
    with pytest.raises(DataError, match="2 different numbers: at least three"):
        magnitude_correlation(states, np.arange(30) % 2)
    with pytest.raises(InputError, match=r"numbers have shape \(30, 1\)"):
        magnitude_correlation(states, x[:, None])
    with pytest.raises(InputError, match="unknown distance 'cosin': did you mean 'cosine'"):
        magnitude_correlation(states, x, distance="cosin")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="pairs across groups"):
        magnitude_correlation(states, x, groups=np.zeros(30))
    with pytest.raises(DataError, match="layer 0 of states has 30 rows, 29 are needed"):
        magnitude_correlation(states, x[1:])
