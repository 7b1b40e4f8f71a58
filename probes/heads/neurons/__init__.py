"""Neurons: which a text uses most, whether that is stable, and whether texts alike use the same ones."""

from __future__ import annotations

from probes.heads.neurons.core import CoreNeurons, core_neurons, jaccard
from probes.heads.neurons.table import neuron_table

__all__ = ["CoreNeurons", "core_neurons", "jaccard", "neuron_table"]
