"""Pairs of completions out of true and false statements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.datasets import load_dataset
from probes.erasure import CompletionPairs, statement_pairs
from probes.errors import DataError
from probes.types import LabelledTexts


def data(
    texts: list[str], labels: list[object], groups: list[object] | None = None
) -> LabelledTexts:
    return LabelledTexts.make("facts", texts, labels, groups)


def test_the_built_in_cities_split_before_the_country() -> None:
    cities = load_dataset("cities")
    pairs = statement_pairs(cities, limit=50, seed=1)
    assert len(pairs) == 50
    texts = dict(zip(cities.texts, cities.labels.tolist(), strict=True))
    true = cities.label_names.index(
        next(n for n in cities.label_names if n in ("1", "true", "True"))
    )
    for prompt, right, wrong in zip(pairs.prompts, pairs.true, pairs.false, strict=True):
        assert texts[prompt + right] == true
        assert texts[prompt + wrong] != true
        assert right[0] == wrong[0] == " "
        assert not prompt.endswith(" ")
    assert statement_pairs(cities, limit=50, seed=1).prompts == pairs.prompts
    assert statement_pairs(cities, limit=50, seed=2).prompts != pairs.prompts


def test_words_are_never_cut() -> None:
    pairs = statement_pairs(
        data(["Ten is more than six.", "Ten is more than sixty."], [True, False], ["ten", "ten"])
    )
    assert (pairs.prompts, pairs.true, pairs.false) == (
        ("Ten is more than",),
        (" six.",),
        (" sixty.",),
    )


def test_each_text_is_used_once_and_groups_do_not_mix() -> None:
    texts = ["a is b", "a is c", "a is d", "a was e", "x is y", "x is z", "q is r"]
    pairs = statement_pairs(data(texts, [1, 0, 0, 1, 1, 0, 1], [*"aaaa", *"xx", "q"]))
    assert pairs.prompts == ("a is", "a", "x is")
    assert pairs.false == (" c", " is d", " z")
    assert pairs.groups is not None
    assert pairs.groups.tolist() == ["a", "a", "x"]
    assert pairs.take([2]).true == (" y",)


@pytest.mark.parametrize(
    ("texts", "labels", "groups", "words"),
    [
        (["a b", "a c"], [1, 0], None, "no groups"),
        (["a b", "a c"], ["red", "blue"], [0, 0], "true_label must name"),
        (["a b", "c b"], [1, 0], [0, 0], "begin alike"),
        (["a b", "a"], [1, 0], [0, 0], "begin alike"),
        (["a b", "a c"], [1, 0], [0, 1], "begin alike"),
    ],
)
def test_what_holds_no_pair_is_refused(
    texts: list[str], labels: list[object], groups: list[object] | None, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        statement_pairs(data(texts, labels, groups))


def test_the_true_class_can_be_named() -> None:
    texts = data(["a b", "a c"], ["red", "blue"], [0, 0])
    assert statement_pairs(texts, true_label="red").true == (" b",)
    assert statement_pairs(texts, true_label="Blue").true == (" c",)


def test_lengths_must_agree() -> None:
    with pytest.raises(DataError, match="different lengths"):
        CompletionPairs(("a",), (" b", " c"), (" d",))


WORDS = st.lists(st.text("ab ", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=4)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_prompt_and_completions_give_back_the_texts(true: list[str], false: list[str]) -> None:
    right, wrong = " ".join(["go", *true]), " ".join(["go", *false])
    try:
        pairs = statement_pairs(data([right, wrong], [1, 0], [0, 0]))
    except DataError:
        return
    assert pairs.prompts[0] + pairs.true[0] == right
    assert pairs.prompts[0] + pairs.false[0] == wrong
    assert not np.array_equal(pairs.true, pairs.false)
