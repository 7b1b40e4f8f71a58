"""Ranks and measures against double loops and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import ndcg_score

from probes.exits import retrieval
from probes.exits.retrieval import RetrievalTask, ranking_measures, relevant_ranks


def brute_ranks(states, queries, documents, relevance, m):
    """Rank of every relevant document by sorting: cosine down, then relevance up, then index up."""
    cut = states[:, :m]
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    unit = np.divide(cut, norms, out=np.zeros_like(cut), where=norms > 0)
    dense = relevance.toarray()
    found = []
    for q in range(len(queries)):
        cosine = [round(float(unit[queries[q]] @ unit[d]), 12) for d in documents]
        order = sorted(range(len(documents)), key=lambda j: (-cosine[j], dense[q, j], j))
        for j in relevance.indices[relevance.indptr[q] : relevance.indptr[q + 1]]:
            found.append(order.index(int(j)) + 1)
    return np.array(found)


@pytest.mark.parametrize("block", [1, 50, 2**22])
def test_ranks_equal_sorting_for_every_block_size(rng, monkeypatch, retrieval_task, block):
    monkeypatch.setattr(retrieval, "BLOCK_CELLS", block)
    task, states = retrieval_task(17, 30, rng)
    dims = [2, 8, 16]
    found = relevant_ranks(states, task.queries, task.documents, task.relevance, dims)
    for step, m in enumerate(dims):
        expected = brute_ranks(states, task.queries, task.documents, task.relevance, m)
        np.testing.assert_array_equal(found[step], expected)


def test_ranks_with_many_relevant_documents_and_ties(rng):
    """More relevant documents than are counted one by one; coordinates of −1, 0, 1 make many exact ties."""
    states = rng.integers(-1, 2, size=(60, 2)).astype(float)
    relevance = rng.integers(0, 3, size=(10, 50)) * (rng.uniform(size=(10, 50)) < 0.5)
    relevance[:, 0] = 1
    relevance = sparse.csr_array(relevance.astype(float))
    queries, documents = np.arange(10), np.arange(10, 60)
    found = relevant_ranks(states, queries, documents, relevance, [1, 2])
    for step, m in enumerate([1, 2]):
        np.testing.assert_array_equal(
            found[step], brute_ranks(states, queries, documents, relevance, m)
        )


def test_equal_documents_share_one_row_and_tie(rng):
    states = np.concatenate([rng.normal(size=(4, 8)), rng.normal(size=(3, 8))])
    documents = np.array([4, 5, 4, 6, 5, 4])
    relevance = sparse.csr_array(np.array([[0, 0, 1, 0, 1, 0]] * 4, dtype=float))
    found = relevant_ranks(states, np.arange(4), documents, relevance, [8])
    np.testing.assert_array_equal(
        found[0], brute_ranks(states, np.arange(4), documents, relevance, 8)
    )


def test_a_collapsed_space_scores_lowest():
    """All documents equal: the one relevant document comes last, wherever it stands."""
    states = np.ones((21, 4))
    for place in (0, 19):
        row = np.zeros((1, 20))
        row[0, place] = 1
        found = relevant_ranks(states, np.array([20]), np.arange(20), sparse.csr_array(row), [4])
        assert found.tolist() == [[20]]


def test_ndcg_equals_sklearn_without_ties(rng):
    n, m = 12, 40
    states = rng.normal(size=(n + m, 10))
    dense = rng.integers(0, 4, size=(n, m)) * (rng.uniform(size=(n, m)) < 0.4).astype(float)
    dense[:, 3] = 1.0
    relevance = sparse.csr_array(dense)
    found = relevant_ranks(states, np.arange(n), n + np.arange(m), relevance, [10])
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    ours = ranking_measures(found, relevance)["ndcg_at_10"][0]
    for q in range(n):
        assert ours[q] == pytest.approx(
            ndcg_score(dense[q : q + 1], unit[q : q + 1] @ unit[n:].T, k=10)
        )


def test_measures_by_hand():
    relevance = sparse.csr_array(np.array([[0, 2.0, 1.0, 0], [1.0, 0, 0, 0]]))
    measures = ranking_measures(
        np.array([[1, 11, 4]]), relevance
    )  # ranks of (q0,d1), (q0,d2), (q1,d0)
    assert measures["recall_at_1"].tolist() == [[0.5, 0.0]]
    assert measures["recall_at_10"].tolist() == [[0.5, 1.0]]
    assert measures["mrr"].tolist() == [[1.0, 0.25]]
    assert measures["ndcg_at_10"][0, 0] == pytest.approx(2 / (2 + 1 / np.log2(3)))
    assert measures["ndcg_at_10"][0, 1] == pytest.approx(1 / np.log2(5))


def test_chance_is_the_mean_over_random_orders(rng):
    dense = np.zeros((2, 15))
    dense[0, [1, 4]] = (2.0, 1.0)
    dense[1, 7] = 1.0
    relevance = sparse.csr_array(dense)
    task = RetrievalTask("r", np.arange(2), np.arange(2, 17), relevance, np.arange(2))
    drawn = []
    for _ in range(4000):
        places = np.concatenate([rng.permutation(15)[:2], rng.permutation(15)[:1]]) + 1
        drawn.append(ranking_measures(places[None, :], relevance)["ndcg_at_10"][0])
    np.testing.assert_allclose(
        task.chance(np.arange(2), np.arange(0)), np.mean(drawn, axis=0), atol=0.015
    )


def test_part_searches_all_documents(rng, retrieval_task):
    task, states = retrieval_task(10, 25, rng)
    rows = np.array([2, 5])
    whole = task.score(states, [16], np.arange(0))["mrr"][:, rows]
    part = task.part(rows)
    np.testing.assert_array_equal(part.score(states, [16], np.arange(0))["mrr"], whole)
    assert len(part.documents) == 25
