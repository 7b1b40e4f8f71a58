"""What a circuit study does, as one object that every part reads."""

from __future__ import annotations

from dataclasses import dataclass

from probes.errors import InputError, unknown_name
from probes.heads.circuits.names import PARTS, TASKS


@dataclass(frozen=True)
class CircuitPlan:
    """Settings of a study: `pairs` of each task at most, of which `patched` are for activation patching, which takes a
    forward pass per place; `path` names a file of pairs that is a task of its own.
    """

    parts: frozenset[str] = frozenset(PARTS)
    tasks: frozenset[str] = frozenset(TASKS)
    path: str | None = None
    pairs: int = 50
    patched: int = 20
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for given, allowed, what in ((self.parts, PARTS, "part"), (self.tasks, TASKS, "task")):
            for name in given:
                if name not in allowed:
                    raise unknown_name(what, name, allowed)
        if min(self.pairs, self.patched) < 4:
            raise InputError(
                f"{self.pairs} pairs, {self.patched} of them patched: at least 4 are needed"
            )
