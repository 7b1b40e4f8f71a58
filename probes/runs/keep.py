"""Where a study puts what it finds: a run folder, or memory. Both take the same calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import pandas as pd

Progress = Callable[[int, int | None, str], None]  # done, of how many (None: unknown), at what


class Keep(Protocol):
    """Takes findings as they come: a `Run`, or `Findings`."""

    def add(self, rows: pd.DataFrame) -> None: ...
    def write_table(self, name: str, frame: pd.DataFrame) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass
class Findings:
    """What a study has found so far, in memory: tidy rows, tables, notes.

    >>> found = Findings()
    >>> found.note("2 texts were cut")
    >>> found.notes
    ['2 texts were cut']
    """

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
