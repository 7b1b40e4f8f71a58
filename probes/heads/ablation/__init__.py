"""Ablation: take heads out of a live model, and see whether it does worse than without as many others.

`ablate_heads` is the edit; `causal_check` compares the best heads of a ranking with random ones from the same blocks;
`single_head_effects` takes heads out one by one.
"""

from __future__ import annotations

from probes.heads.ablation.check import CheckOptions, causal_check, draw_of, without_random
from probes.heads.ablation.edit import ablate_heads, mean_outputs
from probes.heads.ablation.judge import Judge
from probes.heads.ablation.matched import MatchedHeads, matched_random_heads, spared
from probes.heads.ablation.ranking import HeadId, all_heads, head_name, ranked
from probes.heads.ablation.single import effect_agreement, single_head_effects

__all__ = [
    "CheckOptions",
    "HeadId",
    "Judge",
    "MatchedHeads",
    "ablate_heads",
    "all_heads",
    "causal_check",
    "draw_of",
    "effect_agreement",
    "head_name",
    "matched_random_heads",
    "mean_outputs",
    "ranked",
    "single_head_effects",
    "spared",
    "without_random",
]
