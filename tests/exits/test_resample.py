"""Rank statistics under resamples equal scipy's on the examples written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from probes.errors import InputError
from probes.exits.resample import CHUNK, Resamples


@pytest.mark.parametrize("ties", ["none", "values", "gold", "both"])
@pytest.mark.parametrize("clustered", [False, True])
def test_spearman_of_every_draw_equals_scipy(rng, ties, clustered):
    n = 41
    values, gold = rng.normal(size=(3, n)), rng.normal(size=n)
    if ties in ("values", "both"):
        values[1:] = np.round(values[1:])  # the first row keeps no ties: both branches in one call
    if ties in ("gold", "both"):
        gold = rng.integers(0, 4, size=n).astype(float)
    clusters = rng.integers(0, 15, size=n) if clustered else None
    drawn = Resamples.make(n, 2 * CHUNK + 7, seed=3, clusters=clusters)
    found = drawn.spearman(values, gold)
    for j in range(0, drawn.draws, 11):
        written_out = np.repeat(np.arange(n), drawn.counts[:, j])
        expected = [spearmanr(row[written_out], gold[written_out]).statistic for row in values]
        np.testing.assert_allclose(found[:, j], expected, atol=1e-10)


def test_spearman_is_zero_where_one_side_is_constant():
    drawn = Resamples.make(5, 20, seed=0)
    gold = np.arange(5.0)
    np.testing.assert_array_equal(drawn.spearman(np.ones((1, 5)), gold), np.zeros((1, 20)))
    # a draw of one example only is constant on both sides
    lonely = Resamples(np.array([[5], [0], [0], [0], [0]], dtype=np.uint16))
    assert lonely.spearman(gold[None, :], gold)[0, 0] == 0


def test_perfect_order_has_no_spread(rng):
    gold = rng.normal(size=60)
    found = Resamples.make(60, 300, seed=1).spearman(np.exp(gold)[None, :], gold)
    np.testing.assert_allclose(found, 1, atol=1e-12)


def test_means_equal_those_of_the_written_out_draws(rng):
    values = rng.normal(size=(2, 30))
    drawn = Resamples.make(30, CHUNK + 3, seed=0)
    found = drawn.means(values)
    for j in (0, CHUNK, CHUNK + 2):
        written_out = np.repeat(np.arange(30), drawn.counts[:, j])
        np.testing.assert_allclose(found[:, j], values[:, written_out].mean(axis=1))


def test_clusters_are_drawn_whole(rng):
    clusters = rng.integers(0, 10, size=50)
    counts = Resamples.make(50, 40, seed=0, clusters=clusters).counts
    for c in np.unique(clusters):
        members = counts[clusters == c]
        assert (members == members[0]).all()
    assert (
        np.stack([counts[clusters == c][0] for c in np.unique(clusters)]).sum(axis=0) == 10
    ).all()


def test_clusters_widen_the_interval_of_repeated_examples(rng):
    """Every example copied eight times: pretending that copies are new data gives too narrow an interval."""
    x, gold = rng.normal(size=40), rng.normal(size=40)
    x, gold, clusters = np.tile(x, 8), np.tile(gold, 8), np.tile(np.arange(40), 8)
    honest = Resamples.make(320, 800, 0, clusters).spearman(x[None], gold).std()
    naive = Resamples.make(320, 800, 0).spearman(x[None], gold).std()
    single = Resamples.make(40, 800, 0).spearman(x[None, :40], gold[:40]).std()
    assert naive < 0.5 * single
    assert honest == pytest.approx(single, rel=0.15)


def test_same_seed_same_draws():
    a, b, c = (Resamples.make(20, 10, seed).counts for seed in (0, 0, 1))
    assert (a == b).all()
    assert (a != c).any()


def test_no_examples_is_an_error():
    with pytest.raises(InputError, match="0 examples"):
        Resamples.make(0, 10, seed=0)
