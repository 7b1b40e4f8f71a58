"""Numbers of information flow that are kept in tables; known without loading torch."""

from __future__ import annotations

from probes.registry import Measure, register_measure

LABEL_FLOW = register_measure(
    Measure(
        "label_flow",
        "Information flow",
        "",
        0.0,
        None,
        "none",
        "Mean saliency |Σ A · ∂L/∂A| of attention from the text to the label words (wp), from the label words to the "
        "place of the answer (pq), or between any other two tokens (ww).",
        "Wang et al. 2023 (Label Words are Anchors, arXiv 2305.14160)",
    )
)
GRAPH_ENERGY = register_measure(
    Measure(
        "graph_energy",
        "Dirichlet energy",
        "",
        0.0,
        None,
        "none",
        "Mean squared distance of the states of words that are neighbours in the graph over that of any two words: 1 "
        "where the graph leaves no trace, below 1 where neighbours lie together.",
        "Park et al. 2025 (In-Context Learning of Representations, arXiv 2501.00070)",
    )
)
