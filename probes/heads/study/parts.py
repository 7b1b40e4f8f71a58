"""The parts of a study of heads by name: from the model to the tables of the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from probes.heads.study import causal, kinds, retrieving

if TYPE_CHECKING:
    from probes.heads.study.study import Study

PART_FUNCTIONS: Mapping[str, Callable[[Study], None]] = {
    "retrieval": retrieving.retrieval,
    "ablation": causal.ablation,
    "single": causal.single,
    "types": kinds.types,
    "shapes": kinds.shapes,
    "composition": kinds.composition,
    "low-rank": causal.low_rank,
}
