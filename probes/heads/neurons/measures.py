"""Numbers of neurons that are kept in tables; known without loading torch."""

from __future__ import annotations

from probes.registry import Measure, register_measure

ACTIVATION_SPARSITY = register_measure(
    Measure(
        "activation_sparsity",
        "Activation sparsity",
        "",
        0.0,
        1.0,
        "none",
        "Share of a block's neurons whose size is below 1 % of the token's largest one, zeros included.",
        "Liu et al. 2023 (Deja Vu, arXiv 2310.17157)",
    )
)
CORE_STABILITY = register_measure(
    Measure(
        "core_stability",
        "Stability of core neurons",
        "",
        0.0,
        1.0,
        "up",
        "Overlap (Jaccard) of the core neurons of the first half of a text with those of the whole text.",
        "Wang et al. 2024 (CoreInfer, arXiv 2410.18311)",
    )
)
CORE_SIMILARITY = register_measure(
    Measure(
        "core_similarity",
        "Core neurons follow meaning",
        "",
        -1.0,
        1.0,
        "up",
        "Rank correlation, over pairs of texts, of the overlap of their core neurons with the pair's similarity score.",
        "Wang et al. 2024 (CoreInfer, arXiv 2410.18311)",
    )
)
