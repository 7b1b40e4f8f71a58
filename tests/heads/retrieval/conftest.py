"""Trials on tiny models, with a haystack and needles in the words that their tokenizer knows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from zoo import build

from probes.heads.retrieval import Needle, Trial, build_trial, haystack_ids

TEXTS = [
    "the cat sees one dog. the bird sings to a tree. a fish eats.",
    "the moon runs under the old house. two rivers sleep. true glass is good.",
    "a king finds gold near the city. the queen likes iron or wood.",
]
NEEDLE = Needle(
    "stone", "the red stone was seven eight nine.", "seven eight nine", "was stone red", "stone was"
)
OTHER = Needle("sun", "the blue sun was two five.", "two five", "was sun blue", "sun was")


@pytest.fixture
def make_trial() -> Any:
    def make(model: Any, tokens: int = 52, depth: float = 0.5, **options: Any) -> Trial:
        haystack = haystack_ids(model, TEXTS * 2, seed=0)
        return build_trial(model, options.pop("needle", NEEDLE), haystack, tokens, depth, **options)

    return make


@pytest.fixture(scope="session")
def llama() -> Any:
    return build("llama")


@pytest.fixture(scope="session")
def other() -> Needle:
    return OTHER


@pytest.fixture
def eager() -> Any:
    """Makes a model anew so that it computes and returns whole attention matrices."""

    def make(model: Any) -> Any:
        config = copy.deepcopy(model.hf_model.config)
        twin = type(model.hf_model)._from_config(config, attn_implementation="eager")
        twin.load_state_dict(model.hf_model.state_dict())
        return twin.eval()

    return make
