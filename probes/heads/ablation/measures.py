"""Numbers of ablation that are kept in the tidy table."""

from __future__ import annotations

from probes.registry import Measure, register_measure

ABLATION_AGREEMENT = register_measure(
    Measure(
        "ablation_agreement",
        "Score against effect",
        "",
        -1.0,
        1.0,
        "up",
        "Spearman correlation over heads between a head's score and how much the model loses when that head alone is "
        "ablated.",
        "Wu et al. 2024 (Retrieval Head Mechanistically Explains Long-Context Factuality, arXiv 2404.15574)",
    )
)
