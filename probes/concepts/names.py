"""Names of controls and parts of a concept study: what the command line offers, known without loading any of it."""

from __future__ import annotations

CONTROLS = ("shuffled", "control-task", "untrained", "bag-of-words")
PARTS = (
    "mdl",
    "few-shot",
    "scalar-mix",
    "magnitude",
    "preference",
    "over-time",
    "transfer",
    "directions",
    "depth-tests",
    "erasure",
    "causal",
)
