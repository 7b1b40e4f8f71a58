"""Metrics: closed forms, exact ends of the scale, intervals that cover."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from probes.errors import InputError
from probes.registry import MEASURES
from probes.sae.baselines import NeuronCoder, PCACoder
from probes.sae.metrics import (
    dataset_mean,
    dead_share,
    density_histogram,
    evaluate,
    explained_variance,
    feature_density,
    fvu,
    l0,
    measure,
    norm_ratio,
)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [2, 37, 5000])
def test_the_mean_explains_exactly_nothing_and_a_copy_everything(n: int, dtype: Any) -> None:
    X = (np.random.default_rng(n).normal(size=(n, 7)) + 100).astype(dtype)
    mean = np.tile(dataset_mean(X), (n, 1))
    assert explained_variance(X, mean) == 0.0
    assert explained_variance(X, X.copy()) == 1.0
    assert fvu(X, mean) == 1.0
    assert explained_variance(X, mean + 1) < 0
    rough = np.tile(X.mean(0, dtype=dtype), (n, 1))
    assert explained_variance(X, rough) == pytest.approx(0, abs=1e-6)


def test_variance_is_about_the_dataset_mean_and_not_about_the_batch_or_zero() -> None:
    X = np.array([[10.0, 0], [12, 0], [10, 4], [12, 4]])
    X_hat = X + np.array([[1.0, 0]])
    assert fvu(X, X_hat) == pytest.approx(4 / (4 * 1 + 4 * 4))


def test_sparsity_and_density_are_counted() -> None:
    dense = np.array([[0, 1.0, 2, 0], [0, 0, 3, 0]])
    stored = sparse.csr_array((np.array([0.0, 1]), [0, 1], [0, 1, 2]), shape=(2, 4))
    for codes in (dense, sparse.csr_array(dense), sparse.coo_array(dense)):
        assert l0(codes) == 1.5
        assert feature_density(codes).tolist() == [0, 0.5, 1, 0]
    assert l0(stored) == 0.5  # a stored zero is not active
    assert stored.nnz == 2
    assert dead_share(feature_density(dense)) == 0.5
    table = density_histogram(np.array([0, 0.1, 1e-3, 1.0]), bins=8)
    assert table["features"].sum() == 3
    assert table.loc[table["low"] == -1, "features"].tolist() == [2]


def test_norm_ratio_by_hand() -> None:
    X = np.random.default_rng(0).normal(size=(500, 3))
    X += np.array([5, 0, 0])
    assert norm_ratio(X) == pytest.approx(
        np.linalg.norm(X.mean(0)) / np.linalg.norm(X.std(0)), rel=1e-6
    )


def test_rows_of_the_table_are_registered_and_agree_with_the_functions() -> None:
    X = np.random.default_rng(0).normal(size=(400, 6))
    coders = {"pca": PCACoder(2).fit(X), "neurons": NeuronCoder(2).fit(X)}
    table = evaluate(coders, X, resamples=200, layer=3, site="exit")
    assert set(table["measure"]) <= set(MEASURES)
    assert set(table["layer"]) == {3}
    one = table[(table["measure"] == "explained_variance") & (table["variant"] == "pca")].iloc[0]
    copy = coders["pca"].inverse_transform(coders["pca"].transform(X))
    assert one["value"] == pytest.approx(explained_variance(X, copy), abs=1e-6)
    assert one["low"] < one["value"] < one["high"]
    share = np.sort(np.linalg.eigvalsh(np.cov(X.T)))[::-1]
    assert one["value"] == pytest.approx(share[:2].sum() / share.sum(), abs=1e-6)
    assert table.equals(evaluate(coders, X, resamples=200, layer=3, site="exit"))


def test_intervals_over_groups_are_wider_where_groups_hold_copies() -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(40, 5)), 25, axis=0)
    groups = np.repeat(np.arange(40), 25)
    coder = PCACoder(2).fit(X)

    def width(given: Any) -> float:
        table = evaluate({"pca": coder}, X, groups=given, resamples=300)
        row = table[table["measure"] == "fvu"].iloc[0]
        return float(row["high"] - row["low"])

    assert width(groups) > 3 * width(None)


def test_intervals_cover_the_value_of_the_population() -> None:
    rng = np.random.default_rng(0)
    population = rng.normal(size=(20_000, 4)) * [3, 2, 1, 1]
    coder = PCACoder(2).fit(population)
    copy = coder.inverse_transform(coder.transform(population))
    truth = fvu(population, copy)
    inside = 0
    for seed in range(40):
        sample = population[rng.choice(len(population), 300)]
        table = evaluate({"pca": coder}, sample, resamples=200, seed=seed)
        row = table[table["measure"] == "fvu"].iloc[0]
        inside += row["low"] <= truth <= row["high"]
    assert inside >= 33


def test_errors() -> None:
    with pytest.raises(InputError, match="both must agree"):
        fvu(np.ones((3, 2)), np.ones((2, 2)))
    with pytest.raises(InputError, match="no variance"):
        fvu(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(InputError, match="no variance"):
        measure(NeuronCoder(1).fit(np.eye(2)), np.ones((3, 2)))
    with pytest.raises(InputError, match="groups"):
        evaluate({}, np.eye(4), groups=[1, 2])
