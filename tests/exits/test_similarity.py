"""Cosines at every width equal slices normalised anew; losses average to 1 − ρ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import paired_distances

from probes.exits.grid import default_dims
from probes.exits.similarity import cosines


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cosines_equal_sklearn_on_every_slice(rng, dtype):
    states = rng.normal(size=(50, 100)).astype(dtype)
    a, b = rng.integers(0, 50, size=(2, 80))
    dims = default_dims(100)
    found = cosines(states, a, b, dims)
    for step, m in enumerate(dims):
        expected = 1 - paired_distances(states[a, :m], states[b, :m], metric="cosine")
        np.testing.assert_allclose(
            found[step], expected, atol=1e-6 if dtype == np.float32 else 1e-12
        )


def test_zero_vectors_have_cosine_zero():
    states = np.array([[0.0, 0.0, 1.0], [1.0, 2.0, 3.0]])
    found = cosines(states, np.array([0]), np.array([1]), [2, 3])
    assert found[0, 0] == 0
    assert found[1, 0] == pytest.approx(3 / np.sqrt(14))


def test_estimate_is_scipys_spearman(rng, similarity_task):
    task, states = similarity_task(120, rng)
    scores = task.score(states[:, :16] + 0.3 * rng.normal(size=(240, 16)), [8, 16], np.arange(0))[
        "spearman"
    ]
    rows = np.arange(20, 90)
    for found, row in zip(task.estimate("spearman", scores, rows), scores, strict=True):
        assert found == pytest.approx(spearmanr(row[rows], task.gold[rows]).statistic, abs=1e-12)


def test_losses_average_to_one_minus_rho(rng, similarity_task):
    task, states = similarity_task(100, rng)
    scores = task.score(np.round(states, 1), [8, 32], np.arange(0))["spearman"]
    rows = np.arange(100)
    expected = 1 - task.estimate("spearman", scores, rows)
    np.testing.assert_allclose(task.losses(scores, rows).mean(axis=1), expected, atol=1e-12)


def test_part_keeps_the_pairs(rng, similarity_task):
    task, _ = similarity_task(20, rng)
    rows = np.array([3, 7])
    part = task.part(rows)
    assert len(part) == 2
    assert task.text_rows(rows).tolist() == [3, 7, 23, 27]
    assert part.gold.tolist() == task.gold[rows].tolist()
