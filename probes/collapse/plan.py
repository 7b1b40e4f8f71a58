"""What a collapse study does, as one object that every part reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from probes.collapse.names import CUTS, PARTS, TAUS
from probes.errors import InputError, unknown_name


@dataclass(frozen=True)
class Places:
    """How states are taken: pooling (None: the model's own), longest text in tokens, layers (None: all)."""

    pooling: str | None = None
    max_length: int | None = None
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class CollapsePlan:
    """Settings of a study: `taus` are attention temperatures, `cuts` lengths in tokens (special ones included),
    `distractors` the most documents of the index (fewer where there is no more text), `documents` the most texts of
    one length.
    """

    parts: frozenset[str] = frozenset(PARTS)
    taus: tuple[float, ...] = TAUS
    cuts: tuple[int, ...] = CUTS
    places: Places = field(default_factory=Places)
    draws: int = 1000
    distractors: int = 10_000
    documents: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.parts:
            if name not in PARTS:
                raise unknown_name("part", name, PARTS)
        if not self.taus or min(self.taus) <= 0:
            raise InputError(f"taus {self.taus}: numbers above 0 are needed, such as 0.8")
        if not self.cuts or min(self.cuts) < 2:
            raise InputError(f"cuts {self.cuts}: numbers of tokens from 2 are needed")
