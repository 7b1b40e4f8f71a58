"""Types of heads: what each does on repeated random tokens, and the shape of its attention on texts."""

from __future__ import annotations

from probes.heads.types.repeated import induction_scores
from probes.heads.types.shapes import attention_shapes

__all__ = ["attention_shapes", "induction_scores"]
