"""For all tests of heads: a cache of their own, one thread, and tiny models that are built once."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo as architectures

USERS_CACHE = os.environ.get("FATHOMETER_CACHE")  # read before any test changes it


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty cache, but for tests of real models, whose weights are got only once."""
    if request.node.get_closest_marker("models") is None:
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


@pytest.fixture(scope="session")
def zoo() -> Any:
    return architectures


_build = functools.cache(architectures.build)


@pytest.fixture(scope="session")
def tiny() -> Any:
    """`tiny(name)`: the tiny random model of that architecture. Shared: do not change it."""
    return _build
