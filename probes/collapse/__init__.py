"""Embedding collapse: what long texts, anisotropy, the output head and index size do to embeddings, and what helps."""

from __future__ import annotations

from probes.collapse.length import Length, LengthResult, study_lengths, token_bins
from probes.collapse.measures import COLLAPSE_ONSET, COLLAPSE_SLOPE, HEAD_SPECTRUM_KL
from probes.collapse.plan import CollapsePlan, Places
from probes.collapse.study import Study, study_collapse
from probes.collapse.texts import StudyTexts, study_texts

__all__ = [
    "COLLAPSE_ONSET",
    "COLLAPSE_SLOPE",
    "HEAD_SPECTRUM_KL",
    "CollapsePlan",
    "Length",
    "LengthResult",
    "Places",
    "Study",
    "StudyTexts",
    "study_collapse",
    "study_lengths",
    "study_texts",
    "token_bins",
]
