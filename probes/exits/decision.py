"""The decision as it is written to `decision.json`: frozen, with the keys that DESIGN §6 fixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.walk import Budget


@dataclass(frozen=True)
class Kept:
    """Quality of one candidate on one part beside the full model's, with intervals at the budget's confidence.

    `share_low` is a one-sided lower limit, the others are two-sided.
    """

    quality: float
    low: float
    high: float
    quality_full: float
    share: float | None
    share_low: float | None
    share_high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Comparisons:
    """Baselines on the test part; alternatives that passed as well, with what the calibrate part says of them."""

    baselines: tuple[dict[str, Any], ...] = ()
    alternatives: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Costs:
    """Time of every layer relative to the full model, and whether it was measured or counted in blocks.

    `own` holds, by variant and layer, the time of variants that read more than pooled states or compute otherwise.
    """

    relative: Mapping[int, float]
    measured: bool
    own: Mapping[tuple[str | None, int], float] = field(
        default_factory=dict[tuple[str | None, int], float]
    )

    @classmethod
    def counted(cls, scores: CandidateScores) -> Costs:
        """Blocks run, as a share of all of them: what stands for time that was not measured."""
        layers = {c.layer for c in scores.candidates}
        return cls({k: k / scores.full.layer for k in layers}, measured=False)

    def of(self, candidate: Candidate) -> float:
        """Its share of the full model's time."""
        place = candidate.variant, candidate.layer
        return float(self.own[place] if place in self.own else self.relative[candidate.layer])

    def speedup(self, candidate: Candidate) -> float | None:
        """Full time over the candidate's time; None where the counted time is zero."""
        return 1 / self.of(candidate) if self.of(candidate) > 0 else None

    def saves(self, candidate: Candidate, full: Candidate) -> bool:
        """Whether it is cheaper than the full model. Blocks nest: where they alone differ, no stopwatch is needed."""
        if (candidate.variant, candidate.layer) in self.own:
            return (self.of(candidate), candidate.dim) < (self.of(full), full.dim)
        return candidate.cost < full.cost


@dataclass(frozen=True)
class Decision:
    """Where to stop, what it keeps, how sure that is.

    `kept` is the one look at the test part (None when infeasible); `about` holds further keys for the file.
    """

    chosen: Candidate | None
    kept: Kept | None
    quality_full: float
    budget: Budget
    costs: Costs
    comparisons: Comparisons
    caveats: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def status(self) -> str:
        """`chosen` or `infeasible`."""
        return "infeasible" if self.chosen is None else "chosen"

    @property
    def layer(self) -> int | None:
        return None if self.chosen is None else self.chosen.layer

    @property
    def dim(self) -> int | None:
        return None if self.chosen is None else self.chosen.dim

    @property
    def variant(self) -> str | None:
        return None if self.chosen is None else self.chosen.variant

    @property
    def share(self) -> float | None:
        return None if self.kept is None else self.kept.share

    @property
    def relative_cost(self) -> float | None:
        return None if self.chosen is None else self.costs.of(self.chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `decision.json`. `quality`, `share` and `share_low` are of the untouched test part; what
        the calibrate part certified stands under `calibrate`."""
        kept = self.kept
        layer = self.layer
        return {
            "status": self.status,
            "layer": layer,
            "dim": self.dim,
            "pooling": self.about.get("pooling"),
            "variant": self.variant,
            "quality": None if kept is None else kept.quality,
            "quality_full": self.quality_full,
            "share": self.share,
            "share_low": None if kept is None else kept.share_low,
            "relative_cost": self.relative_cost,
            "speedup": None if self.chosen is None else self.costs.speedup(self.chosen),
            "confidence": self.budget.confidence,
            "guarantee": self.budget.guarantee,
            "baselines": list(self.comparisons.baselines),
            "alternatives": list(self.comparisons.alternatives),
            "caveats": list(self.caveats),
            "budget": {"min_quality": self.budget.min_quality, "max_loss": self.budget.max_loss},
            "cost_measured": self.costs.measured,
            "test": None if kept is None else kept.as_dict(),
            **{key: value for key, value in self.about.items() if key != "pooling"},
        }
