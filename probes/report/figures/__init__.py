"""Figures: pure functions from a run's tables to a `FigureCard`, shared by the report and the dashboard.

A new figure is one file here with one `@figure(...)` registration; it returns None where its data are absent.
"""

from __future__ import annotations

from probes.report.figures.card import FIGURES, FigureCard, Marks, cards, figure
from probes.report.figures.concept_depth import concept_depth
from probes.report.figures.depth import quality_over_layers
from probes.report.figures.heatmap import layer_dim_heatmap
from probes.report.figures.latency import latency_per_layer
from probes.report.figures.metrics import layer_metrics
from probes.report.figures.pareto import pareto_front, quality_latency

__all__ = [
    "FIGURES",
    "FigureCard",
    "Marks",
    "cards",
    "concept_depth",
    "figure",
    "latency_per_layer",
    "layer_dim_heatmap",
    "layer_metrics",
    "pareto_front",
    "quality_latency",
    "quality_over_layers",
]
