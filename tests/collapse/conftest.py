"""Tiny models, long texts and a small search set that every test of the collapse study can use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from zoo import build, texts

from probes.types import Retrieval


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], Any]:
    """A random-weight model of the zoo by name, made once."""
    return cache(build)


@pytest.fixture(scope="session")
def long_texts() -> tuple[str, ...]:
    """Different texts of 1 to 60 words."""
    return tuple(dict.fromkeys(texts(300, seed=5, longest=60)))


@pytest.fixture(scope="session")
def search() -> Retrieval:
    """60 queries, the beginnings of 60 of 90 documents of up to 60 words in several paragraphs."""
    rng = np.random.default_rng(0)
    documents = [t for t in dict.fromkeys(texts(400, seed=6, longest=60)) if len(t.split()) >= 10]
    documents = documents[:90]
    queries = [" ".join(text.split()[:6]) for text in documents[:60]]
    parted = []
    for text in documents:
        words = text.split()
        pieces = [" ".join(words[at : at + 8]) for at in range(0, len(words), 8)]
        parted.append("\n\n".join(pieces))
    relevance = sparse.csr_array(np.eye(60, 90))
    order = rng.permutation(90)
    return Retrieval(
        "tiny-search", tuple(queries), tuple(parted[i] for i in order), sparse.csr_array(relevance[:, order])
    )  # fmt: skip
