"""Folders with tiny models, saved the way transformers saves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from zoo import hf_model, tokenizer

Save = Callable[[str], Path]


@pytest.fixture
def saved(tmp_path: Path) -> Save:
    """`saved("bert")` → a folder with weights, configuration and tokenizer of that zoo model."""

    def save(name: str) -> Path:
        folder = tmp_path / f"folder of {name} ü"
        hf_model(name).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        return folder

    return save
