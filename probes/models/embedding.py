"""How a model's maker turns token states into one embedding: pooling, then a small head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from probes.linalg import normalise_rows

Pooling = Literal["mean", "last", "first", "max", "weighted"]
Float32 = NDArray[np.float32]


class HeadStep(Protocol):
    """One module after pooling, frozen: rows (n, d_in) to rows (n, d_out)."""

    def __call__(self, rows: Float32) -> Float32: ...


@dataclass(frozen=True)
class Normalize:
    """Rows at unit length; zero rows stay zero."""

    def __call__(self, rows: Float32) -> Float32:
        return normalise_rows(rows).astype(np.float32, copy=False)


@dataclass(frozen=True)
class EmbeddingSpec:
    """What the maker says. Without a sentence-transformers folder: mean for encoders, last for decoders.

    `prompts` maps names (such as "query") to texts put before the input; nothing is put there unless asked.
    `dim` is the maker's own truncation of the embedding (None: all coordinates).
    """

    pooling: Pooling = "mean"
    head: tuple[HeadStep, ...] = ()
    max_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict[str, str])
    default_prompt: str | None = None
    dim: int | None = None
    similarity: str = "cosine"

    def apply(self, pooled: NDArray[np.floating]) -> Float32:
        """Pooled `exit` states (n, d) to embeddings (n, d_out): each head step in turn, then truncation."""
        rows = np.asarray(pooled, dtype=np.float32)
        for step in self.head:
            rows = step(rows)
        return rows if self.dim is None else rows[:, : self.dim]
