"""Names and defaults of the study of retrieval heads: what the command line offers, known without loading any of it."""

from __future__ import annotations

PARTS = ("retrieval", "ablation", "single", "types", "shapes", "composition", "low-rank")
LENGTHS = (500, 1000)  # tokens
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
KS = (1, 2, 5, 10, 20, 50)
MODES = ("zero", "mean")
