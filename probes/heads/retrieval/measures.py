"""Numbers of a study of retrieval heads that are kept in the tidy table."""

from __future__ import annotations

from probes.registry import Measure, register_measure

_WU = "Wu et al. 2024 (Retrieval Head Mechanistically Explains Long-Context Factuality, arXiv 2404.15574)"

RETRIEVAL_SCORE = register_measure(
    Measure(
        "retrieval_score",
        "Retrieval score",
        "",
        0.0,
        1.0,
        "none",
        "Share of the answer's distinct tokens that the model says while the head looks most at that very token of "
        "the needle; mean over the trials that the model answers verbatim.",
        _WU,
    )
)
QUERY_MASS = register_measure(
    Measure(
        "query_mass",
        "Query-focused attention",
        "",
        -1.0,
        1.0,
        "none",
        "Attention from the question's tokens to the needle sentence, less the same for the content-free question "
        "N/A; mean over question tokens and trials.",
        "Zhang et al. 2025 (Query-Focused Retrieval Heads, arXiv 2506.09944)",
    )
)
COPY_CONTRIBUTION = register_measure(
    Measure(
        "copy_contribution",
        "Copy contribution",
        "logits",
        None,
        None,
        "none",
        "What the head reads at the answer in the needle and adds to the logit of the answer's next token over the "
        "mean token, to first order, less what it adds from all other places.",
    )
)
RETRIEVAL_SHARE = register_measure(
    Measure(
        "retrieval_share",
        "Share of retrieval heads",
        "",
        0.0,
        1.0,
        "none",
        "Share of all attention heads with a retrieval score of at least 0.1.",
        _WU,
    )
)
RETRIEVAL_ZERO_SHARE = register_measure(
    Measure(
        "retrieval_zero_share",
        "Share of heads that never retrieve",
        "",
        0.0,
        1.0,
        "none",
        "Share of all attention heads whose retrieval score is exactly 0.",
        _WU,
    )
)
SPLIT_HALF_OVERLAP = register_measure(
    Measure(
        "split_half_overlap",
        "Overlap of two halves",
        "",
        0.0,
        1.0,
        "up",
        "Share of the top 20 heads of every other trial that are among the top 20 of the remaining trials.",
    )
)
SPLIT_HALF_SPEARMAN = register_measure(
    Measure(
        "split_half_spearman",
        "Rank correlation of two halves",
        "",
        -1.0,
        1.0,
        "up",
        "Spearman correlation over heads between the scores of every other trial and those of the remaining trials.",
    )
)
ANSWERED_SHARE = register_measure(
    Measure(
        "answered_share",
        "Trials answered",
        "",
        0.0,
        1.0,
        "up",
        "Share of the trials in which every token of the answer is the model's first choice.",
    )
)
