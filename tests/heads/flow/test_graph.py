"""Graph energy: definitions by brute force, planted geometry, and what a graph without a trace gives."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from probes.errors import DoesNotApply, InputError
from probes.heads.flow import graph, graph_energy
from probes.heads.flow.energy import edge_energy, energy_table, node_means
from probes.heads.flow.walks import (
    WORDS,
    Graph,
    graph_edges,
    random_walk,
    rewired,
    shared_edges,
    single_tokens,
)
from probes.models import wrap_model
from probes.report.figures.circuit_flow import TRACE, taught_energy


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
    assert len(found.energy) == 4 * 3  # two contexts, and the longer one rewired
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


def _untrained(name: str, seed: int) -> Any:
    """A model as it is before training, with a tokenizer of the walks' words."""
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(["?", *WORDS])}, unk_token="?")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    torch.manual_seed(seed)
    if name == "gpt2":
        sizes: Any = {"n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 256}
        kind, config = transformers.GPT2LMHeadModel, transformers.GPT2Config
    else:
        sizes = {
            "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 96,
            "max_position_embeddings": 256,
        }  # fmt: skip
        kind, config = transformers.LlamaForCausalLM, transformers.LlamaConfig
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = kind(config(vocab_size=64, **ends, **sizes)).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?")
    return wrap_model(model, tokenizer, name=f"untrained {name}")


WALKS: dict[str, Any] = {"contexts": (50, 200), "permutations": 20}


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_untrained_models_have_no_graph(name: str) -> None:
    """Their energy may lie surely below 1 (positions, mixing), but not below that of the rewired walk."""
    below = []
    for seed in range(3):
        table = graph_energy(_untrained(name, seed), seed=seed, **WALKS).energy
        rows = table[table["difference"].notna()]
        assert rows["context"].tolist() == [200] * 4
        assert (table["variant"] == "rewired").sum() == 4
        assert rows["difference"].abs().max() < TRACE / 2
        assert rows["difference"].iloc[0] == 0  # the same tokens at the same positions
        shown, _ = taught_energy(_plain(table))  # type: ignore[misc]
        assert not shown
        below.append(bool((rows["high"] < 1).any()))
    assert any(below) or name == "llama"


def _plain(table: Any) -> Any:
    numbers = [column for column in table.columns if column != "variant"]
    return table.assign(variant=table["variant"].fillna("")).astype(dict.fromkeys(numbers, float))


def test_a_model_that_learns_who_follows_whom_has_the_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: a word's state in layer 1 holds the mean of what has followed it so far; in layer 2, the token before.

    What mixes only tokens nearby brings neighbours together too, but has learned nothing.
    """
    code = np.random.default_rng(0).normal(size=(64, 24))

    def states(model: Any, ids: Any) -> Any:
        follows = np.zeros((64, 24))
        learned = []
        for at, token in enumerate(ids):
            if at:
                follows[ids[at - 1]] += code[token]
            times = (ids[:at] == token).sum()
            learned.append(code[token] + follows[token] / max(times, 1))
        before = code[np.concatenate([ids[:1], ids[:-1]])]
        return np.stack([code[ids], np.asarray(learned), code[ids] + 0.7 * before])

    monkeypatch.setattr(graph, "_states", states)
    table = graph_energy(_untrained("llama", 0), **WALKS).energy
    shown, best = taught_energy(_plain(table))  # type: ignore[misc]
    assert shown
    assert best["layer"] == 1
    assert best["difference"] < -0.1
    nearby = table[(table["layer"] == 2) & table["difference"].notna()].iloc[0]
    assert nearby["high"] < 1
    assert nearby["difference"] == 0


def test_without_a_longer_context_nothing_is_compared() -> None:
    table = graph_energy(_untrained("llama", 0), contexts=(50,), permutations=20).energy
    assert table["difference"].isna().all()
    assert taught_energy(_plain(table)) is None


def test_rewired_words_keep_their_neighbours_number() -> None:
    edges = graph_edges("grid", 16)
    degrees = np.bincount(edges.ravel())
    order = rewired(Graph(tuple("abcdefghijklmnop"), edges), np.random.default_rng(0))
    assert (degrees[order] == degrees).all()
    assert shared_edges(edges, order) <= 6  # of 24


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
