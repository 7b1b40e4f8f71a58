"""The decision as it is written to `decision.json`: frozen, with the keys that DESIGN §6 fixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probes.exits.candidates import Candidate
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
    """Time of every layer relative to the full model, and whether it was measured or counted in blocks."""

    relative: Mapping[int, float]
    measured: bool

    def of(self, layer: int) -> float:
        return float(self.relative[layer])

    def speedup(self, layer: int) -> float | None:
        """Full time over the layer's time; None where the counted time is zero."""
        return 1 / self.of(layer) if self.of(layer) > 0 else None


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
        return None if self.chosen is None else self.costs.of(self.chosen.layer)

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
            "speedup": None if layer is None else self.costs.speedup(layer),
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
