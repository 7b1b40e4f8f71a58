"""What a study of layer quality does, and how its parts are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PARTS: Mapping[str, str] = {
    "untrained": "the same metrics with fresh weights, as a control",
    "tokens": "metrics within a text: prompt entropy, curvature, smoothness, DC share",
    "views": "metrics of two views of a text: InfoNCE, DiME, LiDAR, alignment",
    "attention": "high-frequency gain of every head",
    "similarity": "CKA of every two layers, block influence, spectra",
    "agreement": "rank correlation over layers of every metric with measured quality",
    "drops": "quality with stretches of blocks left out",
}


@dataclass(frozen=True)
class QualityPlan:
    """How layers are measured.

    `pooling` and `max_length` (tokens) default to the model's own; `draws` are bootstrap draws; `view_texts`,
    `token_texts` and `attention_texts` bound the texts behind the costlier metrics; `parts` are names in `PARTS`.
    """

    pooling: str | None = None
    max_length: int | None = None
    draws: int = 1000
    seed: int = 0
    parts: frozenset[str] = field(default_factory=lambda: frozenset(PARTS))
    view_texts: int = 500
    token_texts: int = 500
    attention_texts: int = 50
