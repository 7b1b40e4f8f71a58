"""Pairs whose score is the share of words they have in common, and tiny models with a final norm or without."""

from __future__ import annotations

import numpy as np
import pytest
from zoo import build, texts

from probes.types import TextPairs

pytest.importorskip("sentence_transformers")
pytest.importorskip("datasets")


@pytest.fixture(scope="session")
def pairs() -> TextPairs:
    rng, rows = np.random.default_rng(0), []
    for text in dict.fromkeys(texts(260, seed=1, longest=8)):
        words = text.split()
        if len(words) < 4:
            continue
        kept = int(rng.integers(0, len(words) + 1))
        other = texts(1, seed=int(rng.integers(1 << 30)), longest=6)[0].split()
        rows.append((text, " ".join(words[:kept] + other), kept / len(words)))
    first, second, scores = zip(*rows, strict=True)
    return TextPairs("overlap", first, second, np.asarray(scores))


@pytest.fixture(scope="session")
def tiny():
    return build("bert")


@pytest.fixture(scope="session")
def tiny_normed():
    return build("llama")
