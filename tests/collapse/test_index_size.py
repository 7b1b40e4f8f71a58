"""Expected recall in a random part of the index, against every part written out."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import sparse

from probes.collapse import index_size
from probes.collapse.index_size import (
    Search,
    expected_recall,
    index_rows,
    outscoring,
    subset_sizes,
)
from probes.collapse.parts import build_search
from probes.errors import InputError
from probes.exits.resample import Resamples
from probes.exits.retrieval import RetrievalTask


def planted(
    seed: int = 0, queries: int = 5, pool: int = 9, d: int = 6
) -> tuple[np.ndarray, Search]:
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(queries + pool, d)).astype(np.float32)
    relevance = np.zeros((queries, pool))
    for row in range(queries):
        relevance[row, rng.choice(pool, size=1 + row % 2, replace=False)] = 1
    search = Search(
        np.arange(queries),
        queries + np.arange(pool),
        sparse.csr_array(relevance),
        np.arange(queries),
    )
    return states, search


def cosines(states: np.ndarray, search: Search, m: int) -> np.ndarray:
    unit = states[:, :m] / np.linalg.norm(states[:, :m], axis=1, keepdims=True)
    return unit[search.queries] @ unit[search.pool].T


def test_expected_recall_is_the_mean_over_all_parts_of_the_pool() -> None:
    states, search = planted()
    dims = [2, 6]
    nearer = outscoring(states, search, dims)
    relevance = search.relevance.toarray() > 0
    for step, m in enumerate(dims):
        scores = cosines(states, search, m)
        for subset, k in ((1, 1), (3, 1), (4, 2), (7, 3)):
            found = expected_recall(nearer[step], search.distractors, subset, k)
            for query in range(5):
                best = scores[query, relevance[query]].max()
                others = np.flatnonzero(~relevance[query])
                hits = [
                    (scores[query, list(part)] >= best).sum() < k
                    for part in combinations(others, subset)
                ]
                assert found[query] == pytest.approx(np.mean(hits), abs=1e-12)


@pytest.mark.parametrize("cells", [1, 20, 10**6])
def test_blocks_do_not_matter(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    states, search = planted(1, queries=11, pool=30)
    whole = outscoring(states, search, [3, 6])
    monkeypatch.setattr(index_size, "BLOCK_CELLS", cells)
    np.testing.assert_array_equal(outscoring(states, search, [3, 6]), whole)


def test_ties_count_against_us() -> None:
    states, search = planted(2)
    nearer = outscoring(np.ones_like(states), search, [6])  # a space in which all texts are one
    np.testing.assert_array_equal(nearer[0], search.distractors)


def test_recall_falls_with_the_index_and_rises_with_k() -> None:
    states, search = planted(3, queries=40, pool=200)
    rows, _ = index_rows(
        states, search, [3, 6], subset_sizes(100), Resamples.make(40, 200, 0, search.clusters)
    )
    assert len(rows) == 2 * 2 * 3
    for m in (3, 6):
        for k in (1, 10):
            own = [row["recall"] for row in rows if row["dim"] == m and row["k"] == k]
            assert own == sorted(own, reverse=True)
            assert own[0] > own[-1]
    assert all(0 <= row["low"] <= row["recall"] <= row["high"] <= 1 for row in rows)
    at = {(row["dim"], row["distractors"], row["k"]): row["recall"] for row in rows}
    assert all(at[m, size, 10] >= at[m, size, 1] for m in (3, 6) for size in (10, 30, 100))


def test_a_width_breaks_where_its_paired_loss_is_first_shown_to_matter() -> None:
    """Narrow embeddings of queries near their documents: against every resample written out."""
    rng = np.random.default_rng(4)
    own = rng.normal(size=(60, 8))
    noise = rng.normal(size=(400, 8))
    queries = own + 0.5 * rng.normal(size=own.shape)
    states = np.concatenate([queries, own, noise]).astype(np.float32)
    search = Search(
        np.arange(60), np.arange(60, 520), sparse.csr_array(np.eye(60, 460)), np.arange(60) // 2
    )
    resamples = Resamples.make(60, 300, 0, search.clusters)
    dims, sizes = [2, 7, 8], [1, 10, 100, 459]
    _, breaks = index_rows(states, search, dims, sizes, resamples)
    assert {(row["dim"], row["k"]) for row in breaks} == {(m, k) for m in (2, 7) for k in (1, 10)}
    nearer = outscoring(states, search, dims)
    for row in breaks:
        found = []
        for size in sizes:
            chances = expected_recall(nearer, search.distractors, size, row["k"])
            gap = chances[dims.index(row["dim"])] - chances[2]
            means = [np.repeat(gap, weights).mean() for weights in resamples.counts.T]
            found.append((size, gap.mean(), *np.quantile(means, [0.025, 0.975])))
        below = [one for one in found if one[3] < -0.01]
        size, *numbers = below[0] if below else found[-1]
        assert row["distractors"] == (size if below else None)
        assert [row["difference"], row["low"], row["high"]] == pytest.approx(numbers, abs=1e-12)
    at = {(row["dim"], row["k"]): row["distractors"] for row in breaks}
    assert at[2, 1] < at[2, 10]  # few results break before many
    assert at[7, 10] is None
    whole, none = index_rows(states, search, [8], sizes, resamples)
    assert (len(whole), none) == (8, [])


def test_large_pools_have_finite_chances() -> None:
    nearer = np.array([0, 1, 50_000, 99_990])
    found = expected_recall(nearer, np.full(4, 100_000), 99_000, 10)
    assert np.isfinite(found).all()
    assert found[0] == 1
    assert found[1] == 1
    assert found[2] < 1e-9


@pytest.mark.parametrize(("subset", "k"), [(0, 1), (11, 1), (3, 0)])
def test_what_cannot_be_drawn_is_refused(subset: int, k: int) -> None:
    with pytest.raises(InputError, match="are allowed"):
        expected_recall(np.array([1]), np.array([10]), subset, k)
    with pytest.raises(InputError, match="at least one document"):
        subset_sizes(0)


def test_the_pool_holds_each_text_once_and_every_relevant_one() -> None:
    relevance = sparse.csr_array(np.array([[0, 1.0, 0, 0], [0, 0, 0, 2.0]]))
    task = RetrievalTask("t", np.array([0, 1]), np.array([2, 3, 2, 4]), relevance, np.array([0, 1]))
    texts = ("q0", "q1", "a", "b", "c")
    search, every = build_search(task, texts, ["x", "y"], most=4)
    assert [every[row] for row in search.pool] == ["a", "b", "c", "x"]
    assert [every[search.pool[column]] for column in search.relevance.indices] == ["b", "c"]
    assert search.distractors.tolist() == [3, 3]
    small, _ = build_search(task, texts, ["x", "y"], most=2)
    assert [every[row] for row in small.pool] == ["b", "c"]
