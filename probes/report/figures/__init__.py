"""Figures: pure functions from a run's tables to a `FigureCard`, shared by the report and the dashboard.

A new figure is one file here with one `@figure(...)` registration; it returns None where its data are absent.
"""

from __future__ import annotations

from probes.report.figures.card import FIGURES, FigureCard, Marks, cards, figure
from probes.report.figures.circuit_attribution import attribution_map, component_attribution
from probes.report.figures.circuit_faithfulness import faithfulness_curves
from probes.report.figures.circuit_flow import graph_energy, graph_maps, label_flow, neuron_lines
from probes.report.figures.circuit_patching import patching_agreement, patching_lines, patching_map
from probes.report.figures.circuit_tasks import answer_lens, circuit_tasks
from probes.report.figures.collapse_head import head_bottleneck, mask_deficiency
from probes.report.figures.collapse_index import index_size
from probes.report.figures.collapse_length import collapse_slope, length_collapse, length_rank
from probes.report.figures.collapse_remedies import (
    chunking,
    remedies_at_layer,
    remedies_by_layer,
)
from probes.report.figures.collapse_temperature import temperature_gain, temperature_sweep
from probes.report.figures.concept_causal import causal_effects
from probes.report.figures.concept_conditions import condition_changes, condition_curves
from probes.report.figures.concept_depth import concept_depth
from probes.report.figures.concept_erasure import erasure_effects
from probes.report.figures.concept_lines import (
    code_length,
    direction_agreement,
    magnitude_law,
    own_preference,
)
from probes.report.figures.concept_mix import scalar_mix_shares
from probes.report.figures.concept_shots import few_shot_curves
from probes.report.figures.concept_summary import depth_differences, depth_summary
from probes.report.figures.concept_time import readable_over_time
from probes.report.figures.concept_transfer import transfer_layers, transfer_matrix
from probes.report.figures.depth import quality_over_layers
from probes.report.figures.focus import Focus
from probes.report.figures.head_ablation import head_ablation, needle_grid, single_effects
from probes.report.figures.head_composition import composition_blocks, composition_pairs
from probes.report.figures.head_scores import head_overlap, head_ranking, head_scores
from probes.report.figures.head_tokens import attention_on_tokens
from probes.report.figures.head_types import attention_shapes, head_types
from probes.report.figures.head_weights import head_spectra, low_rank_curves
from probes.report.figures.heatmap import layer_dim_heatmap
from probes.report.figures.label_agreement import label_agreement
from probes.report.figures.latency import latency_per_layer
from probes.report.figures.layer_drops import layer_drops
from probes.report.figures.layer_pairs import block_influence, frequency_gain, layer_similarity
from probes.report.figures.layer_spectra import layer_spectra
from probes.report.figures.metrics import layer_metrics
from probes.report.figures.panels import with_layer
from probes.report.figures.pareto import pareto_front, quality_latency
from probes.report.figures.sae_circuits import circuit_auc, circuit_maps
from probes.report.figures.sae_codes import sparse_codes
from probes.report.figures.sae_concepts import best_single, sparse_probing
from probes.report.figures.sae_effects import feature_effects
from probes.report.figures.sae_features import features_to_read
from probes.report.figures.sae_quality import loss_kept, reconstruction
from probes.report.figures.sae_training import density, training

__all__ = [
    "FIGURES",
    "FigureCard",
    "Focus",
    "Marks",
    "answer_lens",
    "attention_on_tokens",
    "attention_shapes",
    "attribution_map",
    "best_single",
    "block_influence",
    "cards",
    "causal_effects",
    "chunking",
    "circuit_auc",
    "circuit_maps",
    "circuit_tasks",
    "code_length",
    "collapse_slope",
    "component_attribution",
    "composition_blocks",
    "composition_pairs",
    "concept_depth",
    "condition_changes",
    "condition_curves",
    "density",
    "depth_differences",
    "depth_summary",
    "direction_agreement",
    "erasure_effects",
    "faithfulness_curves",
    "feature_effects",
    "features_to_read",
    "few_shot_curves",
    "figure",
    "frequency_gain",
    "graph_energy",
    "graph_maps",
    "head_ablation",
    "head_bottleneck",
    "head_overlap",
    "head_ranking",
    "head_scores",
    "head_spectra",
    "head_types",
    "index_size",
    "label_agreement",
    "label_flow",
    "latency_per_layer",
    "layer_dim_heatmap",
    "layer_drops",
    "layer_metrics",
    "layer_similarity",
    "layer_spectra",
    "length_collapse",
    "length_rank",
    "loss_kept",
    "low_rank_curves",
    "magnitude_law",
    "mask_deficiency",
    "needle_grid",
    "neuron_lines",
    "own_preference",
    "pareto_front",
    "patching_agreement",
    "patching_lines",
    "patching_map",
    "quality_latency",
    "quality_over_layers",
    "readable_over_time",
    "reconstruction",
    "remedies_at_layer",
    "remedies_by_layer",
    "scalar_mix_shares",
    "single_effects",
    "sparse_codes",
    "sparse_probing",
    "temperature_gain",
    "temperature_sweep",
    "training",
    "transfer_layers",
    "transfer_matrix",
    "with_layer",
]
