"""Sparse codes among the candidates: measured like all others, chosen where they keep more, left out where asked."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from probes.errors import DoesNotApply, InputError
from probes.exits.compare_csr import compare_csr, time_searches
from probes.exits.grid import GridPlan, layer_dim_grid
from probes.exits.material import prepare
from probes.exits.pipeline import StudyPlan, study_states
from probes.exits.sparse_codes import check_actives
from probes.exits.walk import Budget
from probes.linalg import normalise_rows
from probes.types import Retrieval, TextPairs

COLUMNS = {
    "dataset", "coder", "active", "width", "bytes", "measure", "value", "low", "high", "share", "n",
    "seed", "query_ms", "comparison", "csr_k",
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr("probes.sae.recipe.default_steps", lambda n, batch_size: 300)


def sums(n, rng, d=24, m=48):
    """Unit vectors that are sums of 2 of m directions, spread over all coordinates."""
    directions = normalise_rows(rng.normal(size=(m, d)))
    codes = np.zeros((n, m))
    np.put_along_axis(codes, rng.random((n, m)).argsort(1)[:, :2], rng.uniform(0.5, 1.5, (n, 2)), 1)
    return normalise_rows(codes @ directions)


def pairs_study(rng, n=500, **plan):
    """Layer 2 is sparse by nature, layer 1 the same after a rotation; scores are the cosines of layer 2."""
    left, right = (tuple(f"{side} {i}" for i in range(n)) for side in ("left", "right"))
    states = sums(2 * n, rng)
    states[1 : 2 * n : 2] = normalise_rows(states[: 2 * n : 2] + 0.7 * states[1 : 2 * n : 2])
    placed = np.concatenate([states[::2], states[1::2]])
    gold = (placed[:n] * placed[n:]).sum(1)
    material = prepare(TextPairs("pairs", left, right, gold))
    order = np.array([(left + right).index(text) for text in material.texts])
    last = placed[order]
    turned = last @ np.linalg.qr(rng.normal(size=(24, 24)))[0] * np.logspace(0, 1, 24) + 5
    pooled = {0: rng.normal(size=last.shape), 1: turned, 2: last}
    return study_states(material, pooled, Budget(0.8), StudyPlan(draws=200, latency=None, **plan))


def test_codes_are_chosen_where_fewer_numbers_keep_enough(rng):
    material, last = retrieval(rng, n=500)
    turned = last @ np.linalg.qr(rng.normal(size=(24, 24)))[0] * np.logspace(0, 1, 24) + 5
    pooled = {0: rng.normal(size=last.shape), 1: turned, 2: last}
    plan = StudyPlan(draws=200, latency=None, sparse_codes=(4,), dims=(4, 8, 16))
    study = study_states(material, pooled, Budget(0.5), plan)
    chosen = study.decision.chosen
    assert chosen is not None
    assert (chosen.variant, chosen.layer, chosen.dim) == ("csr", 1, 4)
    decision = study.decision.to_dict()
    assert decision["sparse_codes"]["4"]["features"] == 96
    assert any("active numbers" in caveat for caveat in decision["caveats"])
    assert any("added later" in caveat for caveat in decision["caveats"])
    codes = study.measurements[study.measurements["variant"] == "csr"]
    assert set(codes["dim"]) == {4}
    assert set(codes["layer"]) == {0, 1, 2}
    assert set(study.variants.coders) == {4}


def test_without_the_option_nothing_changes(rng):
    study = pairs_study(rng, dims=(4, 8, 16))
    assert "csr" not in set(study.measurements["variant"])
    assert "sparse_codes" not in study.decision.to_dict()
    assert not study.variants.coders


def test_a_mapping_of_states_is_scored_like_each_alone(rng, similarity_task):
    task, states = similarity_task(60, rng)
    other = {3: rng.normal(size=states.shape), 9: states[:, :5]}
    plan = GridPlan(draws=20)
    fit = np.arange(10)
    both = layer_dim_grid(task, {None: {1: states}, "csr": {1: other}}, {}, fit, plan)
    scores = {
        c.name: row for c, row in zip(both.scores.candidates, both.scores.scores, strict=True)
    }
    for dim, X in other.items():
        alone = task.score(X, [X.shape[1]], fit)["spearman"][0]
        np.testing.assert_array_equal(scores[f"csr:1x{dim}"], alone)
    assert both.scores.full.name == f"raw:1x{states.shape[1]}"


def test_too_few_texts_leave_codes_out_and_say_so(rng):
    study = pairs_study(rng, n=100, sparse_codes=(4,), dims=(8,))
    assert any("too few to fit sparse codes" in caveat for caveat in study.decision.caveats)
    assert not study.variants.coders


@pytest.mark.parametrize("k", [0, -3, 24, 100])
def test_active_numbers_that_make_no_code_are_refused(k):
    with pytest.raises(InputError, match="1 to 23"):
        check_actives((4, k), 24)


def retrieval(rng, n=200, m=300):
    documents = sums(m, rng)
    target = rng.integers(0, m, n)
    queries = normalise_rows(documents[target] + 0.1 * rng.normal(size=(n, 24)))
    relevance = sparse.csr_array((np.ones(n), target, np.arange(n + 1)), shape=(n, m))
    data = Retrieval(
        "search",
        tuple(f"query {i}" for i in range(n)),
        tuple(f"document {i}" for i in range(m)),
        relevance,
    )
    return prepare(data), np.concatenate([queries, documents])


def test_comparison_holds_every_way_at_equal_numbers_and_bytes(rng):
    material, states = retrieval(rng)
    rows = compare_csr(material, states, (2, 4), draws=100, rounds=3)
    assert all(set(row) == COLUMNS for row in rows)
    assert [row["coder"] for row in rows] == ["full", *["csr", *["matryoshka", "pca"] * 2] * 2]
    full = rows[0]
    assert full["share"] == 1
    assert full["value"] > 0.9
    for k in (2, 4):
        ours = next(row for row in rows if row["coder"] == "csr" and row["active"] == k)
        beside = [row for row in rows if row["csr_k"] == k]
        assert ours["comparison"] is None
        assert ours["width"] == 96
        assert {row["active"] for row in beside if row["comparison"] == "active"} == {k}
        for row in beside:
            if row["comparison"] == "bytes":
                assert ours["bytes"] <= row["bytes"] < ours["bytes"] + 4 or row["active"] == 24
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    assert all(row["query_ms"] > 0 for row in rows)
    best = {
        row["coder"]: row["value"]
        for row in rows
        if 4 in (row["csr_k"], row["active"]) and row["comparison"] != "bytes"
    }
    assert best["csr"] > best["matryoshka"]  # planted sparse: few directions of many coordinates
    assert best["csr"] > best["pca"]


def test_times_are_medians_of_ways_that_take_turns():
    calls = []
    searches = [lambda x: calls.append("a"), None, lambda x: calls.append("b")]
    times = time_searches(searches, 3, rounds=2)
    assert times[1] is None
    assert times[0] is not None
    assert sorted(calls) == ["a"] * 3 + ["b"] * 3  # one round to warm up
    assert calls[2:4] == calls[4:][::-1]  # and the order rotates
    assert time_searches(searches, 3, rounds=0) == [None, None, None]


def test_without_named_numbers_those_below_the_width_are_taken(rng):
    material, embeddings = retrieval(rng)
    rows = compare_csr(material, embeddings, draws=100, rounds=0)
    assert [row["active"] for row in rows if row["coder"] == "csr"] == [8, 16]  # of 24 numbers
    with pytest.raises(DoesNotApply, match="embeddings of 8 numbers"):
        compare_csr(material, embeddings[:, :8], draws=100, rounds=0)
    with pytest.raises(InputError, match="1 to 7"):  # what was named is refused
        compare_csr(material, embeddings[:, :8], (8,), draws=100, rounds=0)


def test_too_few_texts_to_fit_to_do_not_apply(rng):
    material, embeddings = retrieval(rng, n=40, m=50)
    with pytest.raises(DoesNotApply, match="too few to fit sparse codes: at least 100"):
        compare_csr(material, embeddings, draws=100, rounds=0)
