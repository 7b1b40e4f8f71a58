"""The store tests share `writer.py`, which subprocesses run as a script."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_PATH = Path(__file__).with_name("writer.py")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("store_writer", _PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["store_writer"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def writer() -> ModuleType:
    return _load()


@pytest.fixture(scope="session")
def reference(writer, tmp_path_factory):
    """Files of the store that an undisturbed capture of the default job writes."""
    path = tmp_path_factory.mktemp("reference") / "store"
    writer.capture(path)
    return writer.tree(path)
