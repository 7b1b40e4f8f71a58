"""Folds and parts: disjoint, complete, in proportion; what cannot be had is said."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from probes.datasets import components, fold_text, four_parts, group_folds
from probes.errors import DataError, InputError
from probes.types import Dataset, LabelledTexts, MinimalPairs, Retrieval, TextPairs, TokenLabels


def keys_of(dataset: Dataset, row: int) -> set[str]:
    """Everything that may not be on two sides, written without the code under test."""
    keys = set() if dataset.groups is None else {f"group {dataset.groups[row]}"}
    match dataset:
        case TextPairs():
            texts = [dataset.texts_a[row], dataset.texts_b[row]]
        case MinimalPairs():
            texts = [dataset.good[row], dataset.bad[row]]
        case Retrieval():
            texts = [dataset.queries[row]]
            texts += [
                dataset.documents[d] for d in np.flatnonzero(dataset.relevance[[row]].toarray()[0])
            ]
        case TokenLabels():
            texts = [" ".join(dataset.words[row])]
        case LabelledTexts():
            texts = [dataset.texts[row]]
    return keys | {f"text {' '.join(text.split()).casefold()}" for text in texts}


def brute_components(dataset: Dataset) -> list[frozenset[int]]:
    """Merge rows that share a key until nothing changes."""
    blocks: list[tuple[set[int], set[str]]] = []
    for row in range(len(dataset)):
        rows, keys = {row}, keys_of(dataset, row)
        rest = []
        for other_rows, other_keys in blocks:
            if keys & other_keys:
                rows |= other_rows
                keys |= other_keys
            else:
                rest.append((other_rows, other_keys))
        blocks = [*rest, (rows, keys)]
    return sorted((frozenset(rows) for rows, _ in blocks), key=min)


WORDS = st.sampled_from([f"w{i}" for i in range(30)] + ["W1", " w2 ", "w  3", "w 3"])


@st.composite
def any_dataset(draw: st.DrawFn) -> Dataset:
    n = draw(st.integers(8, 40))
    rows = st.lists(WORDS, min_size=n, max_size=n)
    groups = None
    if draw(st.booleans()):
        groups = np.array(draw(st.lists(st.integers(0, n), min_size=n, max_size=n)))
    kind = draw(st.sampled_from(["labelled", "pairs", "retrieval", "minimal"]))
    if kind == "labelled":
        labels = [0, 1, *draw(st.lists(st.integers(0, 3), min_size=n - 2, max_size=n - 2))]
        return LabelledTexts.make("d", draw(rows), labels, groups)
    if kind == "pairs":
        scores = [0.0, 1.0, *draw(st.lists(st.floats(0, 5), min_size=n - 2, max_size=n - 2))]
        return TextPairs("d", tuple(draw(rows)), tuple(draw(rows)), np.array(scores), groups)
    if kind == "minimal":
        return MinimalPairs("d", tuple(draw(rows)), tuple(draw(rows)), groups)
    picks = draw(
        st.lists(st.sets(st.integers(0, n - 1), min_size=1, max_size=2), min_size=n, max_size=n)
    )
    relevance = np.zeros((n, n))
    for q, documents in enumerate(picks):
        relevance[q, list(documents)] = 1
    return Retrieval(
        "d",
        tuple(draw(rows)),
        tuple(f"doc {i // 2}" for i in range(n)),
        sparse.csr_array(relevance),
        groups=groups,
    )


@given(any_dataset())
@settings(max_examples=150, deadline=None)
def test_components_equal_brute_force(dataset: Dataset) -> None:
    found = components(dataset)
    blocks = [frozenset(np.flatnonzero(found == c).tolist()) for c in range(int(found.max()) + 1)]
    assert blocks == brute_components(dataset)


@given(any_dataset(), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_parts_share_nothing_and_lose_nothing(dataset: Dataset, seed: int) -> None:
    blocks = brute_components(dataset)
    if len(blocks) < 4:
        with pytest.raises(DataError, match="at least 4"):
            four_parts(dataset, np.random.default_rng(seed))
        return
    parts = four_parts(dataset, np.random.default_rng(seed))
    index = [parts.fit, parts.tune, parts.calibrate, parts.test]
    assert sorted(np.concatenate(index).tolist()) == list(range(len(dataset)))
    assert all(len(part) for part in index)
    seen = [set().union(*(keys_of(dataset, row) for row in part.tolist())) for part in index]
    for i in range(4):
        assert index[i].tolist() == sorted(index[i].tolist())
        for j in range(i):
            assert not seen[i] & seen[j]
    again = four_parts(dataset, np.random.default_rng(seed))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(index, [again.fit, again.tune, again.calibrate, again.test], strict=True)
    )


def _can_be_divided(labels: np.ndarray, groups: np.ndarray, k: int) -> bool:
    """By trying every way: whether each class can be among the rows outside every fold, and no fold is empty."""
    names = sorted(set(groups.tolist()))
    assert k ** len(names) < 100_000, "too many ways to try: that is a finding"
    for way in itertools.product(range(k), repeat=len(names)):
        fold = dict(zip(names, way, strict=True))
        part = np.array([fold[g] for g in groups.tolist()])
        if set(way) == set(range(k)) and all(
            set(labels[part != f].tolist()) == set(labels.tolist()) for f in range(k)
        ):
            return True
    return False


def test_three_groups_of_two_classes_each_make_no_two_folds() -> None:
    """One group alone on the training side lacks a class, whichever it is."""
    labels, groups = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 2, 1, 2, 0, 1])
    assert not _can_be_divided(labels, groups, 2)
    with pytest.raises(DataError, match="cannot be divided into 2 folds"):
        group_folds(labels, groups, 2, np.random.default_rng(0))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=6, max_size=80),
    st.integers(2, 5),
    st.integers(0, 2**31),
)
@settings(max_examples=200, deadline=None)
def test_folds_keep_groups_together(rows: list[tuple[int, int]], k: int, seed: int) -> None:
    labels = np.array([label for label, _ in rows])
    groups = np.array([group for _, group in rows])
    short = [c for c in set(labels.tolist()) if len(set(groups[labels == c].tolist())) < k]
    if short:
        with pytest.raises(DataError, match=r"folds need at least"):
            group_folds(labels, groups, k, np.random.default_rng(seed))
        return
    try:
        folds = group_folds(labels, groups, k, np.random.default_rng(seed))
    except DataError:
        assert not _can_be_divided(labels, groups, k)
        return
    assert len(folds) == k
    tests = np.concatenate([test for _, test in folds])
    assert sorted(tests.tolist()) == list(range(len(rows)))
    for train, test in folds:
        assert len(test)
        assert not set(train.tolist()) & set(test.tolist())
        assert len(train) + len(test) == len(rows)
        assert not set(groups[train].tolist()) & set(groups[test].tolist())
        assert set(labels[train].tolist()) == set(labels.tolist())


def test_folds_are_stratified() -> None:
    labels = np.array([0] * 900 + [1] * 100)
    for _, test in group_folds(labels, None, 5, np.random.default_rng(0)):
        assert np.bincount(labels[test]).tolist() == [180, 20]
    groups = np.arange(1000) // 2
    for _, test in group_folds(labels, groups, 5, np.random.default_rng(0)):
        assert np.bincount(labels[test]).tolist() == [180, 20]


def test_folds_depend_on_the_generator_only() -> None:
    labels = np.arange(60) % 3
    one, two, other = (group_folds(labels, None, 3, np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(one, other, strict=True))


def test_folds_of_scores_keep_their_spread() -> None:
    scores = np.random.default_rng(0).random(200)
    for _, test in group_folds(scores, None, 4, np.random.default_rng(0)):
        assert len(test) == 50
        assert abs(scores[test].mean() - scores.mean()) < 0.05


def test_folds_of_string_labels_and_groups() -> None:
    labels = ["a", "b"] * 10
    groups = [f"g{i // 2}" for i in range(20)]
    assert len(group_folds(labels, groups, 5, np.random.default_rng(0))) == 5


@pytest.mark.parametrize(
    ("labels", "groups", "k", "error", "says"),
    [
        ([0, 0, 0, 1], None, 2, DataError, "class 1 is in 1 rows"),
        (["x", "x", "y", "y"], [0, 1, 2, 2], 2, DataError, "class 'y' is in 1 groups"),
        ([0, 1, 0, 1], None, 1, InputError, "at least 2"),
        ([0, 1, 0, 1], [0, 1], 2, InputError, "4 labels but 2 groups"),
        ([0.5, 1.5, 2.5], [0, 0, 0], 2, DataError, "1 groups do not make 2 folds"),
    ],
)
def test_folds_that_cannot_be_had(
    labels: list[Any], groups: list[Any] | None, k: int, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        group_folds(labels, groups, k, np.random.default_rng(0))


def pairs_with_hub(n: int, hub: int) -> TextPairs:
    """n pairs; the first `hub` share a sentence."""
    first = ["hub" if i < hub else f"a{i}" for i in range(n)]
    return TextPairs("p", tuple(first), tuple(f"b{i}" for i in range(n)), np.arange(n) % 6 / 5)


def test_parts_are_near_the_shares_and_the_scores() -> None:
    data = pairs_with_hub(1000, 100)
    parts = four_parts(data, np.random.default_rng(0))
    assert parts.sizes() == (400, 200, 200, 200)
    assert parts.warnings == ()
    for part in (parts.fit, parts.tune, parts.calibrate, parts.test):
        assert abs(data.scores[part].mean() - 0.5) < 0.05


def test_a_giant_component_goes_to_fit_and_is_said() -> None:
    parts = four_parts(pairs_with_hub(1000, 700), np.random.default_rng(0))
    assert parts.sizes() == (700, 100, 100, 100)
    assert "700 of 1000 rows (70%) hang together" in parts.warnings[0]
    assert any("the fit part holds 70%" in warning for warning in parts.warnings)


def test_small_parts_are_said() -> None:
    parts = four_parts(pairs_with_hub(60, 1), np.random.default_rng(0))
    assert sum("only 12 rows" in warning for warning in parts.warnings) == 3


def test_one_component_is_refused() -> None:
    with pytest.raises(DataError, match="hang together in 1 components"):
        four_parts(pairs_with_hub(100, 100), np.random.default_rng(0))


def test_documents_can_be_shared_on_request() -> None:
    relevance = sparse.csr_array(np.ones((20, 3)))
    data = Retrieval("r", tuple(f"q{i}" for i in range(20)), ("x", "y", "z"), relevance)
    with pytest.raises(DataError, match="tie_documents=False"):
        four_parts(data, np.random.default_rng(0))
    parts = four_parts(data, np.random.default_rng(0), tie_documents=False)
    assert parts.sizes() == (8, 4, 4, 4)
    assert "share relevant documents" in parts.warnings[0]


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.0, 0.0), (0.5, 0.5, 0.5, 0.5), (1.0,)])
def test_bad_shares(shares: Any) -> None:
    with pytest.raises(InputError, match="sum to 1"):
        four_parts(pairs_with_hub(100, 1), np.random.default_rng(0), shares)


def test_other_shares() -> None:
    parts = four_parts(pairs_with_hub(1000, 1), np.random.default_rng(0), (0.1, 0.2, 0.3, 0.4))
    assert np.allclose(parts.sizes(), (100, 200, 300, 400), atol=5)


def test_many_classes() -> None:
    """10,000 classes of two rows each: every part gets its share, no class is lost."""
    labels = np.arange(20_000) % 10_000
    data = LabelledTexts.make("d", [f"t{i}" for i in range(20_000)], labels)
    parts = four_parts(data, np.random.default_rng(0))
    assert np.allclose(np.array(parts.sizes()) / 20_000, (0.4, 0.2, 0.2, 0.2), atol=0.01)
    assert (
        Counter(
            np.concatenate([parts.fit, parts.tune, parts.calibrate, parts.test]).tolist()
        ).most_common(1)[0][1]
        == 1
    )


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("The  cat\n", "the CAT", True),
        ("Stra\u00dfe", "STRASSE", True),
        ("the cat", "thecat", False),
        ("the cat", "the cat.", False),
    ],
)
def test_texts_are_equal_but_for_case_and_white_space(one: str, other: str, equal: bool) -> None:
    assert (fold_text(one) == fold_text(other)) is equal
    tied = components(LabelledTexts("t", (one, other, "x"), np.array([0, 1, 0]), ("a", "b")))
    assert bool(tied[0] == tied[1]) is equal
