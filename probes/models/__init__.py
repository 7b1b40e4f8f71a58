"""Models: loading them, and finding their layers, heads and norms by structure."""

from __future__ import annotations

from probes.models.cut import cut_model
from probes.models.embedding import EmbeddingSpec
from probes.models.model import Model, wrap_model
from probes.models.structure import Block, Heads, Structure

__all__ = ["Block", "EmbeddingSpec", "Heads", "Model", "Structure", "cut_model", "wrap_model"]
