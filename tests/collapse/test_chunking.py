"""Chunks of long documents: which characters they hold, and where the best of them ranks its document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from probes.collapse.chunking import best_chunk_ranks, chunk_texts, chunking_rows, long_queries
from probes.errors import DoesNotApply
from probes.exits.resample import Resamples


def test_chunks_are_whole_sentences_of_bounded_length(tiny: Callable[[str], Any]) -> None:
    text = "The cat runs. A dog sleeps near the tree. " + "The bird sings and sings. " * 4
    made = chunk_texts(tiny("bert"), [text, "one cat"], chunk=10)
    pieces = made.pieces
    assert made.sizes.tolist() == [len(pieces) - 1, 1]
    assert made.sizes[0] >= 3
    assert " ".join(pieces[:-1]).split() == text.split()
    for piece in pieces[:-1]:
        words = piece.replace(".", " . ").split()
        assert len(words) <= 12
        assert piece.endswith(".")


def test_what_the_model_cannot_read_is_in_no_chunk(tiny: Callable[[str], Any]) -> None:
    text = "The cat runs near the house. " * 40
    made = chunk_texts(tiny("bert"), [text], max_length=32)
    assert 0 < len(made.texts[0]) < len(text)
    assert made.spans[0][-1][1] <= len(made.texts[0])
    words = made.texts[0].replace(".", " . ").split()
    assert len(words) == 30  # 32 less [CLS] and [SEP]


def test_a_prompt_takes_room_but_is_in_no_chunk(tiny: Callable[[str], Any]) -> None:
    text = "the cat runs near the house " * 40
    plain = chunk_texts(tiny("bert"), [text], max_length=32)
    asked = chunk_texts(tiny("bert"), [text], max_length=32, prompt="one two three ")
    assert text.startswith(asked.texts[0])
    assert len(asked.texts[0].split()) == len(plain.texts[0].split()) - 3


def test_ranks_by_the_best_chunk_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    queries, sizes = rng.normal(size=(7, 5)), rng.integers(1, 4, 12)
    chunks = rng.normal(size=(int(sizes.sum()), 5))
    relevance = sparse.csr_array((rng.random((7, 12)) < 0.2) + np.eye(7, 12))
    found = best_chunk_ranks(queries, chunks, sizes, relevance)
    owner = np.repeat(np.arange(12), sizes)
    cells = relevance.tocoo()
    for rank, query, document in zip(found, cells.row, cells.col, strict=True):
        unit = chunks / np.linalg.norm(chunks, axis=1, keepdims=True)
        near = unit @ queries[query]
        scores = [near[owner == one].max() for one in range(12)]
        assert rank == 1 + sum(score > scores[document] for score in scores)


def test_a_planted_gain_of_late_chunks_is_found_with_its_sign() -> None:
    rng = np.random.default_rng(1)
    n, d = 60, 16
    truth = rng.normal(size=(n, d))
    sizes = np.full(n, 2)
    good = np.repeat(truth, 2, axis=0) + 0.3 * rng.normal(size=(2 * n, d))
    bad = np.repeat(truth, 2, axis=0) + 3.0 * rng.normal(size=(2 * n, d))
    relevance = sparse.csr_array(np.eye(n))
    rows = chunking_rows(
        truth, {"late": (good, sizes), "first": (bad, sizes), "whole": (truth, np.ones(n, int))},
        relevance, Resamples.make(n, 300, 0),
    )  # fmt: skip
    late, first, whole = rows
    assert [row["method"] for row in rows] == ["late", "first", "whole"]
    assert late["difference_low"] > 0.2
    assert late["difference"] == pytest.approx(late["value"] - first["value"])
    assert first["difference"] is None
    assert whole["difference"] is None
    assert whole["value"] == 1


def test_short_documents_are_told_so() -> None:
    relevance = sparse.csr_array(np.eye(40))
    sizes = np.ones(40, dtype=int)
    with pytest.raises(DoesNotApply, match="no long documents"):
        long_queries(sizes, relevance)
    sizes[5:30] = 2
    assert long_queries(sizes, relevance).tolist() == list(range(5, 30))
