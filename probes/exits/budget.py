"""What must be kept, and how sure."""

from __future__ import annotations

from dataclasses import dataclass

from probes.errors import InputError
from probes.stats import check_confidence


@dataclass(frozen=True)
class Budget:
    """What must be kept, and how sure: a share of the full model's quality, or (if given) a largest excess loss.

    >>> Budget(0.95).guarantee, Budget(max_loss=0.05).guarantee
    ('asymptotic', 'finite-sample')
    """

    min_quality: float = 0.95
    max_loss: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if not 0 < self.min_quality <= 1:
            raise InputError(
                f"min quality {self.min_quality}: a share above 0 and up to 1 is needed, such as 0.95"
            )
        if self.max_loss is not None and not 0 < self.max_loss < 1:
            raise InputError(
                f"max loss {self.max_loss}: a number strictly between 0 and 1 is needed, such as 0.05"
            )

    @property
    def guarantee(self) -> str:
        """`finite-sample` for a largest loss (Hoeffding–Bentkus), `asymptotic` for a share (bootstrap)."""
        return "asymptotic" if self.max_loss is None else "finite-sample"

    @property
    def target(self) -> str:
        """The promise in words."""
        if self.max_loss is None:
            return f"at least {self.min_quality:.1%} of the full model's quality"
        return (
            f"its losses within {self.max_loss:g} of the full model's on average (an example that gets worse counts, "
            "one that gets better does not make up for it)"
        )
