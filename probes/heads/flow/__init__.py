"""Information flow: saliency between texts, label words and answer, and the geometry that a context builds."""

from __future__ import annotations

from probes.heads.flow.graph import GraphEnergy, graph_energy
from probes.heads.flow.prompts import LabelPrompt, label_prompts
from probes.heads.flow.saliency import label_saliency, prompt_flows, saliency_matrices

__all__ = [
    "GraphEnergy",
    "LabelPrompt",
    "graph_energy",
    "label_prompts",
    "label_saliency",
    "prompt_flows",
    "saliency_matrices",
]
