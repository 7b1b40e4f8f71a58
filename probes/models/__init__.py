"""Models: getting and loading them, and finding their layers, heads and norms by structure."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.models.catalog import CatalogueEntry, list_models
    from probes.models.completions import (
        completion_logprobs,
        require_language_model,
        sentence_logprobs,
    )
    from probes.models.cut import cut_model
    from probes.models.download import pull
    from probes.models.embedding import EmbeddingSpec
    from probes.models.initialise import untrained
    from probes.models.load import load_model, pick_device, require_model
    from probes.models.model import Model, wrap_model
    from probes.models.quantise import quantised
    from probes.models.structure import Block, Heads, Structure

# Loaded on use: listing the catalogue needs no torch.
_HOMES = {
    "Block": "structure",
    "CatalogueEntry": "catalog",
    "EmbeddingSpec": "embedding",
    "Heads": "structure",
    "Model": "model",
    "Structure": "structure",
    "completion_logprobs": "completions",
    "cut_model": "cut",
    "list_models": "catalog",
    "load_model": "load",
    "pick_device": "load",
    "pull": "download",
    "quantised": "quantise",
    "require_language_model": "completions",
    "require_model": "load",
    "sentence_logprobs": "completions",
    "untrained": "initialise",
    "wrap_model": "model",
}

__all__ = [
    "Block",
    "CatalogueEntry",
    "EmbeddingSpec",
    "Heads",
    "Model",
    "Structure",
    "completion_logprobs",
    "cut_model",
    "list_models",
    "load_model",
    "pick_device",
    "pull",
    "quantised",
    "require_language_model",
    "require_model",
    "sentence_logprobs",
    "untrained",
    "wrap_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probes.models' has no attribute {name!r}")
    value = getattr(import_module(f"probes.models.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
