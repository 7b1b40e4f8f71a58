"""Synthetic tasks whose right answer is known."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from probes.exits.classification import ClassificationTask
from probes.exits.retrieval import RetrievalTask
from probes.exits.similarity import SimilarityTask


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _split_parts(n, rng):
    order = rng.permutation(n)
    a, b, c = int(0.4 * n), int(0.6 * n), int(0.8 * n)
    pieces = np.split(order, [a, b, c])
    return dict(zip(("fit", "tune", "calibrate", "test"), pieces, strict=True))


def _similarity_task(n, rng, latent=32):
    """Pairs of texts with latent vectors; gold is the cosine of the latents, rounded so that ties occur."""
    meaning = rng.normal(size=(2 * n, latent))
    mix = rng.uniform(size=(n, 1))
    meaning[n:] = mix * meaning[:n] + (1 - mix) * meaning[n:]
    unit = meaning / np.linalg.norm(meaning, axis=1, keepdims=True)
    gold = np.round((unit[:n] * unit[n:]).sum(axis=1), 2)
    task = SimilarityTask("pairs", np.arange(n), np.arange(n, 2 * n), gold, np.arange(n))
    return task, unit


def _retrieval_task(n, m, rng, latent=16, graded=True):
    """Queries near one document each; neighbours of that document count as half relevant."""
    documents = rng.normal(size=(m, latent))
    target = rng.integers(0, m, size=n)
    queries = documents[target] + 0.3 * rng.normal(size=(n, latent))
    relevance = np.zeros((n, m))
    relevance[np.arange(n), target] = 2.0
    if graded:
        relevance[np.arange(n), (target + 1) % m] = 1.0
    states = np.concatenate([queries, documents])
    task = RetrievalTask(
        "search", np.arange(n), n + np.arange(m), sparse.csr_array(relevance), np.arange(n)
    )
    return task, states


def _classification_task(n, d, rng, classes=3, signal=4):
    """Classes shift the first `signal` coordinates."""
    labels = rng.integers(0, classes, size=n)
    states = rng.normal(size=(n, d))
    states[:, :signal] += 1.5 * rng.normal(size=(classes, signal))[labels]
    return ClassificationTask("topics", np.arange(n), labels, classes, np.arange(n)), states


@pytest.fixture
def split_parts():
    return _split_parts


@pytest.fixture
def similarity_task():
    return _similarity_task


@pytest.fixture
def retrieval_task():
    return _retrieval_task


@pytest.fixture
def classification_task():
    return _classification_task


@pytest.fixture(scope="session")
def zoo():
    """Tiny random-weight models (tests/zoo.py)."""
    if "zoo" not in sys.modules:
        spec = importlib.util.spec_from_file_location("zoo", Path(__file__).parents[1] / "zoo.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["zoo"] = module
        spec.loader.exec_module(module)
    return sys.modules["zoo"]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path / "cache"))
