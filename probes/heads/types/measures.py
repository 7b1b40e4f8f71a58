"""What heads attend to, as numbers of the tidy table."""

from __future__ import annotations

from probes.registry import Measure, register_measure

_OLSSON = "Olsson et al. 2022 (In-context Learning and Induction Heads, arXiv 2209.11895)"
_SHARE = ("", 0.0, 1.0, "none")

INDUCTION = register_measure(
    Measure(
        "induction_score",
        "Induction score",
        *_SHARE,
        "Attention, in random tokens that repeat, from a token to the one that followed its last occurrence; mean "
        "over all tokens of the repetitions.",
        _OLSSON,
    )
)
PREVIOUS = register_measure(
    Measure(
        "previous_token_score",
        "Previous-token score",
        *_SHARE,
        "Attention from a token to the one right before it, on random tokens.",
        _OLSSON,
    )
)
DUPLICATE = register_measure(
    Measure(
        "duplicate_token_score",
        "Duplicate-token score",
        *_SHARE,
        "Attention, in random tokens that repeat, from a token to its last occurrence; mean over all tokens of the "
        "repetitions.",
        "Wang et al. 2022 (Interpretability in the Wild, arXiv 2211.00593)",
    )
)
ENTROPY = register_measure(
    Measure(
        "attention_entropy",
        "Attention entropy",
        *_SHARE,
        "Entropy of a token's attention over that of equal attention to all tokens it may see: 0 for one token, 1 for "
        "all alike.",
        "Ghader & Monz 2017 (What does Attention in Neural Machine Translation Pay Attention to?, arXiv 1710.03348)",
    )
)
SINK = register_measure(
    Measure(
        "sink_share",
        "Share of the first token",
        *_SHARE,
        "Attention that the first token of a text gets, a special one where there is one.",
        "Xiao et al. 2023 (Efficient Streaming Language Models with Attention Sinks, arXiv 2309.17453)",
    )
)
DISTANCE = register_measure(
    Measure(
        "attention_distance",
        "Attention distance",
        "tokens",
        0.0,
        None,
        "none",
        "Mean number of tokens between a token and what it attends to.",
        "Vig & Belinkov 2019 (Analyzing the Structure of Attention, arXiv 1906.04284)",
    )
)
COLUMN_MASS = register_measure(
    Measure(
        "max_column_mass",
        "Largest column mass",
        *_SHARE,
        "Attention that the most attended token of a text gets, mean over the tokens that attend.",
        "Han et al. 2023 (HyperAttention, arXiv 2310.05869)",
    )
)
LOCAL = register_measure(
    Measure(
        "local_share",
        "Local share",
        *_SHARE,
        "Attention to tokens at most 16 away, the token itself included.",
        "Xiao et al. 2024 (DuoAttention: Retrieval and Streaming Heads, arXiv 2410.10819)",
    )
)

ON_RANDOM_TOKENS = (INDUCTION, PREVIOUS, DUPLICATE)
SHAPES = (ENTROPY, SINK, DISTANCE, COLUMN_MASS, LOCAL)
