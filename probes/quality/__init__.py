"""Layer quality: label-free diagnostics of every layer beside measured quality, and which of them to trust."""

from __future__ import annotations

from probes.quality.agreement import label_agreement
from probes.quality.drops import Stretch, choose_stretches, measure_drops, stretch_influence
from probes.quality.measured import Judge, Quality
from probes.quality.plan import PARTS, QualityPlan
from probes.quality.study import study_quality
from probes.quality.views import VIEWS, Views, make_views

__all__ = [
    "PARTS",
    "VIEWS",
    "Judge",
    "Quality",
    "QualityPlan",
    "Stretch",
    "Views",
    "choose_stretches",
    "label_agreement",
    "make_views",
    "measure_drops",
    "stretch_influence",
    "study_quality",
]
