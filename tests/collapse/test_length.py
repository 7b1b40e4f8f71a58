"""Length collapse that was planted is found with its size; none is found where none was planted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from probes.collapse.length import FEWEST_TEXTS, Length, cosine_draws, study_lengths, token_bins
from probes.errors import DataError, DoesNotApply

CUTS = (8, 16, 32, 64)
COLUMNS = [
    "tokens", "tokens_low", "tokens_high", "layer", "measure", "value", "low", "high", "n", "seed",
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
    assert any("layer 0: no cut" in note for note in found.notes)


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
