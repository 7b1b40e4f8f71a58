"""Numbers that ablations are judged by; known without loading torch."""

from __future__ import annotations

from probes.registry import Measure, register_measure

_WU = "Wu et al. 2024 (Retrieval Head Mechanistically Explains Long-Context Factuality, arXiv 2404.15574)"

NEEDLE_ACCURACY = register_measure(
    Measure(
        "needle_accuracy",
        "Needle accuracy",
        "",
        0.0,
        1.0,
        "up",
        "Share of trials in which every token of the needle's answer is the model's first guess.",
        _WU,
    )
)
ANSWER_LOGPROB = register_measure(
    Measure(
        "answer_logprob",
        "Answer log-probability",
        "nats",
        None,
        0.0,
        "up",
        "Log-probability of the needle's answer, summed over its tokens.",
        _WU,
    )
)
CONTROL_LOGPROB = register_measure(
    Measure(
        "control_logprob",
        "Plain text log-probability",
        "nats",
        None,
        0.0,
        "up",
        "Mean log-probability of the next token of plain text, where it is new to the text: a task that needs no "
        "retrieval.",
        _WU,
    )
)
