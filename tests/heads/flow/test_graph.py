"""Graph energy: definitions by brute force, planted geometry, and what a graph without a trace gives."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from probes.errors import DoesNotApply, InputError
from probes.heads.flow import graph_energy
from probes.heads.flow.graph import edge_energy, energy_table, node_means
from probes.heads.flow.walks import WORDS, Graph, graph_edges, random_walk, single_tokens


def test_graphs() -> None:
    grid = Graph(tuple("abcdefghi"), graph_edges("grid", 9))
    assert [len(near) for near in grid.neighbours] == [2, 3, 2, 3, 4, 3, 2, 3, 2]
    assert sorted(grid.neighbours[4].tolist()) == [1, 3, 5, 7]
    ring = Graph(tuple("abcde"), graph_edges("ring", 5))
    assert all(len(near) == 2 for near in ring.neighbours)
    walk = random_walk(grid, 2000, np.random.default_rng(0))
    assert all(b in grid.neighbours[a] for a, b in itertools.pairwise(walk))
    visits = (
        np.bincount(walk, minlength=9) / 2000
    )  # in the long run in proportion to the neighbours
    np.testing.assert_allclose(visits, np.asarray([2, 3, 2, 3, 4, 3, 2, 3, 2]) / 24, atol=0.03)


def test_node_means_and_energy_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    states, walk = rng.normal(size=(2, 30, 5)), rng.integers(0, 6, 30)
    walk[walk == 3] = 2  # node 3 is never visited
    means = node_means(states, walk, 7)
    for layer in range(2):
        for node in (0, 1, 2, 4, 5):
            np.testing.assert_allclose(means[layer, node], states[layer, walk == node].mean(0))
    assert np.isnan(means[:, [3, 6]]).all()
    edges = graph_edges("ring", 7)
    order = rng.permutation(7)
    squares = ((means[0][:, None] - means[0]) ** 2).sum(-1)
    on = [squares[order[a], order[b]] for a, b in edges]
    every = [squares[i, j] for i in range(7) for j in range(i)]
    expected = np.nanmean(on) / np.nanmean(every)
    np.testing.assert_allclose(edge_energy(squares, edges, order[None]), [expected])


def test_planted_grid_lies_far_below_permutations() -> None:
    """Nodes at their own places on the grid in layer 1, anywhere in layer 0."""
    rng = np.random.default_rng(1)
    places = np.asarray([(n // 4, n % 4) for n in range(16)], float)
    means = [np.stack([rng.normal(size=(16, 2)), places + 0.05 * rng.normal(size=(16, 2))])
             for _ in range(6)]  # fmt: skip
    table = energy_table({100: means}, graph_edges("grid", 16), 300, 0)
    none, planted = (table.loc[layer] for layer in (0, 1))
    assert planted["high"] < 0.25 < 0.8 < planted["permuted_low"]
    # closed form: edges have length 1, all pairs 2 · Var over both axes
    assert planted["energy"] == pytest.approx(
        1 / (2 * 2 * places.var(0).sum() / 2 * 16 / 15), rel=0.03
    )
    assert none["low"] < 1 < none["high"]
    assert none["permuted"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_table(name: str, tiny: Any) -> None:
    model = tiny(name)
    options: dict[str, Any] = {
        "nodes": 9,
        "contexts": (20, 40),
        "walks": 3,
        "permutations": 20,
        "window": 20,
    }
    found = graph_energy(model, **options)
    assert len(found.energy) == 4 * 2
    assert (found.energy["low"] <= found.energy["energy"]).all()
    assert set(found.nodes["layer"]) == {0, 1, 2, 3}
    assert found.nodes["word"].isin(WORDS).all()
    assert found.edges.shape == (12, 2)
    assert found.energy.equals(graph_energy(model, **options).energy)
    if (
        name == "llama"
    ):  # layer 0 knows the words alone, which every walk places anew: no trace of the graph
        first = graph_energy(model, **{**options, "walks": 12, "contexts": (40,)}).energy.loc[0]
        assert first["low"] < 1.05
        assert first["high"] > 0.95


def test_refusals(tiny: Any) -> None:
    with pytest.raises(DoesNotApply, match="sees later tokens"):
        graph_energy(tiny("bert"))
    with pytest.raises(InputError, match="context 400: tiny-gpt2 takes 63"):
        graph_energy(tiny("gpt2"))
    with pytest.raises(InputError, match="contexts of at least 32"):
        graph_energy(tiny("gpt2"), contexts=(8,))
    with pytest.raises(InputError, match="no 10 nodes: take 9 or 16"):
        graph_edges("grid", 10)
    with pytest.raises(DoesNotApply, match="2 of 3 words are one token"):
        single_tokens(tiny("gpt2"), ["cat", "dog", "zyx"], 3)
