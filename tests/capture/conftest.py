"""Every test has a cache of its own; tiny models are built once."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

USERS_CACHE = os.environ.get("FATHOMETER_CACHE")  # read before any test changes it


def _zoo() -> Any:
    if "zoo" not in sys.modules:
        spec = importlib.util.spec_from_file_location("zoo", Path(__file__).parents[1] / "zoo.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["zoo"] = module
        spec.loader.exec_module(module)
    return sys.modules["zoo"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def users_cache(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    return _zoo()


@functools.cache
def _build(name: str) -> Any:
    return _zoo().build(name)


@pytest.fixture(scope="session")
def tiny() -> Any:
    """`tiny(name)`: the tiny random model of that architecture. Shared: do not change it."""
    return _build


def pytest_generate_tests(metafunc: Any) -> None:
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", _zoo().NAMES)
    if "text_architecture" in metafunc.fixturenames:
        metafunc.parametrize("text_architecture", _zoo().TEXT_NAMES)
