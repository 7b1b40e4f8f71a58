"""Scores of every head on one trial: copied tokens, attention from the question, contribution to the answer."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import Tensor

from probes.errors import DoesNotApply, InputError
from probes.heads.retrieval.contribution import contributions
from probes.heads.retrieval.hits import copy_scores
from probes.heads.retrieval.passes import Context, aside, empty_context, head_blocks, read_on
from probes.heads.retrieval.replies import Reply, decode_trial, read_reply
from probes.heads.retrieval.sight import (
    Scores,
    Sight,
    encoder_mass,
    final_states,
    null_mass,
    present,
    range_rows,
)
from probes.heads.retrieval.trials import Trial
from probes.models.completions import require_language_model

if TYPE_CHECKING:
    from probes.models import Model

Mode = Literal["forced", "decode"]
MODES = ("forced", "decode")


@dataclass(frozen=True, eq=False)
class TrialResult:
    """Scores (block, head) of one trial; NaN for heads that a block does not have, None where not measured.

    `score` in [0, 1], `mass` in [-1, 1], `contribution` in logits. `emitted` and `expected` are texts.
    `why` says for "score", "mass" and "contribution" why it is None.
    """

    score: Scores | None
    mass: Scores | None
    contribution: Scores | None
    answered: bool | None
    logprob: float | None
    emitted: str | None
    ranks: tuple[int, ...]
    why: dict[str, str]


def measure_trial(
    model: Model, trial: Trial, mode: Mode = "forced", extras: bool = True
) -> TrialResult:
    """Scores of all heads on one trial (arXiv 2404.15574, 2506.09944).

    mode "forced": the answer is given and read in the same pass; a head scores a token where the model's first
    choice is that token. "decode": the model goes on greedily from its own words, as many tokens as the answer has.
    Where it answers verbatim both are the same numbers; where it does not, forced tells what would have been copied.

    `extras` adds `mass` (attention of the question to the needle sentence, less that of the question "N/A" in the
    same context), `contribution` (see `probes.heads.retrieval.contribution`) and, in decode mode, the answer's
    log-probability. Both come from teacher-forced rows whatever the mode.

    For an encoder the trial is a pair question, document: only `mass` is defined.
    Raises `InputError` for an unknown mode, `DoesNotApply` where the model has no heads or no language-model head.
    """
    if mode not in MODES:
        raise InputError(f"mode {mode!r}: 'forced' or 'decode' are allowed")
    head_blocks(model)
    if not trial.reply:
        why = f"{model.name} sees all tokens at once and says no answer"
        return _result(
            model,
            None,
            None,
            encoder_mass(model, trial),
            None,
            dict.fromkeys(("score", "contribution"), why),
        )
    require_language_model(model)
    forced = _forced(model, trial, extras) if mode == "forced" or extras else None
    if mode == "forced":
        assert forced is not None
        reply, score = forced.reply, forced.score
    else:
        reply, score = decode_trial(model, trial)
        if forced is not None:
            reply = Reply(reply.emitted, reply.answered, forced.reply.logprob, forced.reply.ranks)
    if forced is None or not extras:
        why = {"mass": "not asked for", "contribution": "not asked for"}
        return _result(model, reply, score, None, None, why)
    why = {"contribution": forced.why} if forced.why else {}
    return _result(model, reply, score, forced.mass, forced.contribution, why)


def _result(
    model: Model,
    reply: Reply | None,
    score: Scores | None,
    mass: Scores | None,
    contribution: Scores | None,
    why: dict[str, str],
) -> TrialResult:
    if reply is None:
        return TrialResult(score, mass, contribution, None, None, None, (), why)
    ranks = () if reply.ranks is None else tuple(int(rank) for rank in reply.ranks)
    said = model.tokenizer.decode(reply.emitted.tolist())
    return TrialResult(score, mass, contribution, reply.answered, reply.logprob, said, ranks, why)


@dataclass(frozen=True, eq=False)
class _Forced:
    reply: Reply
    score: Scores
    mass: Scores | None
    contribution: Scores | None
    why: str | None


def _forced(model: Model, trial: Trial, extras: bool) -> _Forced:
    """One pass over prompt and answer; with extras the context is read once and both questions follow it."""
    first = trial.spans["context"].stop if extras else 0
    context: Context | None = None
    empty: Scores | None = None
    if extras:
        context = empty_context(model)
        read_on(model, trial.ids[:first], context)
        with aside(context) as other:
            empty = null_mass(model, trial, other, first)
    sight = Sight(model, trial, first, extras)
    kept: list[Tensor] = []
    with final_states(model, kept) if sight.reading else contextlib.nullcontext():
        output = read_on(model, trial.forced_ids[first:], context, sight)
    reply = read_reply(model, trial, output, first)
    said = np.where(reply.emitted == trial.answer_ids, reply.emitted, -1)
    score = present(model, copy_scores(sight.tops, said, trial.ids, trial.answer))
    if empty is None:
        return _Forced(reply, score, None, None, None)
    contribution = None
    if sight.read and not sight.unseen:
        final = kept[0][range_rows(trial.rows, first)]
        contribution = contributions(model, final, trial.answer_ids, sight.read)
    return _Forced(reply, score, sight.mass - empty, contribution, sight.unseen)


def check_retrieval(model: Model) -> None:
    """`DoesNotApply` with the reason where retrieval trials say nothing about this model."""
    if model.kind == "vision":
        raise DoesNotApply(f"{model.name} reads images: a needle is a sentence")
    head_blocks(model)
    if model.is_causal:
        require_language_model(model)
