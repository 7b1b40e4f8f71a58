"""What a concept study does, as one object that every step reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sklearn.base import BaseEstimator

from probes.concepts.conditions import Condition
from probes.concepts.names import CONTROLS, PARTS
from probes.concepts.states import Places
from probes.errors import unknown_name
from probes.probing import LinearProbe, MassMeanProbe, RidgeProbe
from probes.registry import Registry

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[int, int | None, str], None]

PROBES: Registry[Callable[[], BaseEstimator]] = Registry("probe")
PROBES.add("linear", LinearProbe)
PROBES.add("ridge", RidgeProbe)
PROBES.add("mass-mean", MassMeanProbe)
PROBES.add("mass-mean-cov", partial(MassMeanProbe, covariance=True))


@dataclass(frozen=True)
class ConceptPlan:
    """Settings of a study.

    `controls` and `parts` name what is done beside the plain curves (all by default), `conditions` under what else
    the curves are measured.
    """

    probe: str = "linear"
    folds: int = 5
    controls: frozenset[str] = frozenset(CONTROLS)
    parts: frozenset[str] = frozenset(PARTS)
    conditions: tuple[Condition, ...] = ()
    places: Places = field(default_factory=Places)
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        PROBES[self.probe]
        for given, allowed, what in (
            (self.controls, CONTROLS, "control"),
            (self.parts, PARTS, "part"),
        ):
            for name in given:
                if name not in allowed:
                    raise unknown_name(what, name, allowed)

    def make_probe(self) -> BaseEstimator:
        """A fresh, unfitted probe."""
        return PROBES[self.probe]()


@dataclass
class Findings:
    """What a study has found so far: tidy rows and tables. A run folder takes the same calls."""

    frames: list[pd.DataFrame] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, rows: pd.DataFrame) -> None:
        """Keep tidy rows."""
        self.frames.append(rows)

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Keep a table, in place of an older one of that name."""
        self.tables[name] = frame

    def note(self, text: str) -> None:
        """Keep something that a reader must know."""
        self.notes.append(text)
