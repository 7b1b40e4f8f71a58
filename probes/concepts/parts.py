"""The parts of a study by name: those that need one concept, and those that need all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from probes.concepts import causal, each, together

if TYPE_CHECKING:
    from probes.concepts.study import Study
    from probes.concepts.tasks import ConceptTask

EACH: Mapping[str, Callable[[Study, ConceptTask], None]] = {
    "few-shot": each.few_labels,
    "scalar-mix": each.mixed_layers,
    "magnitude": each.distances,
    "preference": each.preferences,
    "over-time": each.over_time,
}
TOGETHER: Mapping[str, Callable[[Study], None]] = {
    "depth-tests": together.depth_tests,
    "transfer": together.transfer,
    "directions": together.directions,
    "erasure": together.erasure,
    "causal": causal.causal,
}
