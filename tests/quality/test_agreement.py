"""Rank correlation of metrics with quality: planted agreement found, noise not, depth alone named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from probes.errors import InputError
from probes.quality import label_agreement
from probes.quality.agreement import DEPTH, metric_names, walk_p

LAYERS = 13


def curves(**values: np.ndarray) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"name": name, "layer": range(len(v)), "value": v, "low": v, "high": v})
        for name, v in values.items()
    ]
    return pd.concat(frames, ignore_index=True)


def spread(quality: np.ndarray, deviation: float, draws: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    return quality[:, None] + deviation * rng.normal(size=(len(quality), draws))


def test_a_metric_that_follows_quality_agrees_and_one_that_opposes_it_does_not() -> None:
    quality = np.random.default_rng(1).permutation(LAYERS) / LAYERS
    table = label_agreement(
        curves(same=quality**3, opposite=-quality), quality, spread(quality, 0.001)
    ).set_index("name")
    assert table.loc["same", "value"] == pytest.approx(1)
    assert table.loc["opposite", "value"] == pytest.approx(-1)
    assert table.loc["same", "low"] > 0.95
    assert table.loc["opposite", "high"] < -0.95
    expected = stats.spearmanr(np.arange(LAYERS), quality).statistic
    assert table.loc[DEPTH, "value"] == pytest.approx(expected)
    assert (table["n"] == LAYERS).all()


def test_the_interval_grows_with_the_noise_of_quality_and_of_the_metric() -> None:
    quality = np.linspace(0, 1, LAYERS)
    sure = label_agreement(curves(m=quality), quality, spread(quality, 0.01))
    shaky = label_agreement(curves(m=quality), quality, spread(quality, 0.5))
    loose = curves(m=quality).assign(low=quality - 1, high=quality + 1)
    metric = label_agreement(loose, quality, spread(quality, 0.01))

    def width(table: pd.DataFrame) -> float:
        row = table[table["name"] == "m"].iloc[0]
        return float(row["high"] - row["low"])

    assert width(sure) < 0.05 < width(metric)
    assert width(sure) < 0.05 < width(shaky)


def test_layers_without_a_value_are_left_out_and_constant_metrics_have_no_row() -> None:
    quality = np.linspace(0, 1, LAYERS)
    table = curves(part=quality, flat=np.ones(LAYERS), short=quality[:3])
    table.loc[(table["name"] == "part") & (table["layer"] < 5), "value"] = np.nan
    found = label_agreement(table, quality, spread(quality, 0.01))
    assert set(found["name"]) == {"part", DEPTH}
    assert found.set_index("name").loc["part", "n"] == LAYERS - 5


def test_equal_seeds_give_equal_tables() -> None:
    quality = np.linspace(0, 1, LAYERS)
    table = curves(m=quality).assign(low=quality - 0.2, high=quality + 0.2)
    one, two, other = (
        label_agreement(table, quality, spread(quality, 0.1), seed=seed) for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(one, two)
    assert not one["low"].equals(other["low"])


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(layers, draws\) are needed"):
        label_agreement(curves(m=np.arange(4.0)), np.arange(4.0), np.zeros((3, 10)))


def test_views_are_part_of_a_metrics_name() -> None:
    frame = pd.DataFrame({"measure": ["infonce", "anisotropy"], "variant": ["view=swap", pd.NA]})
    assert metric_names(frame) == ["infonce, swap", "anisotropy"]


@pytest.mark.parametrize("layers", [7, 31])
def test_unrelated_smooth_curves_are_rarely_called_more_than_chance(layers: int) -> None:
    """Random walks agree with each other strongly and stably; their p-values must be uniform all the same."""
    rng = np.random.default_rng(3)
    ps, stable = [], 0
    for _ in range(200):
        metric, quality = (rng.normal(size=layers).cumsum() for _ in range(2))
        ps.append(walk_p(metric, quality, rng, 200))
        if len(ps) <= 40:
            table = label_agreement(curves(m=metric), quality, spread(quality, 0.01, 100))
            row = table.set_index("name").loc["m"]
            stable += row["low"] * row["high"] > 0
    assert stable > 0.5 * 40  # the interval alone would call most of them related
    assert 0.01 <= np.mean(np.array(ps) < 0.05) <= 0.09  # 5 % ± 3 standard errors of 200
    assert 0.4 < np.mean(ps) < 0.6


def test_a_metric_whose_every_turn_is_that_of_quality_beats_random_curves() -> None:
    rng = np.random.default_rng(0)
    quality = np.sin(np.arange(31) / 2) + 0.3 * rng.normal(size=31)
    assert walk_p(quality**3 + 2 * quality, quality, rng) < 0.01
