"""Smaller datasets keep what belongs together."""

from __future__ import annotations

import numpy as np
import pytest

from probes.datasets import limit_dataset, load_dataset
from probes.types import LabelledTexts, Retrieval


@pytest.mark.parametrize("name", ["cities", "docstrings"])
def test_a_limit_keeps_order_and_is_seeded(name: str) -> None:
    data = load_dataset(name)
    small = limit_dataset(data, 100, np.random.default_rng(0))
    again = limit_dataset(data, 100, np.random.default_rng(0))
    assert len(small) == 100
    assert small.content_hash() == again.content_hash()
    places = [data.all_texts().index(text) for text in small.all_texts()[:100]]
    assert places == sorted(places)
    assert limit_dataset(data, len(data), np.random.default_rng(0)) is data
    assert limit_dataset(data, None, np.random.default_rng(0)) is data


def test_labels_keep_their_codes() -> None:
    data = LabelledTexts.make("x", [f"t{i}" for i in range(60)], [i % 12 for i in range(60)])
    small = limit_dataset(data, 30, np.random.default_rng(1))
    assert isinstance(small, LabelledTexts)
    for text, code in zip(small.texts, small.labels, strict=True):
        assert code == data.labels[data.texts.index(text)]
        assert (
            small.label_names[code] == str(int(text[1:]) % 12) or code == data.labels[int(text[1:])]
        )


def test_every_query_keeps_its_documents_and_distractors_thin_out() -> None:
    data = load_dataset("docstrings")
    assert isinstance(data, Retrieval)
    small = limit_dataset(data, 200, np.random.default_rng(0))
    assert isinstance(small, Retrieval)
    for row, query in enumerate(small.queries):
        before = data.relevance[[data.queries.index(query)]].indices
        after = small.relevance[[row]].indices
        assert {data.documents[i] for i in before} == {small.documents[i] for i in after}
    assert len(small.documents) < 0.3 * len(data.documents)


def test_small_groups_stay_whole_and_large_ones_do_not() -> None:
    texts = [f"text {i}" for i in range(200)]
    labels = [i % 2 for i in range(200)]
    pairs = LabelledTexts.make("pairs", texts, labels, [i // 2 for i in range(200)])
    small = limit_dataset(pairs, 51, np.random.default_rng(0))
    assert len(small) == 50
    assert small.groups is not None
    assert set(np.unique(small.groups, return_counts=True)[1].tolist()) == {2}
    blocks = LabelledTexts.make("blocks", texts, labels, [i // 40 for i in range(200)])
    drawn = limit_dataset(blocks, 50, np.random.default_rng(0))
    assert len(drawn) == 50
    assert drawn.groups is not None
    assert len(set(drawn.groups.tolist())) == 5
