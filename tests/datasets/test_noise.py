"""Noise keeps what it promises to keep, changes what it must, and follows its seed."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.datasets import NOISES, corrupt, corrupt_dataset, load_dataset
from probes.errors import DataError, InputError
from probes.types import LabelledNumbers, LabelledTexts, MinimalPairs, TextPairs, TokenLabels

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t.strip())
LISTS = st.lists(TEXTS, min_size=1, max_size=6)
SEEDS = st.integers(0, 2**31)
STRENGTHS = st.floats(0, 1)
KINDS = st.sampled_from(sorted(NOISES))
PROPERTY = settings(max_examples=150, deadline=None)


@given(LISTS, KINDS, SEEDS, STRENGTHS)
@PROPERTY
def test_no_text_becomes_empty_and_all_can_be_encoded(
    texts: list[str], kind: str, seed: int, strength: float
) -> None:
    noisy = corrupt(texts, kind, seed, strength)
    assert len(noisy) == len(texts)
    assert all(text.strip() for text in noisy)
    assert all(text.encode("utf-8") for text in noisy)
    assert noisy == corrupt(texts, kind, seed, strength)


@given(LISTS, KINDS, SEEDS)
@PROPERTY
def test_a_text_is_corrupted_alike_in_any_company(texts: list[str], kind: str, seed: int) -> None:
    alone = [corrupt([text], kind, seed)[0] for text in texts]
    assert list(corrupt(texts, kind, seed)) == alone
    assert list(corrupt(texts[::-1], kind, seed)) == alone[::-1]


@given(LISTS, KINDS, SEEDS)
@PROPERTY
def test_no_strength_no_noise(texts: list[str], kind: str, seed: int) -> None:
    assert corrupt(texts, kind, seed, 0) == tuple(texts)


@given(TEXTS, SEEDS, STRENGTHS)
@PROPERTY
def test_prepending_keeps_the_text_whole(text: str, seed: int, strength: float) -> None:
    (noisy,) = corrupt([text], "prepend", seed, strength)
    assert noisy.endswith(text)
    front = noisy.removesuffix(text)
    assert re.fullmatch(r"([A-Za-z0-9]+ )?", front)
    assert len(front) == round(20 * strength) + bool(round(20 * strength))


@given(TEXTS, SEEDS, STRENGTHS)
@PROPERTY
def test_swaps_stay_within_words_and_move_by_one(text: str, seed: int, strength: float) -> None:
    (noisy,) = corrupt([text], "swap", seed, strength)
    assert [c.isspace() for c in noisy] == [c.isspace() for c in text]
    assert [Counter(word) for word in noisy.split()] == [Counter(word) for word in text.split()]
    i = 0
    while i < len(text):  # each place holds its own character, or two neighbours hold each other's
        if noisy[i] == text[i]:
            i += 1
        else:
            assert noisy[i : i + 2] == text[i + 1] + text[i]
            i += 2


@given(TEXTS, SEEDS, STRENGTHS.filter(bool))
@PROPERTY
def test_shuffling_keeps_words_and_white_space_and_moves_some(
    text: str, seed: int, strength: float
) -> None:
    (noisy,) = corrupt([text], "shuffle", seed, strength)
    words = text.split()
    assert Counter(noisy.split()) == Counter(words)
    assert re.findall(r"\s+", noisy) == re.findall(r"\s+", text)
    if len(set(words)) == len(words) > 1:
        assert noisy != text
        moved = sum(a != b for a, b in zip(noisy.split(), words, strict=True))
        assert moved <= max(2, round(strength * len(words)))


def test_strength_is_the_share_of_pairs_that_swap() -> None:
    text = "abcdefghij" * 400
    changed = [
        sum(a != b for a, b in zip(corrupt([text], "swap", 0, s)[0], text, strict=True)) / len(text)
        for s in (0.05, 0.1, 0.4)
    ]
    # A swap changes two characters and cannot begin inside another: rate 2s / (1 + s).
    assert np.allclose(changed, [2 * s / (1 + s) for s in (0.05, 0.1, 0.4)], atol=0.02)


@pytest.mark.parametrize("kind", sorted(NOISES))
def test_another_seed_other_noise(kind: str) -> None:
    texts = ["the quick brown fox jumps over the lazy dog near the river"] * 2
    first, second = (corrupt(texts, kind, seed) for seed in (0, 1))
    assert first != second
    assert first[0] == first[1]
    assert first[0] != texts[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: corrupt(["a"], "swop"), "unknown noise 'swop': did you mean 'swap'"),
        (lambda: corrupt(["a"], "swap", strength=1.5), "noise strength 1.5: a number from 0 to 1"),
        (lambda: corrupt(["a"], "swap", strength=float("nan")), "noise strength nan"),
        (lambda: corrupt(["a"], "swap", keys=["a", "b"]), "1 texts but 2 keys"),
        (lambda: corrupt_dataset(load_dataset("years"), "swap"), "'years' holds spans"),
        (
            lambda: corrupt_dataset(TokenLabels("t", (("a", "b"),), (("N", "V"),)), "swap"),
            "'t' holds token-labels data",
        ),
        (lambda: corrupt_dataset(load_dataset("docstrings"), "swap"), "holds retrieval data"),
    ],
)
def test_what_is_refused(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_a_string_is_no_list_of_texts() -> None:
    with pytest.raises(DataError, match="wrap it in a list"):
        corrupt("a text", "swap")


def test_datasets_keep_labels_and_groups() -> None:
    data = load_dataset("tense")
    noisy = corrupt_dataset(data, "shuffle", seed=1)
    assert isinstance(data, LabelledTexts)
    assert noisy.texts == corrupt(data.texts, "shuffle", 1)
    assert noisy.labels is data.labels
    assert noisy.groups is data.groups
    scored = TextPairs("p", ("a b", "c d"), ("e f", "g h"), np.array([0.0, 1.0]))
    assert corrupt_dataset(scored, "shuffle").texts_b == ("f e", "h g")
    plain = LabelledNumbers("n", ("a b", "c d"), np.array([0.0, 1.0]), ("x",))
    assert corrupt_dataset(plain, "shuffle").texts == ("b a", "d c")


def test_both_sides_of_a_minimal_pair_get_the_same_noise() -> None:
    data = MinimalPairs("m", ("the dog barks", "a cat sleeps"), ("the dog bark", "a cat sleep"))
    noisy = corrupt_dataset(data, "prepend", seed=2)
    fronts = [text.split()[0] for text in noisy.good]
    assert fronts == [text.split()[0] for text in noisy.bad]
    assert fronts[0] != fronts[1]
    shuffled = corrupt_dataset(data, "shuffle", seed=2)
    for good, bad in zip(shuffled.good, shuffled.bad, strict=True):
        assert sum(a != b for a, b in zip(good.split(), bad.split(), strict=True)) == 1


@given(TEXTS, st.floats(0, 1), st.integers(0, 5))
def test_dropping_words_leaves_a_subsequence_and_never_nothing(
    text: str, strength: float, seed: int
) -> None:
    (noisy,) = corrupt([text], "drop", seed, strength)
    words = iter(text.split())
    assert noisy.split()
    assert all(word in words for word in noisy.split())  # `in` moves the iterator on


def test_words_are_dropped_at_the_asked_rate() -> None:
    texts = [" ".join(f"w{i}x{j}" for j in range(50)) for i in range(400)]
    for strength in (0.05, 0.15, 0.4):
        kept = [len(t.split()) / 50 for t in corrupt(texts, "drop", strength=strength)]
        assert abs(1 - sum(kept) / len(kept) - strength) < 0.01
