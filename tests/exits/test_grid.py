"""The grid against cells computed one by one; resamples are shared; rows fit the tidy table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.preprocessing import normalize

from probes.errors import InputError, NonFiniteError
from probes.exits.grid import GridPlan, default_dims, layer_dim_grid
from probes.exits.resample import Resamples
from probes.exits.variants import centred, embedded, translated
from probes.linalg import normalise_rows
from probes.tables import tidy


def noisy_layers(states, rng, noise=(2.0, 0.5, 0.1)):
    return {k: states + s * rng.normal(size=states.shape) for k, s in enumerate(noise)}


def test_every_cell_equals_the_naive_loop(rng, similarity_task, split_parts):
    task, states = similarity_task(80, rng)
    layers, parts = noisy_layers(states, rng, noise=(1.0, 0.2)), split_parts(80, rng)
    evaluated = {"calibrate": parts["calibrate"], "test": parts["test"]}
    made = layer_dim_grid(
        task, {None: layers}, evaluated, parts["fit"], GridPlan(draws=50, seed=4, pooling="mean")
    )
    table = tidy(made.rows)
    assert len(table) == 2 * 3 * 3  # layers, widths 8 16 32, splits with all
    rows = {"all": np.arange(80), **evaluated}
    for row in table.to_dict("records"):
        index = rows[row["split"]]
        unit = normalize(layers[row["layer"]][:, : row["dim"]])
        cosine = (unit[task.a[index]] * unit[task.b[index]]).sum(axis=1)
        assert row["value"] == pytest.approx(
            spearmanr(cosine, task.gold[index]).statistic, abs=1e-10
        )
        drawn = Resamples.make(
            len(index), 50, 4, task.clusters[index]
        )  # the same draws for every cell
        draws = []
        for j in range(50):
            again = np.repeat(np.arange(len(index)), drawn.counts[:, j])
            draws.append(spearmanr(cosine[again], task.gold[index][again]).statistic)
        np.testing.assert_allclose(
            [row["low"], row["high"]], np.quantile(draws, [0.025, 0.975]), atol=1e-10
        )
        assert row["n"] == len(index)
        fixed = ("site", "pooling", "dataset", "measure")
        assert [row[c] for c in fixed] == ["exit", "mean", "pairs", "spearman"]
        assert pd.isna(row["variant"])
        assert pd.isna(row["block"])


@pytest.mark.parametrize("kind", ["similarity_task", "retrieval_task", "classification_task"])
def test_all_kinds_give_all_measures_and_better_layers_score_higher(
    rng, request, kind, split_parts
):
    make = request.getfixturevalue(kind)
    task, states = (
        make(150, rng) if kind == "similarity_task" else make(150, 40 if "ret" in kind else 20, rng)
    )
    made = layer_dim_grid(
        task,
        {None: noisy_layers(states, rng)},
        {},
        split_parts(150, rng)["fit"],
        GridPlan(draws=60),
    )
    table = tidy(made.rows)
    assert set(table["measure"]) == set(task.measures)
    assert (table["low"] <= table["high"]).all()
    full = table[
        (table["dim"] == states.shape[1]) & (table["measure"] == task.primary)
    ].sort_values("layer")
    assert full["value"].is_monotonic_increasing
    assert made.scores.full.layer == 2
    assert made.scores.full.dim == states.shape[1]
    quality = made.scores.quality([made.scores.full], np.arange(150))[0]
    assert quality == pytest.approx(full["value"].iloc[-1])


def test_equal_layers_have_equal_intervals(rng, similarity_task):
    task, states = similarity_task(60, rng)
    made = tidy(
        layer_dim_grid(
            task, {None: {0: states, 1: states}}, {}, np.arange(0), GridPlan(draws=40)
        ).rows
    )
    columns = ["dim", "value", "low", "high"]
    a, b = (made[made["layer"] == k][columns].reset_index(drop=True) for k in (0, 1))
    pd.testing.assert_frame_equal(a, b)


def test_widths(rng, similarity_task):
    assert default_dims(64) == [8, 16, 32, 64]
    assert default_dims(6) == [6]
    assert GridPlan(dims=(4, 4, 2)).widths(10) == [2, 4, 10]
    with pytest.raises(InputError, match="dim 11: 1 to 10"):
        GridPlan(dims=(11,)).widths(10)


def test_bad_states_are_named(rng, similarity_task):
    task, states = similarity_task(20, rng)
    broken = states.copy()
    broken[7, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"layer 1 \(raw\).*row 7"):
        layer_dim_grid(task, {None: {0: states, 1: broken}}, {}, np.arange(0), GridPlan(draws=2))
    with pytest.raises(InputError, match="raw states"):
        layer_dim_grid(task, {"centred": {0: states}}, {}, np.arange(0))


def test_variants_use_the_fit_texts_only(rng):
    pooled = {0: rng.normal(size=(30, 4)), 1: rng.normal(size=(30, 4))}
    fit = np.arange(12)
    raw = embedded(pooled, normalise_rows)
    np.testing.assert_allclose(np.linalg.norm(raw[0], axis=1), 1)
    np.testing.assert_allclose(centred(raw, fit)[1], raw[1] - raw[1][:12].mean(axis=0))
    moved = {k: np.concatenate([v[:12], v[12:] + 5]) for k, v in pooled.items()}
    np.testing.assert_allclose(centred(pooled, fit)[0][:12], centred(moved, fit)[0][:12])
    assert list(centred(raw, fit)) == [0, 1]
    with pytest.raises(KeyError):
        translated(pooled, {})[0]
