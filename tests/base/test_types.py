"""Datasets are validated when they are made: every mistake names its row."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from probes.errors import DataError
from probes.types import LabelledTexts, MinimalPairs, Retrieval, TextPairs, TokenLabels

TEXTS = ["one", "two", "three"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", ""], "text 1 is empty"),
        (["a", " \n\t"], "text 1 is empty"),
        (["a", None], "text 1 is NoneType"),
        (["a", "\ud800"], "lone surrogate at character 0"),
        ([], "no texts came"),
    ],
)
def test_bad_texts(texts: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelledTexts.make("x", texts, [0, 1][: len(texts)])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 0], "all 3 rows have the label '0'"),
        ([0, 1], "labels has shape"),
        ([0, "a", 1], "mixed types"),
        ([0, None, 1], "label of row 1 is missing"),
        ([0.0, float("nan"), 1.0], "label of row 1 is missing"),
        ([0.0, 0.5, 1.0], "label of row 1 is 0.5"),
        (["a", "", "b"], "label of row 1 is missing"),
    ],
)
def test_bad_labels(labels: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelledTexts.make("x", TEXTS, labels)


def test_labels_become_codes_in_sorted_order() -> None:
    data = LabelledTexts.make("x", TEXTS, ["b", "a", "b"])
    assert data.labels.tolist() == [1, 0, 1]
    assert data.label_names == ("a", "b")
    assert LabelledTexts.make("x", TEXTS, [1.0, 0.0, 1.0]).label_names == ("0", "1")


def test_ten_thousand_classes_are_fine() -> None:
    data = LabelledTexts.make("x", [f"t{i}" for i in range(10_000)], list(range(10_000)))
    assert len(data.label_names) == 10_000


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1, 2], "scores has shape"),
        ([1, np.nan, 2], "score of row 1"),
        ([1, 1, 1], "all scores are equal"),
    ],
)
def test_bad_scores(scores: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TextPairs("x", tuple(TEXTS), tuple(TEXTS), np.array(scores, dtype=float))


def test_retrieval_needs_a_relevant_document_for_every_query() -> None:
    good = sparse.csr_array(np.array([[1, 0], [0, 2]]))
    assert Retrieval("x", ("q", "r"), ("d", "e"), good).document_ids == ("0", "1")
    for bad, message in (
        (np.array([[1, 0], [0, 0]]), "query 1 has no relevant"),
        (np.array([[1, -1], [0, 1]]), "not negative"),
        (np.array([[1, 0, 0]]), "relevance has shape"),
    ):
        with pytest.raises(DataError, match=message):
            Retrieval("x", ("q", "r"), ("d", "e"), sparse.csr_array(bad))


def test_lengths_must_agree() -> None:
    with pytest.raises(DataError, match="2 good texts but 1 bad"):
        MinimalPairs("x", ("a", "b"), ("c",))
    with pytest.raises(DataError, match="text 0 has 2 words and 1 labels"):
        TokenLabels("x", (("a", "b"),), (("N",),))


def test_the_hash_sees_texts_labels_and_groups() -> None:
    def make(**changes: object) -> str:
        base: dict = {"texts": TEXTS, "labels": [0, 1, 0], "groups": [1, 1, 2]}
        return LabelledTexts.make("x", **(base | changes)).content_hash()  # type: ignore[arg-type]

    assert make() == make()
    different = {
        make(),
        make(texts=["one", "two", "four"]),
        make(labels=[1, 1, 0]),
        make(groups=[1, 2, 2]),
    }
    assert len(different) == 4
