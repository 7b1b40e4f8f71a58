"""Synthetic runs and the guarded browser for the report's tests."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def _module(name: str) -> Any:
    full = f"report_tests_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def synthetic() -> Any:
    return _module("synthetic")


@pytest.fixture(scope="session")
def browsing() -> Any:
    return _module("browser")


@pytest.fixture(scope="session")
def full_run(synthetic: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with everything; not to be changed."""
    return synthetic.make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")  # two open Playwright sessions in one process are one too many
def chrome(browsing: Any) -> Iterator[Any]:
    with browsing.chromium() as browser:
        yield browser
