"""Planted data and planted models for the erasure tests."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import zoo

USERS_CACHE = os.environ.get("FATHOMETER_CACHE")  # read before any test changes it
Data = tuple[np.ndarray, np.ndarray]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def users_cache(own_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of whoever runs the tests, for real models: their weights are got only once."""
    if USERS_CACHE is None:
        monkeypatch.delenv("FATHOMETER_CACHE")
    else:
        monkeypatch.setenv("FATHOMETER_CACHE", USERS_CACHE)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def _build(name: str) -> Any:
    return zoo.build(name)


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], Any]:
    """`tiny(name)`: the tiny random model of that architecture. Shared: do not change it."""
    return _build


@pytest.fixture
def planted() -> Callable[..., Data]:
    """Correlated states in which `classes` classes differ in several directions, by `shift` standard deviations."""

    def make(
        n: int = 300, d: int = 12, classes: int = 2, shift: float = 3.0, seed: int = 0
    ) -> Data:
        rng = np.random.default_rng(seed)
        y = rng.permutation(np.arange(n) % classes)
        means = shift * rng.normal(size=(classes, d))
        X = (rng.normal(size=(n, d)) + means[y]) @ rng.normal(size=(d, d)) + 5 * rng.normal(size=d)
        return X, y

    return make


FEELINGS = ("good", "bad")
METALS = ("gold", "iron")


@pytest.fixture(scope="session")
def metal_model() -> Any:
    """A language model that says "gold" after "good" and "iron" after "bad", along one direction of its stream.

    Its blocks add only some noise from the other words to the last token's embedding, which is plus or minus the
    direction v for the two feelings; the head reads v for one metal against the other.
    """
    from probes.models import wrap_model

    hf_model = zoo.hf_model("llama")
    core: Any = hf_model.model
    words = zoo.tokenizer("decoder")
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(zoo.D, generator=generator)
    v *= 3 / v.norm()
    with torch.no_grad():
        for block in core.layers:
            block.self_attn.o_proj.weight.mul_(0.3)
            block.mlp.down_proj.weight.mul_(0.3)
        core.norm.weight.fill_(1.0)
        table = core.embed_tokens.weight
        for sign, feeling, metal in zip((1, -1), FEELINGS, METALS, strict=True):
            table[words.convert_tokens_to_ids(feeling)] += sign * v
            hf_model.lm_head.weight[words.convert_tokens_to_ids(metal)] = sign * v
    assert isinstance(hf_model, transformers.PreTrainedModel)
    return wrap_model(hf_model, words, name="metals"), v.double().numpy()


@pytest.fixture(scope="session")
def metal_texts() -> tuple[list[str], np.ndarray]:
    """Texts that end in a feeling, and which one (0 good, 1 bad)."""
    rng = np.random.default_rng(2)
    words = [word for word in zoo.WORDS if word not in (*FEELINGS, *METALS)]
    y = np.arange(120) % 2
    texts = [
        " ".join([*rng.choice(words, size=int(rng.integers(1, 6))), FEELINGS[label]]) for label in y
    ]
    return texts, y
