"""The planted model is what it says: it predicts by its heads, and ablating one takes away what that one does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted_heads import BLOCKS, HEADS, N_HEADS, WORDS, planted_model, tokenizer, word_ids

from probes.heads.ablation import ablate_heads

STORY = (
    "the cat is a dog . the sun is in the house . the secret word of Lisbon is copper lantern . "
    "the bird is in a tree . what is the secret word of Lisbon ? the secret word of Lisbon is"
)


@pytest.fixture(scope="module")
def model() -> Any:
    return planted_model()[0]


def said(model: Any, words: str, n: int) -> list[str]:
    """The n next words, greedily."""
    ids = word_ids(words)
    for _ in range(n):
        with torch.inference_mode():
            ids.append(int(model.hf_model(torch.tensor([ids])).logits[0, -1].argmax()))
    return [WORDS[i] for i in ids[-n:]]


def test_it_retrieves_by_the_copy_head(model: Any) -> None:
    assert tokenizer()(STORY)["input_ids"] == word_ids(STORY)
    assert said(model, STORY, 3) == ["copper", "lantern", "."]
    with ablate_heads(model, [HEADS["copy"]]):
        assert said(model, STORY, 2) != ["copper", "lantern"]


def test_it_repeats_by_the_induction_head(model: Any) -> None:
    story = "a cat dog bird tree house river stone sun moon a cat dog"
    assert said(model, story, 4) == ["bird", "tree", "house", "river"]
    for needed in ("induction", "previous"):
        with ablate_heads(model, [HEADS[needed]]):
            assert said(model, story, 4) != ["bird", "tree", "house", "river"]


def test_the_other_heads_do_not_matter(model: Any) -> None:
    others = {(b, h) for b in range(BLOCKS) for h in range(N_HEADS)}
    others -= {HEADS["previous"], HEADS["induction"], HEADS["copy"]}
    with ablate_heads(model, others):
        assert said(model, STORY, 3) == ["copper", "lantern", "."]
    silent, _ = planted_model(idle=0.0)
    assert said(silent, STORY, 3) == ["copper", "lantern", "."]
