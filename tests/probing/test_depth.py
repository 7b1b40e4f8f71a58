"""Depth numbers against hand-made curves and loops; comparisons of depths against their definition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from probes.errors import DataError, FathometerError, InputError
from probes.probing import compare_depths, depth_numbers, mdl_depth, rise_above
from probes.probing.compare import holm
from probes.probing.curves import Curve
from probes.probing.resampled import Resampled
from probes.tables import validate

FLAT = [0.5, 0.5, 0.5]


def exact(values: Sequence[float], n: int = 1000, **changes: Any) -> Curve:
    """A curve with exactly these values: example i is right where i / n lies below the value."""
    scores = (np.arange(n) < np.round(np.asarray(values)[:, None] * n)).astype(float)
    return curve_of(scores, **changes)


def drawn(values: Sequence[float], n: int, seed: int, **changes: Any) -> Curve:
    """Scores drawn with these probabilities, layers half alike."""
    rng = np.random.default_rng(seed)
    own, shared = rng.random((len(values), n)), rng.random(n)
    u = np.where(rng.random((len(values), n)) < 0.5, own, shared)
    return curve_of((u < np.asarray(values)[:, None]).astype(float), **changes)


def curve_of(scores: np.ndarray, **changes: Any) -> Curve:
    given: dict[str, Any] = {
        "concept": "c",
        "variant": None,
        "measure": "accuracy",
        "layers": tuple(range(len(scores))),
        "rows": np.arange(scores.shape[1]),
        "groups": None,
        "chance": 0.5,
        **changes,
    }
    return Curve(scores=scores, **given)


def numbers(curve: Curve, n_layers: int, **options: Any) -> dict[str, float]:
    table = depth_numbers(curve, n_layers, draws=200, **options)
    return dict(zip(table.measure, table.value, strict=True))


# -- closed forms


def test_numbers_of_a_hand_made_curve() -> None:
    values = [0.5, 0.5, 0.54, 0.7, 0.9, 0.91, 0.9]
    found = numbers(exact(values), 6)
    height = (np.asarray(values) - 0.5) / 0.5
    area = ((height[1:] + height[:-1]) / 2).sum() / 6
    assert found == pytest.approx(
        {
            "peak_layer": 5,
            "robust_depth": 4,
            "jumping_point": 3 / 6,  # 0.70 / 0.54 = 1.30; 0.54 / 0.50 = 1.08 is no jump
            "converging_point": 6 / 6,  # 0.90 / 0.91
            "area_under_curve": area,
        }
    )


def test_layers_need_not_be_all_layers() -> None:
    found = numbers(exact([0.5, 0.52, 0.9], layers=(0, 4, 8)), 16)
    assert found["peak_layer"] == 8
    assert found["jumping_point"] == 8 / 16
    assert found["area_under_curve"] == pytest.approx((0.02 + 0.42) / 2)


@pytest.mark.parametrize("height", [0.6, 0.8, 1.0])
def test_area_of_a_constant_curve_is_its_height(height: float) -> None:
    table = depth_numbers(exact([height] * 5), 4, draws=200)
    row = table[table.measure == "area_under_curve"].iloc[0]
    assert row.value == pytest.approx(2 * height - 1)
    assert row.low <= row.value <= row.high


def test_a_curve_without_jump_or_calm_says_so() -> None:
    table = depth_numbers(exact([0.6, 0.64, 0.69, 0.74, 0.79]), 4, draws=200)
    assert {"jumping_point", "converging_point"}.isdisjoint(table.measure)
    assert table.attrs["notes"] == [
        "no layer is a jumping point",
        "no layer is a converging point",
    ]


def test_of_equal_layers_the_first_is_the_peak() -> None:
    assert numbers(exact([0.5, 0.8, 0.8, 0.8]), 3)["peak_layer"] == 1


# -- robust depth


def brute_force(values: np.ndarray, deviation: np.ndarray, reach: float) -> int:
    peak = 0
    for k in range(len(values)):
        if values[k] > values[peak]:
            peak = k
    depth = peak
    while depth > 0 and values[peak] - values[depth - 1] <= reach * deviation[peak, depth - 1]:
        depth -= 1
    return depth


def test_robust_depth_equals_brute_force() -> None:
    seen = set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        values = np.clip(0.5 + 0.4 * np.sort(rng.random(10)) - 0.1 * (rng.random(10) < 0.2), 0, 1)
        sample = Resampled.of(drawn(values, 300, seed), 200, 0.95, seed)
        found = sample.robust(sample.draws)
        for row, depth in zip(sample.draws, found, strict=True):
            assert depth == brute_force(row, sample.deviation, sample.reach)
        seen |= set(found.tolist())
    assert len(seen) > 5


def test_deviations_are_those_of_paired_differences() -> None:
    curve = drawn([0.6, 0.7, 0.9], 500, 0)
    sample = Resampled.of(curve, 1000, 0.95, 0)
    for j in range(3):
        for k in range(3):
            expected = np.std(curve.scores[j] - curve.scores[k]) / np.sqrt(500)
            assert sample.deviation[j, k] == pytest.approx(np.hypot(expected, 1 / 500), rel=0.12)


def test_groups_are_resampled_whole() -> None:
    """Ten copies of every example, kept together, are no more than one: same widths as without copies."""
    single = drawn([0.5, 0.6, 0.8], 100, 0)
    copied = np.repeat(single.scores, 10, axis=1)
    grouped = curve_of(copied, groups=np.repeat(np.arange(100), 10))
    alone = curve_of(copied)
    width = {
        name: Resampled.of(curve, 1000, 0.95, 0).own_deviation.mean()
        for name, curve in {"single": single, "grouped": grouped, "alone": alone}.items()
    }
    assert width["grouped"] == pytest.approx(width["single"], rel=0.05)
    assert width["single"] / width["alone"] == pytest.approx(np.sqrt(10), rel=0.1)


def test_a_gain_within_the_noise_does_not_deepen() -> None:
    """0.80 to 0.82 is nothing with 100 examples and something with 20,000."""
    values = [0.5, 0.8, 0.8, 0.82]
    assert numbers(drawn(values, 100, 0), 3)["robust_depth"] == 1
    assert numbers(drawn(values, 20_000, 0), 3)["robust_depth"] == 3


def test_a_curve_that_falls_again_keeps_its_depth() -> None:
    table = depth_numbers(exact([0.5, 0.5, 0.9, 0.9, 0.7, 0.7]), 5, draws=200)
    assert table.set_index("measure").value["robust_depth"] == 2
    assert "falls below the interval of its peak again at layer 4" in table.attrs["notes"][-1]


def test_a_curve_at_chance_has_no_depth() -> None:
    table = depth_numbers(drawn([0.5] * 8, 300, 0), 7, draws=200)
    assert table.measure.tolist() == ["area_under_curve"]
    assert table.attrs["notes"] == ["no layer is significantly above chance (0.5): no depth"]
    assert table.low[0] < 0 < table.high[0]


def test_a_peak_below_the_majority_rate_is_no_depth() -> None:
    """Better than a coin, but not than always guessing the larger class."""
    curve = drawn([0.5, 0.6, 0.7], 1000, 0)
    assert "robust_depth" in numbers(curve, 2)
    rare = curve_of(curve.scores, chance=0.8)
    assert set(numbers(rare, 2)) == {"area_under_curve"}


def test_curves_of_other_measures() -> None:
    rng = np.random.default_rng(0)
    scores = np.asarray([-0.2, 0.0, 0.6, 0.6])[:, None] + 0.5 * rng.normal(size=(4, 400))
    table = depth_numbers(curve_of(scores, measure="r2", chance=0.0), 3, draws=200)
    assert table.measure.tolist() == ["peak_layer", "robust_depth", "area_under_curve"]
    assert table.value[1] == 2
    assert "ratios of accuracies, not of r2" in table.attrs["notes"][0]


# -- tables, seeds


def test_rows_are_tidy_and_say_where_they_belong() -> None:
    curve = drawn([0.5, 0.8, 0.9], 200, 0, concept="tense", variant="noise=swap")
    table = depth_numbers(curve, 2, draws=200, seed=5, dataset="d", pooling="mean", split="test")
    validate(table.copy())
    assert table.layer.isna().all()
    for column, value in {
        "concept": "tense",
        "variant": "noise=swap",
        "dataset": "d",
        "pooling": "mean",
        "split": "test",
        "site": "exit",
        "n": 200,
        "seed": 5,
    }.items():
        assert set(table[column]) == {value}
    held = table.dropna(subset=["low"])
    assert ((held.low <= held.value) & (held.value <= held.high)).all()


def test_more_draws_move_no_depth_and_same_seed_same_table() -> None:
    for seed in range(5):
        curve = drawn(np.linspace(0.5, 0.9, 12), 300, seed)
        few, many = (Resampled.of(curve, draws, 0.95, seed) for draws in (1000, 2500))
        assert few.reach == many.reach
        assert few.draws.tolist() == many.draws[:1000].tolist()
        assert len(many.draws) == 2500
    first, again = (depth_numbers(curve, 11, seed=1) for _ in range(2))
    assert first.equals(again)


# -- code lengths


def test_mdl_depth_is_the_shortest_code() -> None:
    rng = np.random.default_rng(0)
    bits = np.asarray([1.0, 0.7, 0.3, 0.5])[:, None] + 0.1 * rng.random((4, 200))
    table = mdl_depth(bits, [0, 2, 4, 6], guess_bits=1.0, concept="c", draws=200)
    validate(table.copy())
    assert table.measure.tolist() == ["mdl_depth"]
    assert (table.value[0], table.low[0], table.high[0]) == (4, 4, 4)
    assert table.n[0] == 200
    shuffled = mdl_depth(bits[[2, 0, 3, 1]], [4, 0, 6, 2], guess_bits=1.0, draws=200)
    assert shuffled.value[0] == 4


def test_no_mdl_depth_where_no_code_is_shorter_than_a_guess() -> None:
    rng = np.random.default_rng(0)
    bits = 1.0 + 0.3 * rng.normal(size=(5, 200))
    table = mdl_depth(bits, range(5), guess_bits=1.0, draws=200)
    assert len(table) == 0
    assert "significantly shorter than a guess (1 bits per example)" in table.attrs["notes"][0]


# -- gain over a level


def test_rise_above_is_paired_and_looks_at_all_layers() -> None:
    rng = np.random.default_rng(0)
    level = drawn([0.7], 400, 0)
    better = level.scores[0].copy()
    better[np.flatnonzero(better == 0)[:30]] = 1  # right wherever the level is, and 30 times more
    curve = curve_of(np.stack([rng.permutation(level.scores[0]), better]))
    found = rise_above(curve, level, draws=500)
    assert found.layer == 1
    assert found.gain == pytest.approx(30 / 400)
    assert found.significant
    unpaired = curve_of(np.stack([rng.permutation(row) for row in curve.scores]))
    assert not rise_above(unpaired, level, draws=500).significant
    assert rise_above(curve, 0.5, draws=500).significant
    assert not rise_above(curve, 0.95, draws=500).significant


def test_a_level_of_other_rows_is_refused() -> None:
    with pytest.raises(InputError, match="one layer on the same rows"):
        rise_above(exact(FLAT), exact([0.5], n=900))


# -- comparison


def brute_holm(p: np.ndarray) -> list[float]:
    """The definition: reject in ascending order while p ≤ α / (m − rank); the least α at which i is rejected."""
    m, order = len(p), sorted(range(len(p)), key=lambda i: p[i])
    found = [0.0] * m
    for i in range(m):
        needed = 0.0
        for rank, j in enumerate(order):
            needed = max(needed, float(p[j]) * (m - rank))
            if j == i:
                break
        found[i] = min(1.0, needed)
    return found


def test_holm_equals_its_definition() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        p = np.round(rng.random(rng.integers(1, 12)) ** 3, 2)
        assert holm(p).tolist() == pytest.approx(brute_holm(p))
    assert holm(np.empty(0)).tolist() == []


def test_concepts_are_compared_pair_by_pair() -> None:
    curves = {
        "early": drawn([0.5] + [0.9] * 8, 400, 0),
        "middle": drawn([0.5] * 4 + [0.9] * 5, 400, 1),
        "late": drawn([0.5] * 7 + [0.9] * 2, 400, 2),
        "never": drawn([0.5] * 9, 400, 3),
    }
    table = compare_depths(curves)
    assert list(zip(table.a, table.b, strict=True)) == [
        ("early", "middle"),
        ("early", "late"),
        ("middle", "late"),
    ]
    assert table.depth_a.tolist() == [1, 1, 4]
    assert table.depth_b.tolist() == [4, 7, 7]
    assert table.difference.tolist() == [-3, -6, -3]
    assert table.deeper.tolist() == ["middle", "late", "late"]
    assert (table.p <= table.p_holm).all()
    assert ((table.low <= table.difference) & (table.difference <= table.high)).all()
    assert table.attrs["notes"] == [
        "'never' is nowhere significantly above chance and has no depth to compare"
    ]
    relative = compare_depths(curves, n_layers=8)
    assert (relative.difference * 8).tolist() == pytest.approx(table.difference.tolist())
    assert relative.p.tolist() == table.p.tolist()


def test_order_of_a_pair_does_not_matter() -> None:
    one, two = drawn(np.linspace(0.5, 0.9, 10), 300, 0), drawn([0.5] * 5 + [0.9] * 5, 300, 1)
    there = compare_depths({"x": one, "y": two}).iloc[0]
    back = compare_depths({"y": two, "x": one}).iloc[0]
    assert there.difference == -back.difference
    assert (there.low, there.high) == (-back.high, -back.low)
    assert there.p == back.p


def test_a_concept_is_as_deep_as_itself() -> None:
    """Paired: every draw of a curve and its copy agree."""
    curve = drawn(np.linspace(0.5, 0.9, 10), 300, 0)
    row = compare_depths({"x": curve, "y": curve_of(curve.scores)}).iloc[0]
    assert (row.difference, row.low, row.high, row.p) == (0, 0, 0, 1)
    assert row.deeper is None


def test_pairing_needs_the_same_rows_and_groups() -> None:
    scores = drawn(np.linspace(0.5, 0.9, 10), 300, 0).scores
    same, rows, groups = (
        Resampled.of(curve_of(scores, **change), 200, 0.95, 0).draws
        for change in ({}, {"rows": np.arange(1, 301)}, {"groups": np.arange(300)[::-1]})
    )
    assert same.tolist() == Resampled.of(curve_of(scores), 200, 0.95, 0).draws.tolist()
    assert same.tolist() != rows.tolist()
    assert same.tolist() != groups.tolist()


def test_more_examples_do_not_make_a_concept_deeper() -> None:
    """The same slow rise, known ten times better for one of them: the plain depths differ, the comparison does not."""
    rise = 0.5 + 0.4 / (1 + np.exp(4 - np.arange(12.0)))
    large, small = drawn(rise, 20_000, 0), drawn(rise, 200, 1)
    assert numbers(large, 11)["robust_depth"] >= numbers(small, 11)["robust_depth"] + 1
    row = compare_depths({"large": large, "small": small}).iloc[0]
    assert abs(row.difference) <= 1
    assert row.deeper is None


def test_a_stronger_concept_is_not_deeper() -> None:
    """Two curves of one shape, one half as high."""
    shape = 1 / (1 + np.exp(4 - np.arange(12.0)))
    strong, weak = drawn(0.5 + 0.45 * shape, 2000, 0), drawn(0.5 + 0.2 * shape, 2000, 1)
    assert numbers(strong, 11)["robust_depth"] > numbers(weak, 11)["robust_depth"]
    row = compare_depths({"strong": strong, "weak": weak}).iloc[0]
    assert abs(row.difference) <= 1
    assert row.deeper is None


def test_sequences_go_by_concept() -> None:
    curves = [drawn([0.5, 0.9, 0.9], 200, s, concept=name) for s, name in enumerate("ab")]
    assert compare_depths(curves).loc[0, ["a", "b"]].tolist() == ["a", "b"]
    with pytest.raises(InputError, match="came twice"):
        compare_depths([curves[0], curves[0]])
    assert len(compare_depths(curves[:1])) == 0


@pytest.mark.parametrize(
    ("curve", "options", "error", "message"),
    [
        (exact(FLAT), {"n_layers": 1}, InputError, "do not ascend from 0 to 1"),
        (exact(FLAT, layers=(0, 2, 1)), {"n_layers": 2}, InputError, "do not ascend"),
        (exact(FLAT), {"n_layers": 2, "draws": 10}, InputError, "at least 100"),
        (exact(FLAT, n=2), {"n_layers": 2}, DataError, "3 independent examples"),
        (exact(FLAT), {"n_layers": 2, "confidence": 95}, InputError, "strictly between 0 and 1"),
    ],
)
def test_bad_input_is_one_clear_line(
    curve: Curve, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        depth_numbers(curve, **options)
    assert isinstance(caught.value, FathometerError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bits", [np.ones(5), np.full((2, 5), np.nan)])
def test_bad_bits_are_refused(bits: np.ndarray) -> None:
    with pytest.raises(DataError, match="finite numbers"):
        mdl_depth(bits, [0, 1])
