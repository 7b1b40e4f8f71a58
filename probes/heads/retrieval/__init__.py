"""Retrieval heads: which heads copy an answer out of a long context, by exact trials with known places."""

from __future__ import annotations

from probes.heads.retrieval.example import attention_example, token_frame
from probes.heads.retrieval.haystack import Haystack, haystack_ids
from probes.heads.retrieval.hits import copy_scores, top_keys
from probes.heads.retrieval.needles import Needle, builtin_needles, distractors_for, load_needles
from probes.heads.retrieval.plan import DEPTHS, LENGTHS, PlannedTrial, plan_trials
from probes.heads.retrieval.replies import Reply, answer_trial, decode_trial
from probes.heads.retrieval.running import RunningScores
from probes.heads.retrieval.scores import TrialResult, check_retrieval, measure_trial
from probes.heads.retrieval.study import retrieval_scores
from probes.heads.retrieval.trials import Placed, Trial, build_trial

__all__ = [
    "DEPTHS",
    "LENGTHS",
    "Haystack",
    "Needle",
    "Placed",
    "PlannedTrial",
    "Reply",
    "RunningScores",
    "Trial",
    "TrialResult",
    "answer_trial",
    "attention_example",
    "build_trial",
    "builtin_needles",
    "check_retrieval",
    "copy_scores",
    "decode_trial",
    "distractors_for",
    "haystack_ids",
    "load_needles",
    "measure_trial",
    "plan_trials",
    "retrieval_scores",
    "token_frame",
    "top_keys",
]
