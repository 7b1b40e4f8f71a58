"""Names of a circuit study: what the command line offers, known without loading any of it."""

from __future__ import annotations

PARTS = ("attribution", "patching", "faithfulness", "lens", "flow", "graph", "neurons")
TASK_PARTS = ("attribution", "patching", "faithfulness", "lens")  # done for every task
TASKS = (
    "ioi",
    "greater_than",
    "docstring",
    "subject_verb",
    "factual_recall",
    "coloured_objects",
    "list_recall",
)
LEVELS = ("resid", "attn", "mlp", "head")
POSITIONS = ("all", "changed", "last", "other")
RANKINGS = ("activation", "attribution", "dla", "random")
