"""Weights of attention heads: their circuits' spectra, how they compose, and how few directions they need."""

from __future__ import annotations

from probes.heads.weights.composition import composition_scores
from probes.heads.weights.directions import Directions, leading_directions
from probes.heads.weights.find import HeadWeights, all_head_weights, head_weights
from probes.heads.weights.lowrank import low_rank, low_rank_curve
from probes.heads.weights.spectra import copying_scores, head_spectra

__all__ = [
    "Directions",
    "HeadWeights",
    "all_head_weights",
    "composition_scores",
    "copying_scores",
    "head_spectra",
    "head_weights",
    "leading_directions",
    "low_rank",
    "low_rank_curve",
]
