"""Real models come from the cache of whoever runs the tests; all others are tiny."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

USERS_CACHE = os.environ.get("FATHOMETER_CACHE")  # read before any test changes it


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATHOMETER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def users_cache(own_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if USERS_CACHE is None:
        monkeypatch.delenv("FATHOMETER_CACHE")
    else:
        monkeypatch.setenv("FATHOMETER_CACHE", USERS_CACHE)
