"""What is asked of a model while heads are ablated: fresh trials, and plain text beside them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.replay import Replay, keeping, starting_at
from probes.heads.ablation import Judge
from probes.heads.ablation.edit import ablated_from
from probes.heads.retrieval import PlannedTrial, Reply, Trial, answer_trial
from probes.heads.retrieval.pieces import leading_ids
from probes.heads.study.control import ControlTask

if TYPE_CHECKING:
    from probes.heads.study.study import Study
    from probes.models import Model

SINGLE_TRIALS = 6  # these parts ask them for each head, and for each rank
_WINDOWS = (8, 256)  # rows of text and tokens of each


@dataclass(frozen=True)
class Questions:
    """Trials and windows of plain text, judged together; item i is trial i and window i."""

    planned: list[PlannedTrial]
    trials: list[Trial]
    control: ControlTask | None

    def judge(self) -> Judge:
        """Accuracy and log-probability of answers, and log-probability of plain text where there are windows of it."""
        kept: dict[int, Replay] = {}

        def read(model: Any, items: NDArray[np.int64]) -> dict[str, Any]:
            replies = [_reply(model, self.trials[item], int(item), kept) for item in items]
            found: dict[str, Any] = {
                "needle_accuracy": [float(reply.answered) for reply in replies],
                "answer_logprob": [reply.logprob for reply in replies],
            }
            if self.control is not None:
                found["control_logprob"] = self.control.logprobs(model, items)
            return found

        return Judge(len(self.trials), read, self.groups())

    def groups(self) -> NDArray[Any]:
        """(n,): trials about one needle count as one draw."""
        return np.asarray([each.needle.name for each in self.planned])


def _reply(model: Model, trial: Trial, item: int, kept: dict[int, Replay]) -> Reply:
    """What the model says, heads ablated or not; blocks before the first ablated one run once for all ablations."""
    first = ablated_from(model)
    if first is None or first < 1:
        return answer_trial(model, trial)
    held = kept.get(item)
    with contextlib.ExitStack() as stack:
        if held is not None and held.layer <= first:
            stack.enter_context(starting_at(model, held))
        if held is None or held.layer != first:
            found = stack.enter_context(keeping(model, first))
            reply = answer_trial(model, trial)
            kept[item] = found[0]
            return reply
        return answer_trial(model, trial)


def questions(study: Study, n: int) -> Questions:
    """`n` trials that did not rank the heads (see `Study.divided`), with as many windows of plain text."""
    return _asked(study, study.judging(n))


def short_questions(study: Study) -> Questions:
    """Few such trials of the shortest length, for what is asked many times."""
    return _asked(study, short_trials(study, min(SINGLE_TRIALS, study.plan.ablations.trials)))


def short_trials(study: Study, n: int) -> list[PlannedTrial]:
    """The first `n` of the shortest length."""
    plan = study.plan.trials
    several = plan.needles.several
    # A round of contexts meets every length at every depth, so that this many rounds hold enough of any length.
    rounds = -(-n // (len(plan.depths) * several))
    more = study.judging(rounds * len(plan.lengths) * len(plan.depths) * several)
    return [each for each in more if each.tokens == min(plan.lengths)][:n]


def _asked(study: Study, planned: list[PlannedTrial]) -> Questions:
    if note := study.shared_needles:
        study.tell([note])
    trials = [each.build(study.model, study.haystack, study.chat) for each in planned]
    before = leading_ids(study.model.require_tokenizer())
    seed = study.plan.seed
    control = ControlTask.of(study.haystack.ids, len(trials), seed=seed, before=before)
    return Questions(planned, trials, control)


def windows(study: Study) -> list[list[int]]:
    """Token rows of the study's text, no needles in them: what means and directions are taken over.

    Each begins as the tokenizer begins every text, since heads do otherwise on text without its beginning.
    """
    rows, length = _WINDOWS
    ids = study.haystack.ids
    before = leading_ids(study.model.require_tokenizer())
    length = min(length, len(ids) // rows, study.model.max_length - len(before))
    return [[*before.tolist(), *ids[i * length : (i + 1) * length].tolist()] for i in range(rows)]
