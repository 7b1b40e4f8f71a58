"""Numbers of weights that are kept in tables; known without loading torch."""

from __future__ import annotations

from probes.registry import Measure, register_measure

COMPOSITION = register_measure(
    Measure(
        "composition",
        "Composition",
        "",
        0.0,
        1.0,
        "none",
        "How much of what one head writes another one reads: the norm of the product of their matrices over the "
        "product of the norms.",
        "Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits); Merullo et al. 2024 (Talking Heads, "
        "arXiv 2406.09519)",
    )
)
COPYING = register_measure(
    Measure(
        "copying_score",
        "Copying",
        "",
        -1.0,
        1.0,
        "none",
        "Sum of the eigenvalues of a head's map from tokens to logits over the sum of their sizes: 1 where attending "
        "to a token raises that very token.",
        "Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits)",
    )
)
