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
    pass

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
