"""The parts `ablation` and `single`: what the model still finds without its best heads, against random ones."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.capture.replay import Replay, keeping, starting_at
from probes.errors import DoesNotApply, InputError
from probes.heads.ablation import (
    CheckOptions,
    Judge,
    ablate_heads,
    all_heads,
    causal_check,
    effect_agreement,
    matched_random_heads,
    mean_outputs,
    single_head_effects,
)
from probes.heads.ablation.check import without_random
from probes.heads.ablation.edit import ablated_from
from probes.heads.ablation.measures import ABLATION_AGREEMENT
from probes.heads.ablation.paired import mean_bounds
from probes.heads.retrieval import PlannedTrial, Reply, Trial, answer_trial
from probes.heads.study.control import ControlTask
from probes.heads.weights import low_rank_curve

if TYPE_CHECKING:
    from probes.heads.study.study import HeadId, Study
    from probes.models import Model

SINGLE_TRIALS = 8
GRID_HEADS = 10
SCORED = 0.1
_WINDOWS = (8, 256)  # rows of text and tokens of each
_FRESH = 1_000_003  # added to the seed: contexts that the ranking has not seen


@dataclass(frozen=True)
class Questions:
    """Trials and windows of plain text, judged together; item i is trial i and window i."""

    planned: list[PlannedTrial]
    trials: list[Trial]
    control: ControlTask

    def judge(self) -> Judge:
        """Accuracy and log-probability of answers, and log-probability of plain text."""

        kept: dict[int, Replay] = {}

        def read(model: Any, items: NDArray[np.int64]) -> dict[str, Any]:
            replies = [_reply(model, self.trials[item], int(item), kept) for item in items]
            return {
                "needle_accuracy": [float(reply.answered) for reply in replies],
                "answer_logprob": [reply.logprob for reply in replies],
                "control_logprob": self.control.logprobs(model, items),
            }

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


def questions(study: Study, n: int, lengths: Sequence[int] | None = None) -> Questions:
    """`n` fresh trials (of the given lengths only) with as many windows of plain text."""
    seed = study.plan.seed + _FRESH
    planned = study.planned(n, seed)
    if (
        lengths is not None
    ):  # lengths come in turn, so that twice as many trials hold enough of each
        more = study.planned(2 * n * len(study.plan.trials.lengths), seed)
        planned = [each for each in more if each.tokens in lengths][:n]
    trials = [each.build(study.model, study.haystack, study.chat) for each in planned]
    control = ControlTask.of(study.haystack.ids, len(trials), seed=seed)
    return Questions(planned, trials, control)


def ablation(study: Study) -> None:
    """tables/ablation and ablation_grid: the best k heads taken out, against as many random ones."""
    plan = study.plan.ablations
    ranking = study.ranking
    asked = questions(study, plan.trials)
    judge = asked.judge()
    whole = judge(study.model)
    if not np.any(whole["needle_accuracy"]):
        raise DoesNotApply(
            f"{study.model.name} answered none of {judge.n} fresh trials: there is nothing to lose"
        )
    options = CheckOptions(plan.modes, plan.random_sets, scored=SCORED, seed=study.plan.seed)
    means = mean_outputs(study.model, windows(study)) if "mean" in plan.modes else None
    table = causal_check(
        study.model,
        judge,
        ranking,
        plan.ks,
        options,
        means=means,
        progress=study.report("ablation"),
    )
    study.tell(table.attrs["notes"])
    study.write("ablation", table)
    _grid(study, asked, whole, plan.random_sets)


def windows(study: Study) -> list[NDArray[np.int64]]:
    """Token rows of the study's text, no needles in them: what means and directions are taken over."""
    rows, length = _WINDOWS
    ids = study.haystack.ids
    length = min(length, len(ids) // rows, study.model.max_length)
    return [ids[i * length : (i + 1) * length] for i in range(rows)]


def _grid(
    study: Study, asked: Questions, whole: dict[str, NDArray[np.float64]], draws: int
) -> None:
    """Answers by length and depth: of the whole model, without its best heads, and without random ones."""
    ranking = list(study.ranking)
    k = min(GRID_HEADS, max(study.plan.ablations.ks), len(ranking) // 4)
    if k < 1:
        return
    spared = scored(study.ranking)
    rng = np.random.default_rng(study.plan.seed)
    try:
        control = matched_random_heads(ranking[:k], all_heads(study.model), draws, rng, spared)
    except InputError as reason:
        study.tell([f"no grid of length and depth: {reason}"])
        return
    judge = asked.judge()
    with ablate_heads(study.model, ranking[:k]):
        top = judge(study.model)
    random = without_random(study.model, judge, control, study.plan.seed)
    found = {None: whole, f"zero=top{k}": top, f"zero=random{k}": random}
    study.write("ablation_grid", _cells(asked, found, study.plan.seed))


def _cells(
    asked: Questions, found: dict[str | None, dict[str, NDArray[np.float64]]], seed: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    places = [(each.tokens, each.depth) for each in asked.planned]
    for variant, values in found.items():
        for tokens, depth in sorted(set(places)):
            inside = np.asarray([place == (tokens, depth) for place in places])
            for measure in ("needle_accuracy", "answer_logprob"):
                value, low, high = mean_bounds(values[measure][inside], [np.arange(inside.sum())])
                rows.append(
                    {
                        "variant": variant, "tokens": tokens, "depth": depth, "measure": measure, "value": value,
                        "low": low, "high": high, "n": int(inside.sum()), "seed": seed,
                    }
                )  # fmt: skip
    return rows


def single(study: Study) -> None:
    """tables/single: heads taken out one by one; whether those that score high are those that matter."""
    ranking = study.ranking
    plan = study.plan.ablations
    heads = chosen_heads(ranking, plan.single, study.plan.seed)
    asked = short_questions(study)
    table = single_head_effects(
        study.model,
        asked.judge(),
        heads,
        scores=ranking,
        seed=study.plan.seed,
        progress=study.report("heads one by one"),
    )
    study.write("single", table)
    for measure in ("answer_logprob", "control_logprob"):
        try:
            found = effect_agreement(table, measure, seed=study.plan.seed)
        except DoesNotApply as reason:
            study.tell([str(reason)])
            continue
        study.add(
            [
                {
                    "measure": ABLATION_AGREEMENT.name, "site": "z", "variant": measure, "value": found.value,
                    "low": found.low, "high": found.high, "n": found.n, "seed": found.seed,
                }
            ]
        )  # fmt: skip


def low_rank(study: Study) -> None:
    """tables/low_rank: how many directions of their circuits the best heads need, against random heads."""
    ranking = study.ranking
    heads = list(ranking)[:GRID_HEADS]
    asked = short_questions(study)
    study.progress(0, None, "few directions")
    table = low_rank_curve(
        study.model,
        asked.judge(),
        heads,
        calibration=windows(study),
        exclude=scored(ranking),
        seed=study.plan.seed,
    )
    study.tell(table.attrs.get("notes", ()))
    if table.empty:
        raise DoesNotApply(f"low rank in {study.model.name}: {'; '.join(table.attrs['notes'])}")
    study.write("low_rank", table)


def short_questions(study: Study) -> Questions:
    """Few trials of the shortest length, for what is asked many times."""
    n = min(SINGLE_TRIALS, study.plan.ablations.trials)
    return questions(study, n, [min(study.plan.trials.lengths)])


def scored(ranking: dict[HeadId, float]) -> set[HeadId]:
    """Heads that belong in no random set."""
    return {head for head, score in ranking.items() if score >= SCORED}


def chosen_heads(ranking: dict[HeadId, float], n: int, seed: int) -> list[HeadId]:
    """The best n/2 heads, and as many drawn from the rest; all where there are no more.

    >>> chosen_heads({(0, 0): 0.9, (0, 1): 0.1, (1, 0): 0.0, (1, 1): 0.0}, 2, seed=0)[0]
    (0, 0)
    """
    heads = list(ranking)
    if n >= len(heads):
        return heads
    best = heads[: (n + 1) // 2]
    rest = heads[len(best) :]
    picks = np.random.default_rng(seed).choice(len(rest), size=n - len(best), replace=False)
    return best + [rest[pick] for pick in sorted(picks)]
