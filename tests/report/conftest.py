"""Synthetic runs and the guarded browser for the report's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browsing_guard
import pytest
import synthetic_concepts
import synthetic_runs


@pytest.fixture(scope="session")
def synthetic() -> Any:
    return synthetic_runs


@pytest.fixture(scope="session")
def browsing() -> Any:
    return browsing_guard


@pytest.fixture(scope="session")
def full_run(synthetic: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with everything; not to be changed."""
    return synthetic.make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def planted() -> Any:
    return synthetic_concepts


@pytest.fixture(scope="session")
def concept_run(planted: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of 14 concepts over 31 layers; not to be changed."""
    return planted.write_concept_run(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")  # two open Playwright sessions in one process are one too many
def chrome(browsing: Any) -> Iterator[Any]:
    with browsing.chromium() as browser:
        yield browser
