"""What a collapse study does, as one object that every part reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from probes.collapse.names import CUTS, PARTS, TAUS
from probes.errors import InputError, unknown_name

Progress = Callable[[int, int | None, str], None]


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


@dataclass
class Findings:
    """What a study has found so far: tidy rows and tables. A run folder takes the same calls."""

    frames: list[pd.DataFrame] = field(default_factory=list[pd.DataFrame])
    tables: dict[str, pd.DataFrame] = field(default_factory=dict[str, pd.DataFrame])
    notes: list[str] = field(default_factory=list[str])

    def add(self, rows: pd.DataFrame) -> None:
        """Keep tidy rows."""
        self.frames.append(rows)

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Keep a table, in place of an older one of that name."""
        self.tables[name] = frame

    def note(self, text: str) -> None:
        """Keep something that a reader must know."""
        self.notes.append(text)


@dataclass(frozen=True)
class Previous:
    """What a broken-off run left: parts that were done need not be done again."""

    measurements: pd.DataFrame
    tables: dict[str, pd.DataFrame]

    @property
    def done(self) -> dict[str, dict[str, Any]]:
        """The rows of `applies` by part."""
        rows = self.tables.get("applies", pd.DataFrame())
        return {str(row["part"]): dict(row) for row in rows.to_dict("records")}
