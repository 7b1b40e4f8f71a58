"""Label-free metrics of a layer's states: plain functions on arrays, registered once, and one table over all layers."""

from __future__ import annotations

from probes.layers.anisotropy import anisotropy
from probes.layers.effective_rank import effective_rank
from probes.layers.measure import measure_layers
from probes.layers.temperature import temperature

__all__ = ["anisotropy", "effective_rank", "measure_layers", "temperature"]
