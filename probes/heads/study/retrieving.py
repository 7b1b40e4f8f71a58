"""The part `retrieval`: trials until the ranking settles, and one of them to look at."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from probes.errors import DoesNotApply
from probes.heads.retrieval import (
    PlannedTrial,
    attention_example,
    check_retrieval,
)
from probes.heads.retrieval.study import Trials
from probes.heads.retrieval.summary import agreed_notes, needle_notes, not_answered
from probes.heads.study.enough import check_haystack

if TYPE_CHECKING:
    from probes.heads.study.study import Study

RARELY = 20  # times longer between two writings than a writing takes, so that long runs do not drown in them
AT_LEAST = 2.0  # seconds between two writings


def retrieval(study: Study) -> None:
    """tables/trials, head_trials, running, attention_tokens, attention_rows; scores of every head."""
    check_retrieval(study.model)
    plan = study.plan.trials
    check_haystack(study.haystack, study.plan)
    planned = study.planned(plan.count)
    longest = max(planned, key=lambda each: each.tokens)
    longest.build(
        study.model, study.haystack, study.chat
    )  # what cannot be is said before any trial
    mode: Any = plan.mode
    run = Trials(study.model, study.haystack, planned, study.scores, mode, plan.extras, study.chat)
    written = _Writing(study)
    study.progress(0, len(planned), "trials")
    for done in run(plan.early_stop):
        study.progress(done, len(planned), "trials")
        written.now_and_then()
    notes = dict.fromkeys(run.notes)
    _write(study)
    seed = study.plan.seed
    summary = study.scores.summary_rows(seed=seed)
    study.add([*study.scores.rows(seed=seed), *summary])
    if plan.needles.path is None and study.model.is_causal:
        notes[
            "the built-in facts were worded so that smollm2 answers most of them: the share of trials answered says "
            "little about how well a model retrieves"
        ] = None
    study.tell([*notes, *(needle_notes(study.scores) or agreed_notes(summary))])
    if not study.model.is_causal:
        return
    if not study.scores.answered:
        raise DoesNotApply(
            f"{study.model.name} {not_answered(study.scores)}: give --needles a lead that the answer completes, use "
            "shorter --lengths, easier needles, or a model that answers questions"
        )
    _example(study, planned)


@dataclass
class _Writing:
    """Writes the trials down from time to time, so that a stopped run repeats few of them."""

    study: Study
    last: float = field(default_factory=time.monotonic)
    took: float = 0.0

    def now_and_then(self) -> None:
        if time.monotonic() - self.last > max(AT_LEAST, RARELY * self.took):
            started = time.monotonic()
            _write(self.study)
            self.last = time.monotonic()
            self.took = self.last - started


def _write(study: Study) -> None:
    trials, heads = study.scores.frames()
    study.write("trials", trials)
    study.write("head_trials", heads)
    study.write("running", study.scores.running())


def _example(study: Study, planned: list[PlannedTrial]) -> None:
    """The shortest of the answered trials, as all heads see it."""
    answered = [each for each in planned if each.index in study.scores.answered]
    shown = min(answered, key=lambda each: (each.tokens, each.index))
    trial = shown.build(study.model, study.haystack, study.chat)
    tokens, rows = attention_example(study.model, trial)
    for name, frame in (("attention_tokens", tokens), ("attention_rows", rows)):
        study.write(name, cast("Any", frame).assign(example=0))
