"""Length collapse that was planted is found with its size; none is found where none was planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from probes.collapse.length import (
    FEWEST_TEXTS,
    CosineDraws,
    Length,
    cosine_draws,
    study_lengths,
    token_bins,
)
from probes.errors import DataError, DoesNotApply
from probes.exits.resample import Resamples

CUTS = (8, 16, 32, 64)
COLUMNS = [
    "tokens", "tokens_low", "tokens_high", "layer", "measure", "value", "low", "high", "n", "seed",
    "difference", "difference_low", "difference_high",
]  # fmt: skip


def states(
    strength: Callable[[int], float], seed: int = 0, n: int = 80, d: int = 24
) -> list[Length]:
    """The same documents at every length; the share of a common direction is `strength(step)`, so the mean cosine of
    unit-norm rows is about strength²/(1 + strength²)."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(n, d)) / np.sqrt(d)
    common = np.eye(d)[0]
    made = []
    for step, tokens in enumerate(CUTS):
        noise = 0.1 * rng.normal(size=(n, d)) / np.sqrt(d)
        made.append(
            Length(
                tokens, tokens, tokens, {0: own + noise, 3: own + noise + strength(step) * common}
            )
        )
    return made


@pytest.mark.parametrize("paired", [True, False])
def test_planted_collapse_has_its_slope(paired: bool) -> None:
    strengths = [np.sqrt(c / (1 - c)) for c in (0.2, 0.3, 0.4, 0.5)]
    found = study_lengths(states(lambda step: strengths[step]), paired=paired, draws=300)
    flat, steep = found.slopes
    assert (flat["layer"], steep["layer"]) == (0, 3)
    assert flat["low"] < 0 < flat["high"]
    assert steep["low"] < 0.1 < steep["high"] + 0.02
    assert steep["low"] > 0.05
    assert steep["high"] - steep["low"] < 0.06


def test_pairing_makes_the_interval_narrower() -> None:
    made = states(lambda step: 0.5)
    widths = []
    for paired in (True, False):
        slope = study_lengths(made, paired=paired, draws=300).slopes[1]
        widths.append(slope["high"] - slope["low"])
    assert widths[0] < 0.5 * widths[1]


def test_without_collapse_intervals_cover_zero_as_often_as_they_say() -> None:
    covered = 0
    for seed in range(100):
        made = [one.states[3] for one in states(lambda step: 0.6, seed, n=40)]
        slope = cosine_draws(made, paired=True, draws=200, seed=0).slope(CUTS)
        covered += slope["low"] <= 0 <= slope["high"]
    assert 88 <= covered <= 100


def test_the_onset_is_the_first_cut_above_the_shortest() -> None:
    found = study_lengths(states(lambda step: [0.3, 0.3, 1.0, 1.0][step]), paired=True, draws=300)
    assert [row["value"] for row in found.onsets] == [None, 32.0]
    assert any("layer 0: the longest cuts" in note for note in found.notes)


@pytest.mark.parametrize(
    ("means", "onset"),
    [
        ((0.3, 0.4, 0.2, 0.1), None),  # above at first, but not from there on
        ((0.3, 0.4, 0.2, 0.5), 64.0),
        ((0.3, 0.4, 0.35, 0.5), 16.0),  # a fall that stays above the shortest
    ],
)
def test_an_onset_holds_for_all_longer_cuts(means: tuple[float, ...], onset: float | None) -> None:
    values = np.asarray(means)
    noise = 0.01 * np.random.default_rng(0).normal(size=(4, 200))
    cosines = CosineDraws(values, values[:, None] + noise, 50)
    assert cosines.onset(CUTS) == onset
    assert [rise[0] for rise in cosines.rises()] == pytest.approx(values[1:] - 0.3)


def test_rises_are_paired_differences_to_the_shortest_cut() -> None:
    made = states(lambda step: 0.3 * step)
    table = study_lengths(made, paired=True, draws=300).table
    own = table[(table["measure"] == "anisotropy") & (table["layer"] == 3)]
    assert own["difference"].isna().tolist() == [True, False, False, False]
    counts = Resamples.make(80, 300, 0).counts
    drawn = []  # every resample written out
    for one in (made[0], made[2]):
        X = one.states[3] / np.linalg.norm(one.states[3], axis=1, keepdims=True)
        found = []
        for weights in counts.T:
            rows = np.repeat(np.arange(80), weights)
            different = rows[:, None] != rows[None, :]
            found.append((X[rows] @ X[rows].T)[different].mean())
        drawn.append(found)
    row = own.iloc[2]
    low, high = np.quantile(np.subtract(drawn[1], drawn[0]), [0.025, 0.975])
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((low, high))
    assert row["difference"] == pytest.approx(row["value"] - own.iloc[0]["value"])
    others = table[table["measure"] != "anisotropy"]
    assert others[["difference", "difference_low", "difference_high"]].isna().all(axis=None)
    natural = study_lengths(made, paired=False, draws=200).table
    assert natural["difference"].isna().all()


def test_natural_lengths_have_no_onset() -> None:
    assert study_lengths(states(lambda step: step), paired=False, draws=200).onsets == []


def test_every_length_and_layer_has_every_measure() -> None:
    table = study_lengths(states(lambda step: 0.2), paired=True, draws=200).table
    assert list(table.columns) == COLUMNS
    assert len(table) == 4 * 2 * 6
    assert (table["n"] == 80).all()
    assert (table["low"] <= table["value"]).all()


def test_states_without_a_direction_are_null_with_a_reason() -> None:
    made = states(lambda step: 0.2)
    made[2].states[3][5] = 0.0  # type: ignore[index]
    found = study_lengths(made, paired=True, draws=200)
    gone = found.table[(found.table["layer"] == 3) & (found.table["measure"] == "anisotropy")]
    assert gone["value"].isna().tolist() == [False, False, True, False]
    assert not any(isinstance(v, float) and v != v for v in found.table["value"])
    assert [row["layer"] for row in found.slopes] == [0]
    assert any("zero" in note for note in found.notes)


def test_bins_are_of_one_size_and_hold_only_their_lengths() -> None:
    rng = np.random.default_rng(0)
    tokens = [*rng.integers(8, 16, 50), *rng.integers(32, 64, 70), *rng.integers(64, 128, 5)]
    bins = token_bins(tokens, seed=0, most=1000)
    assert [len(one.rows) for one in bins] == [50, 50]
    for one in bins:
        own = np.asarray(tokens)[one.rows]
        assert one.low <= own.min() <= np.median(own) == one.tokens <= own.max() <= one.high
    assert bins[0].high < 16 <= 32 <= bins[1].low
    assert {len(one.rows) for one in token_bins(tokens, seed=0, most=40)} == {40}


def test_one_bin_is_no_study() -> None:
    with pytest.raises(DoesNotApply, match="two are needed"):
        token_bins([9] * 100 + [40] * (FEWEST_TEXTS - 1), seed=0, most=100)
    with pytest.raises(DoesNotApply, match="two are needed"):
        study_lengths(states(lambda step: 0.2)[:1], paired=True)


def test_lengths_of_different_size_are_refused() -> None:
    made = states(lambda step: 0.2)
    made[1] = Length(16, 16, 16, {k: X[:-1] for k, X in made[1].states.items()})
    with pytest.raises(DataError, match="the same number"):
        study_lengths(made, paired=True)
