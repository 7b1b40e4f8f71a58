"""How a model's maker turns token states into one embedding: pooling, then a small head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from probes.errors import unknown_name
from probes.linalg import normalise_rows

Pooling = Literal["mean", "last", "first", "max", "weighted"]
Float32 = NDArray[np.float32]
_ROLES = ("text", "query", "document")


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

    `prompts` maps names (such as "query") to texts put before the input; `default_prompt` names the one that the
    maker puts before every text. `prompt_for` says which text a role gets; nothing is put there unless asked.
    `dim` is the maker's own truncation of the embedding (None: all coordinates).
    """

    pooling: Pooling = "mean"
    head: tuple[HeadStep, ...] = ()
    max_length: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict[str, str])
    default_prompt: str | None = None
    dim: int | None = None
    similarity: str = "cosine"

    def prompt_for(self, role: str) -> str:
        """What sentence-transformers puts before a text of this role, "" for nothing.

        "text" gets the maker's default prompt (as in `encode`); "query" and "document" get the prompt of that
        name and never the default (as in `encode_query` and `encode_document`). Raises `InputError` for others.

        >>> spec = EmbeddingSpec(prompts={"query": "query: ", "all": "any: "}, default_prompt="all")
        >>> [spec.prompt_for(role) for role in ("text", "query", "document")]
        ['any: ', 'query: ', '']
        """
        if role not in _ROLES:
            raise unknown_name("role", role, _ROLES)
        name = self.default_prompt if role == "text" else role
        return "" if name is None else self.prompts.get(name, "")

    @property
    def is_cosine(self) -> bool:
        """Whether the maker's similarity is the cosine: said so, or the dot product of rows at unit length.

        >>> EmbeddingSpec(similarity="dot").is_cosine
        False
        >>> EmbeddingSpec(head=(Normalize(),), similarity="dot").is_cosine
        True
        """
        if self.similarity != "dot":
            return self.similarity == "cosine"
        # a truncation comes after the head and takes the unit length away
        return self.dim is None and bool(self.head) and isinstance(self.head[-1], Normalize)

    def apply(self, pooled: NDArray[np.floating]) -> Float32:
        """Pooled `exit` states (n, d) to embeddings (n, d_out): each head step in turn, then truncation."""
        rows = np.asarray(pooled, dtype=np.float32)
        for step in self.head:
            rows = step(rows)
        return rows if self.dim is None else rows[:, : self.dim]
