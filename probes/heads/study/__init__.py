"""The study behind `fathometer run retrieval-heads`."""

from __future__ import annotations

from probes.heads.study.enough import check_text
from probes.heads.study.plan import AblationPlan, HeadPlan, NeedlePlan, TrialPlan
from probes.heads.study.study import Study, study_heads

__all__ = [
    "AblationPlan",
    "HeadPlan",
    "NeedlePlan",
    "Study",
    "TrialPlan",
    "check_text",
    "study_heads",
]
