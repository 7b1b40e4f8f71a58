"""`store["exit"]`: a mapping from layer to array that reads one layer at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class _Source(Protocol):
    def __getitem__(self, key: tuple[str, int], /) -> NDArray[np.float32]: ...


class Layers(Mapping[int, NDArray[np.float32]]):
    """Layers of one site; each look-up reads from disk and keeps nothing, so memory holds one layer at a time."""

    def __init__(self, source: _Source, site: str, layers: tuple[int, ...]) -> None:
        self.site = site
        self._source = source
        self._layers = layers

    def __getitem__(self, layer: int) -> NDArray[np.float32]:
        return self._source[self.site, layer]

    def __contains__(self, layer: object) -> bool:
        return layer in self._layers

    def __iter__(self) -> Iterator[int]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"Layers({self.site!r}, {self._layers})"
