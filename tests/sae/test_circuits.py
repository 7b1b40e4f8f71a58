"""Circuits from discrete codes: the counts against sets, the AUC against scikit-learn, and planted heads found."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_heads import FILLER, planted_model
from sklearn.metrics import roc_auc_score

from probes.errors import DoesNotApply, EstimatorInputError, InputError
from probes.heads.circuits import Pair, Task, make_task
from probes.sae.baselines import ClusterCoder
from probes.sae.circuit_outputs import HeadOutputs, circuit_task, head_outputs, third_gives
from probes.sae.circuits import (
    METHODS,
    CircuitSettings,
    discrete_circuit,
    head_codes,
    list_edges,
    only_positive,
    patched_heads,
    roc_auc,
    seed_scores,
)

QUICK = CircuitSettings(fit_pairs=8, n_features=48, k=4, steps=60, seeds=3, patched=10, least=0.05)


@given(
    codes=st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=12),
    seed=st.integers(0, 99),
)
def test_counts_are_those_of_sets(codes: list[list[int]], seed: int) -> None:
    table = np.array(codes)
    positive = np.random.default_rng(seed).random(len(table)) < 0.5
    expected = [
        len(set(column[positive]) - set(column[~positive])) for column in table.T
    ]  # fmt: skip
    assert only_positive(table, positive).tolist() == expected


@given(
    n=st.integers(2, 30),
    seed=st.integers(0, 999),
    values=st.integers(1, 5),
)
def test_auc_is_that_of_scikit_learn(n: int, seed: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    score, inside = rng.integers(values, size=n).astype(float), rng.random(n) < 0.5
    inside[0], inside[1] = True, False
    assert roc_auc(score, inside) == pytest.approx(roc_auc_score(inside, score))


def test_edges_run_from_earlier_blocks_to_later_ones() -> None:
    block = np.array([0, 0, 1, 2, 2])
    first, second = list_edges(block)
    found = set(zip(first.tolist(), second.tolist(), strict=True))
    assert found == {(i, j) for i in range(5) for j in range(5) if block[i] < block[j]}
    assert (np.diff(first) >= 0).all()


def test_a_code_is_the_strongest_feature_or_one_for_none() -> None:
    class Coder:
        def transform(self, X: np.ndarray) -> np.ndarray:
            return X

    values = np.array([[[0.0, 2, 1], [0, 0, 0]], [[-3, -1, -2], [5, 0, -9]]])
    assert head_codes(Coder(), values).tolist() == [[1, 3], [3, 0]]


def made_outputs(n: int = 24, seed: int = 0) -> HeadOutputs:
    """Six heads in three blocks. Head 1 says something else on positives, head 3 says nothing of the kind but more;
    heads 1 and 4 say both of two things on both sides, but the same one together on positives only."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(12, 8))
    values = np.zeros((2 * n, 6, 8))
    positive = np.tile([True, False], n)
    for row in range(2 * n):
        one = int(rng.integers(2))
        values[row, 0] = directions[0]
        values[row, 1] = directions[1 + one] if positive[row] else directions[3]
        values[row, 2] = directions[4 + one]
        values[row, 3] = directions[6] * (2 if positive[row] else 1)
        values[row, 4] = directions[4 + (one if positive[row] else 1 - one)]
        values[row, 5] = directions[8]
    heads = np.array([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)])
    noise = 1e-3 * rng.normal(size=values.shape)
    values = (values + noise).astype(np.float32)
    return HeadOutputs(values, np.repeat(np.arange(n), 2), positive, heads)


def test_heads_and_edges_that_say_new_things_score_highest() -> None:
    outputs = made_outputs()
    edges = list_edges(outputs.heads[:, 0])
    options = dataclasses.replace(QUICK, fit_pairs=12, n_features=24, k=2)
    found = seed_scores(outputs, options, 0, edges)
    assert set(found) == set(METHODS)
    node = found["sae"][0]
    assert node.argmax() == 1
    assert node[[0, 2, 5]].max() == 0
    edge = found["clusters"][1]
    together = [(a, b) == (2, 4) for a, b in zip(*edges, strict=True)]
    assert edge[together][0] > 0  # each code alone is used on both sides
    # the difference of means sees the larger output of head 3, and nothing in heads 2 and 4
    difference = found["mean difference"][0]
    assert difference[3] > 100 * difference[0]


def test_scores_repeat_and_seeds_differ() -> None:
    outputs = made_outputs()
    edges = list_edges(outputs.heads[:, 0])
    one, again, other = (seed_scores(outputs, QUICK, seed, edges) for seed in (0, 0, 1))
    for method in METHODS:
        for a, b in zip(one[method], again[method], strict=True):
            assert np.array_equal(a, b)
    assert any(not np.array_equal(one[m][0], other[m][0]) for m in METHODS)


def test_every_edge_is_counted_once_by_pairs_of_codes() -> None:
    """Against pairs of codes in sets, with codes of k-means computed here."""
    outputs = made_outputs(12, seed=3)
    edges = list_edges(outputs.heads[:, 0])
    options = dataclasses.replace(QUICK, fit_pairs=12)
    order = np.random.default_rng((5, 11)).permutation(12)[:6]
    half = outputs.part(order)
    flat = half.values.reshape(-1, 8)
    coder = ClusterCoder(options.n_features, 5).fit(flat)
    codes = head_codes(coder, half.values)
    expected = [
        len(
            {(codes[r, i], codes[r, j]) for r in np.flatnonzero(half.positive)}
            - {(codes[r, i], codes[r, j]) for r in np.flatnonzero(~half.positive)}
        )
        for i, j in zip(*edges, strict=True)
    ]
    assert seed_scores(outputs, options, 5, edges)["clusters"][1].tolist() == expected


@functools.cache
def planted() -> tuple[Any, dict[str, tuple[int, int]], Task]:
    """ "… cat dog … cat" asks for "dog"; on negatives the word did not come before, and nothing is to be copied."""
    model, heads = planted_model()
    rng = np.random.default_rng(0)
    pairs: list[Pair] = []
    for _ in range(40):
        asked, answer, other, wrong = rng.permutation(FILLER[1:11])[:4]
        pairs.append(
            Pair(
                f"sees {asked} {answer} sings {asked}", f"sees {other} {answer} sings {asked}",
                (f" {answer}",), (f" {wrong}",),
            )
        )  # fmt: skip
    return model, heads, make_task(model, "induction", pairs)


@functools.cache
def found_in_planted() -> Any:
    model, _, task = planted()
    return discrete_circuit(model, task, QUICK)


def test_patching_shows_the_planted_heads() -> None:
    model, heads, task = planted()
    rows = patched_heads(model, task.part(range(10)), 0.05)
    inside = {(row["block"], row["head"]) for row in rows if row["in_circuit"]}
    assert inside == {heads["previous"], heads["induction"]}
    assert len(rows) == 12


def test_the_planted_circuit_is_found() -> None:
    """At the last token only the induction head tells: the previous-token head works where the answer stands."""
    _, heads, _ = planted()
    rows = {(row["block"], row["head"]): row for row in found_in_planted().heads}
    assert max(rows, key=lambda head: rows[head]["sae"]) == heads["induction"]
    means = {row["variant"]: row["value"] for row in found_in_planted().measurements}
    assert means["sae"] > 0.6


def test_at_all_tokens_both_planted_heads_are_found() -> None:
    model, heads, task = planted()
    options = dataclasses.replace(QUICK, positions="all", seeds=1)
    found = {
        (r["block"], r["head"]): r["sae"] for r in discrete_circuit(model, task, options).heads
    }
    idle = [score for head, score in found.items() if head not in heads.values()]
    assert found[heads["induction"]] > np.median(idle)


def test_rows_have_the_columns_of_the_tables() -> None:
    found = found_in_planted()
    assert {tuple(row) for row in found.scores} == {("task", "method", "seed", "level", "auc")}
    seen = {(row["method"], row["level"], row["seed"]) for row in found.scores}
    assert len(found.scores) == len(seen) == len(METHODS) * 2 * 3
    assert {tuple(row) for row in found.heads} == {
        (
            "task", "block", "head", "effect", "low", "high", "in_circuit",
            "sae", "random", "clusters", "mean_difference",
        )
    }  # fmt: skip
    assert [row["variant"] for row in found.measurements] == [
        method + more for more in ("", " edges") for method in METHODS
    ]
    for row in found.measurements:
        own = [
            r["auc"]
            for r in found.scores
            if r["method"] + {"node": "", "edge": " edges"}[r["level"]] == row["variant"]
        ]
        assert row["value"] == pytest.approx(np.mean(own))
        assert 0 <= row["low"] <= row["value"] + 1e-12 <= row["high"] + 2e-12 <= 1 + 2e-12
        assert (row["n"], row["dataset"], row["measure"]) == (3, "induction", "circuit_auc")


def test_what_cannot_be_judged_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, task = planted()
    with monkeypatch.context() as patched, pytest.raises(DoesNotApply, match="no circuit to be"):
        heads = [{"block": b, "head": h, "in_circuit": False} for b in range(3) for h in range(4)]
        patched.setattr("probes.sae.circuits.patched_heads", lambda *given: heads)
        discrete_circuit(model, task, QUICK)
    with pytest.raises(InputError, match="16 pairs: 10 for patching"):
        discrete_circuit(model, task.part(range(16)), QUICK)
    with pytest.raises(InputError, match="unknown positions 'first'"):
        head_outputs(model, task, "first")
    with pytest.raises(EstimatorInputError, match="seeds is 0"):
        discrete_circuit(model, task, dataclasses.replace(QUICK, seeds=0))


def test_head_outputs_are_those_of_capture() -> None:
    """At the last token, against the capture of the same texts."""
    from probes.capture import capture

    model, _, task = planted()
    outputs = head_outputs(model, task.part(range(5)))
    texts = [row.pair.clean for row in task.rows[:5]]
    store = capture(model, texts, sites=["z"], pooling="last")
    for head, (block, number) in enumerate(outputs.heads.tolist()):
        own = outputs.values[outputs.positive][np.argsort(outputs.pair[outputs.positive]), head]
        np.testing.assert_allclose(own, store["z", block][:, number], atol=1e-4)


def test_a_third_name_gives() -> None:
    pair = Pair("After Ann and Bob left, Ann gave a book to", "After Ann and Bob left, Bob gave a book to",
                (" Bob",), (" Ann",))  # fmt: skip
    made = third_gives(pair, np.random.default_rng(0))
    words = made.corrupted.split()
    assert made.clean == pair.clean
    assert words[5] not in ("Ann", "Bob")
    assert [w for i, w in enumerate(words) if i != 5] == [
        w for i, w in enumerate(pair.corrupted.split()) if i != 5
    ]


@pytest.mark.slow
@pytest.mark.models
def test_a_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2 on indirect objects: what codes say of its heads is more than chance says."""
    from probes.models import load_model

    if cache := os.environ.get("FATHOMETER_TEST_CACHE"):
        monkeypatch.setenv("FATHOMETER_CACHE", cache)
    model = load_model("smollm2", device="cpu")
    task = circuit_task(model, "ioi", 48)
    assert len(task) == 48
    # Eight pairs are too few for intervals of 270 heads at once, and more take too long here: effects as they are.
    rows = patched_heads(model, task.part(range(8)), 0.05)
    inside = np.array([abs(row["effect"]) >= 0.05 for row in rows])
    outputs = head_outputs(model, task.part(range(8, 48)))
    assert [(row["block"], row["head"]) for row in rows] == [tuple(h) for h in outputs.heads]
    edges = list_edges(outputs.heads[:, 0])
    found = [seed_scores(outputs, CircuitSettings(), seed, edges) for seed in range(3)]
    assert np.mean([roc_auc(scores["sae"][0], inside) for scores in found]) > 0.7
