"""Agreement of directions: closed forms, the random band, the ceiling set by noise, honest intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from probes.errors import DataError, InputError
from probes.probing import MassMeanProbe, direction_agreement


def context(
    cosine: float, seed: int, n: int = 200, d: int = 20, shift: float = 3.0, scale: Any = 1.0
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Layer 0 noise; layer 1 with a direction whose cosine with the first axis is given."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    axis = np.zeros(d)
    axis[0], axis[1] = cosine, np.sqrt(1 - cosine**2)
    noise = rng.normal(size=(2, n, d)) * scale
    return {0: noise[0], 1: noise[1] + shift * np.outer(y, axis)}, y


def agreement(*contexts: Any, **options: Any) -> Any:
    names = "abcdef"[: len(contexts)]
    states = {name: c[0] for name, c in zip(names, contexts, strict=True)}
    labels = {name: c[1] for name, c in zip(names, contexts, strict=True)}
    return direction_agreement(states, labels, **options)


def row(table: Any, layer: int, variant: str | None = None) -> Any:
    own = table.variant.fillna("") == (variant or "")
    return table[(table.layer == layer) & own].iloc[0]


def test_is_the_cosine_of_the_mass_mean_directions() -> None:
    a, b = context(1.0, 0), context(0.5, 1)
    for covariance in (False, True):
        table = agreement(a, b, covariance=covariance, draws=5)
        for layer in (0, 1):
            theta = [
                MassMeanProbe(covariance=covariance).fit(c[0][layer], c[1]).coef_[0] for c in (a, b)
            ]
            expected = theta[0] @ theta[1] / np.prod([np.linalg.norm(t) for t in theta])
            found = row(table, layer, "covariance" if covariance else None)
            assert found.value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("covariance", [False, True])
def test_one_direction_is_found_and_two_are_not(covariance: bool) -> None:
    prefix = "covariance" if covariance else None
    random = "covariance random" if covariance else "random"
    same = agreement(context(1.0, 0), context(1.0, 1), covariance=covariance)
    other = agreement(context(1.0, 0), context(0.0, 1), covariance=covariance)
    assert row(same, 1, prefix).value > 0.9
    assert row(same, 1, prefix).low > row(same, 1, random).high
    assert abs(row(other, 1, prefix).value) < 0.3
    assert row(other, 1, prefix).low < 0 < row(other, 1, prefix).high
    assert row(other, 1, prefix).high < row(other, 1, random.replace("random", "split-half")).value
    for table in (same, other):  # the layer without the concept lies within its random band
        assert (
            row(table, 0, random).low <= row(table, 0, prefix).value <= row(table, 0, random).high
        )


def test_reversed_direction_is_minus_one() -> None:
    states, y = context(1.0, 1, shift=6.0)
    assert row(agreement(context(1.0, 0, shift=6.0), (states, 1 - y)), 1).value < -0.9


def test_anisotropic_states_agree_by_chance_and_the_band_says_so() -> None:
    """One huge dimension: any two directions lie along it, so |cosine| is near 1 without any concept."""
    scale = np.r_[100.0, np.ones(19)]
    table = agreement(
        context(1.0, 0, shift=0.0, scale=scale), context(1.0, 1, shift=0.0, scale=scale)
    )
    band = row(table, 1, "random")
    assert band.low < -0.9
    assert band.high > 0.9
    plain = row(agreement(context(1.0, 0, shift=0.0), context(1.0, 1, shift=0.0)), 1, "random")
    assert plain.high < 0.6


@pytest.mark.parametrize(("n", "shift"), [(100, 1.0), (200, 1.0), (200, 4.0)])
def test_ceiling_is_what_equal_directions_reach(n: int, shift: float) -> None:
    """The cosine of noisy estimates of one direction is attenuated; split halves foretell by how much."""
    tables = [
        agreement(
            context(1.0, 2 * s, n, shift=shift), context(1.0, 2 * s + 1, n, shift=shift), draws=20
        )
        for s in range(40)
    ]
    cosine = np.mean([row(t, 1).value for t in tables])
    ceiling = np.mean([row(t, 1, "split-half").value for t in tables])
    # n/2 rows a class, 20 dimensions: |θ|² = shift², noise 20 · 4/n
    assert cosine == pytest.approx(shift**2 / (shift**2 + 80 / n), abs=0.05)
    assert ceiling == pytest.approx(cosine, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("cosine", [0.0, 0.5, 1.0])
def test_interval_covers_the_expected_cosine(cosine: float) -> None:
    tables = [
        agreement(
            context(1.0, 2 * s, 120, 15, 1.0), context(cosine, 2 * s + 1, 120, 15, 1.0), draws=2
        )
        for s in range(200)
    ]
    rows = [row(t, 1) for t in tables]
    truth = np.mean([r.value for r in rows])
    covered = np.mean([r.low <= truth <= r.high for r in rows])
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200) <= covered


def test_grouped_rows_widen_the_interval() -> None:
    """Every row four times over: without groups the interval is too narrow by a factor of two."""
    contexts = [context(1.0, s, 80, shift=1.5) for s in (0, 1)]
    repeated = [
        ({k: np.repeat(v, 4, axis=0) for k, v in S.items()}, np.repeat(y, 4)) for S, y in contexts
    ]
    groups = {name: np.repeat(np.arange(80), 4) for name in "ab"}
    once, honest = row(agreement(*contexts), 1), row(agreement(*repeated, groups=groups), 1)
    blind = row(agreement(*repeated), 1)
    assert honest.value == pytest.approx(once.value, abs=1e-6)
    assert honest.high - honest.low == pytest.approx(once.high - once.low, rel=1e-3)
    assert (blind.high - blind.low) < 0.6 * (honest.high - honest.low)


def test_single_context_is_compared_with_itself_by_halves() -> None:
    states, y = context(1.0, 0, shift=1.5)
    table = agreement((states, y))
    assert table.variant.isna().sum() == 2
    assert "split-half" not in set(table.variant.dropna())
    expected = 1.5**2 / (1.5**2 + 20 * 4 / 100)  # of halves with 100 rows
    assert row(table, 1).value == pytest.approx(expected, abs=0.15)
    assert row(table, 1).low > 0
    assert abs(row(table, 0).value) < 0.3
    assert row(table, 0).low < 0 < row(table, 0).high


def test_halves_keep_groups_whole() -> None:
    """Two rows a group that share a strong private state: split apart they would agree with each other."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(60) % 2, 2)
    states = {0: np.repeat(rng.normal(size=(60, 50)), 2, axis=0)}
    apart = direction_agreement({"a": states}, {"a": y})
    whole = direction_agreement({"a": states}, {"a": y}, groups={"a": np.repeat(np.arange(60), 2)})
    assert apart.value[0] > 0.2
    assert whole.value[0] < 0.1


def test_three_contexts_give_the_mean_and_each_pair_when_asked() -> None:
    contexts = [context(1.0, 0), context(1.0, 1), context(0.0, 2)]
    table = agreement(*contexts, each_pair=True, split="ignored")
    own = table[(table.layer == 1) & table.variant.isna()].set_index("split").value
    assert set(own.index) == {"ignored", "a ~ b", "a ~ c", "b ~ c"}
    assert own["ignored"] == pytest.approx(own[["a ~ b", "a ~ c", "b ~ c"]].mean())
    assert own["a ~ b"] > 0.8 > 0.3 > abs(own["a ~ c"])


def test_same_seed_same_table_and_large_offsets_do_not_matter() -> None:
    a, b = context(1.0, 0), context(0.5, 1)
    table = agreement(a, b, seed=5)
    assert table.equals(agreement(a, b, seed=5))
    far = [({k: v + 1e5 for k, v in S.items()}, y) for S, y in (a, b)]
    np.testing.assert_allclose(
        table.value.astype(float), agreement(*far, seed=5).value.astype(float), atol=1e-4
    )


def test_constant_states_have_no_direction() -> None:
    y = np.arange(20) % 2
    table = direction_agreement(
        {"a": {0: np.ones((20, 4))}, "b": {0: np.ones((20, 4))}}, {"a": y, "b": y}
    )
    assert table.value.tolist() == [0.0, 0.0, 0.0]


def test_errors_say_what_came() -> None:
    S, y = context(1.0, 0)
    with pytest.raises(DataError, match="'a' has 3 classes: a direction needs two"):
        direction_agreement({"a": S}, {"a": np.arange(200) % 3})
    with pytest.raises(
        DataError, match=r"classes of 'a' are \[0, 1\], those of 'b' \['no', 'yes'\]"
    ):
        direction_agreement({"a": S, "b": S}, {"a": y, "b": np.where(y, "yes", "no")})
    with pytest.raises(InputError, match="'b' has states but no labels"):
        direction_agreement({"a": S, "b": S}, {"a": y})
    with pytest.raises(DataError, match="cannot be halved"):
        direction_agreement({"a": S}, {"a": y}, groups={"a": y})
    with pytest.raises(DataError, match="layer 0 of 'a' has 200 rows, 199 are needed"):
        direction_agreement({"a": S}, {"a": y[1:]})
