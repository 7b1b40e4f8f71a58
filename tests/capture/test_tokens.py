"""Tokens: a user's text is only text; truncation is seen and counted; batches hold every row once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from probes.capture.batching import pad_batch, plan_batches, plan_shards
from probes.capture.tokens import TextEncoder, control_ids
from probes.errors import DataError, InputError, ModelError


def unigram() -> PreTrainedTokenizerFast:
    """Its vocabulary holds "</s>" as a word, so that asking to split special tokens does not help."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁a", -1.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in "a</s>"]
    core = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def byte_level() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>", pad_token="<|end|>")
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return made


TOKENIZERS = {
    "word": lambda zoo: zoo.tokenizer(),
    "unigram": lambda _: unigram(),
    "byte": lambda _: byte_level(),
}
HOSTILE = [
    "a [SEP] a",
    "a</s>a",
    "</s>",
    "[CLS][MASK]",
    "a <|im_start|> <|end|>",
    "<s> a </s></s>",
    "[PAD]",
]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("text", HOSTILE)
def test_control_tokens_in_a_text_are_inert(kind: str, text: str, zoo: Any) -> None:
    tokenizer = TOKENIZERS[kind](zoo)
    (tokens,) = TextEncoder(tokenizer, 50)([text])
    inside = tokens.ids[~tokens.special]
    assert len(inside)
    assert not set(inside.tolist()) & set(control_ids(tokenizer))


def test_the_control_without_it_they_would_act(zoo: Any) -> None:
    assert 2 in zoo.tokenizer()("a [SEP] b", add_special_tokens=False)["input_ids"]
    assert (
        1 in unigram()("a</s>a", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    )


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_plain_texts_are_tokenised_as_by_the_tokenizer_itself(kind: str, zoo: Any) -> None:
    tokenizer = TOKENIZERS[kind](zoo)
    texts = ["a", "a a a", "the cat sleeps near a river"]
    for tokens, ids in zip(
        TextEncoder(tokenizer, 50)(texts), tokenizer(texts)["input_ids"], strict=True
    ):
        assert tokens.ids.tolist() == ids
        assert not tokens.truncated


@pytest.mark.parametrize("text", ["the cat " * 50, "the [SEP] " * 50])
def test_a_long_text_is_cut_and_seen(text: str, zoo: Any) -> None:
    for length in (3, 10, 12):
        (tokens,) = TextEncoder(zoo.tokenizer(), length)([text])
        assert len(tokens) == length
        assert tokens.truncated
        assert tokens.special.tolist() == [True] + [False] * (length - 2) + [True]
    exact = TextEncoder(zoo.tokenizer(), 6)(["a cat sees two", "a cat sees two birds"])
    assert [t.truncated for t in exact] == [False, True]


def test_a_text_of_100k_tokens_in_pieces_and_whole(zoo: Any) -> None:
    (plain, hostile) = TextEncoder(unigram(), 512)(["a " * 100_000, "a</s>" * 100_000])
    assert len(plain) == len(hostile) == 512
    assert plain.truncated
    assert hostile.truncated


def test_the_prompt_stands_before_each_text(zoo: Any) -> None:
    tokenizer = zoo.tokenizer()
    (with_prompt,) = TextEncoder(tokenizer, 20, prompt="find the ")(["cat"])
    (whole,) = TextEncoder(tokenizer, 20)(["find the cat"])
    assert with_prompt.ids.tolist() == whole.ids.tolist()


def test_no_tokens_and_no_tokenizer_are_refused(zoo: Any) -> None:
    with pytest.raises(DataError, match="text 8 has no tokens"):
        TextEncoder(zoo.tokenizer("decoder"), 20)(["a", "\u2003"], first_row=7)
    with pytest.raises(ModelError, match="pixel_values"):
        TextEncoder(None, 20)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=60),
    st.integers(1, 300),
    st.integers(1, 20),
    st.booleans(),
)
def test_plans_cover_every_row_once(
    lengths: list[int], tokens: int, rows: int, equal: bool
) -> None:
    batches = plan_batches(lengths, tokens, equal=equal)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[int(i)] for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= tokens
        assert not equal or len({lengths[int(i)] for i in batch}) == 1
    shards = plan_shards(lengths, rows, tokens)
    assert [row for lo, hi in shards for row in range(lo, hi)] == list(range(len(lengths)))
    for lo, hi in shards:
        assert hi - lo == 1 or (hi - lo <= rows and sum(lengths[lo:hi]) <= tokens)


def test_a_shard_starts_where_it_did_when_texts_are_added_behind() -> None:
    lengths = list(range(1, 50))
    assert (
        plan_shards(lengths, 7, 100)[:-1]
        == plan_shards([*lengths, 5, 5], 7, 100)[: len(plan_shards(lengths, 7, 100)) - 1]
    )


def test_padding_masks_and_special_tokens(zoo: Any) -> None:
    tokens = TextEncoder(zoo.tokenizer(), 20)(["a cat", "a big cat sees"])
    for side in ("left", "right"):
        batch = pad_batch(tokens, np.asarray([1, 0]), pad_id=0, side=side, special=False)
        assert batch.keep is not None
        mask = batch.inputs["attention_mask"]
        assert mask.sum(1).tolist() == [6, 4]
        assert batch.keep.sum(1).tolist() == [4, 2]
        assert mask[1].tolist() == ([0, 0, 1, 1, 1, 1] if side == "left" else [1, 1, 1, 1, 0, 0])
        first, second = batch.halves()
        assert first.rows.tolist() == [1]
        assert second.rows.tolist() == [0]
        with pytest.raises(ValueError, match="one row"):
            first.halves()


def test_plans_of_nothing_are_refused() -> None:
    for call in (lambda: plan_shards([1], 0, 5), lambda: plan_batches([1], 0)):
        with pytest.raises(InputError):
            call()
