"""Scores of every head on one trial: copied tokens, attention from the question, contribution to the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.errors import DoesNotApply, InputError
from probes.heads.retrieval.contribution import contributions, no_contribution, read_values
from probes.heads.retrieval.hits import copy_scores, top_keys
from probes.heads.retrieval.passes import (
    Context,
    empty_context,
    head_blocks,
    most_heads,
    read_on,
    row_logits,
)
from probes.heads.retrieval.trials import Trial
from probes.models.completions import require_language_model
from probes.models.trace import first_tensor

if TYPE_CHECKING:
    from probes.capture.attention_call import AttentionCall
    from probes.models import Model

Mode = Literal["forced", "decode"]
MODES = ("forced", "decode")
Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reply:
    """What the model says to a trial: first choices at the answer's rows, and how it rates the answer.

    `logprob` is the natural log-probability of the whole answer, `ranks` (A,) the rank (0: first) of each token.
    In decode mode the model goes on from its own words; `logprob` and `ranks` are None unless measured beside it.
    """

    emitted: NDArray[np.int64]
    answered: bool
    logprob: float | None
    ranks: NDArray[np.int64] | None


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
            _encoder_mass(model, trial),
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


def answer_trial(model: Model, trial: Trial) -> Reply:
    """What the model says, by one teacher-forced pass without looking at any attention."""
    require_language_model(model)
    return _reply(model, trial, read_on(model, trial.forced_ids), 0)


def _reply(model: Model, trial: Trial, output: Any, first: int) -> Reply:
    """The reply in an output whose position 0 is token `first` of the trial."""
    logits = row_logits(model, output, [row - first for row in trial.rows])
    target = torch.from_numpy(trial.answer_ids).to(logits.device)
    of_target = logits.gather(1, target[:, None])
    logprob = float((of_target[:, 0] - logits.logsumexp(1)).double().sum())
    ranks = (logits > of_target).sum(1).cpu().numpy()
    emitted = logits.argmax(1).cpu().numpy()
    answered = bool((emitted == trial.answer_ids).all())
    return Reply(emitted, answered, logprob, ranks)


@dataclass(frozen=True, eq=False)
class _Forced:
    reply: Reply
    score: Scores
    mass: Scores | None
    contribution: Scores | None
    why: str | None


class _Sight:
    """What is kept of each block's attention in the pass that reads the answer: sums and positions, no patterns."""

    def __init__(self, model: Model, trial: Trial, first: int, extras: bool) -> None:
        self.trial, self.first, self.extras = trial, first, extras
        shape = (model.n_layers, most_heads(model))
        self.tops = np.full((len(trial.rows), *shape), -1, np.int64)
        self.mass = np.full(shape, np.nan)
        self.reading = extras and no_contribution(model) is None
        self.read: dict[int, Tensor] = {}
        self.unseen: str | None = no_contribution(model) if extras else None

    def __call__(self, call: AttentionCall, key: int) -> None:
        trial = self.trial
        rows = [row - self.first for row in trial.rows]
        logits = call.logits(rows)[0].transpose(0, 1)  # (row, head, key)
        tops = top_keys(logits)
        heads = tops.shape[1]
        self.tops[:, call.block, :heads] = torch.where(tops < 0, -1, tops + key).cpu().numpy()
        if not self.extras:
            return
        question = range_rows(trial.question, self.first)
        self.mass[call.block, :heads] = span_mass(call, question, trial.sentence, key)
        if self.reading:
            weights = torch.softmax(logits, dim=-1).transpose(0, 1)  # (head, row, key)
            inside = span_keys(trial.answer, key, weights.shape[-1]).to(weights.device)
            values = read_values(call, rows, weights, inside)
            if values is None:
                self.unseen = "values cannot be seen in eager attention: load the model with attn_implementation='sdpa'"
            else:
                self.read[call.block] = values


def range_rows(span: range, first: int) -> list[int]:
    return [row - first for row in span]


def span_keys(span: range, key: int, n: int) -> Tensor:
    """Which of n keys, the first at position `key`, lie in `span`: (n,) bool."""
    places = torch.arange(key, key + n)
    return (places >= span.start) & (places < span.stop)


def span_mass(call: AttentionCall, rows: list[int], span: range, key: int) -> Scores:
    """Mean over `rows` of the attention that falls on `span`, (head,)."""
    pattern = call.pattern(rows)[0]  # (head, row, key)
    inside = span_keys(span, key, pattern.shape[-1]).to(pattern.device)
    return pattern[..., inside].sum(-1).mean(-1).double().cpu().numpy()


@contextlib.contextmanager
def _final_states(model: Model, kept: list[Tensor]) -> Generator[None]:
    """Puts the residual stream behind the last block, (token, d), into `kept`."""

    def keep(_module: Any, _args: Any, output: Any) -> None:
        found = first_tensor(output)
        assert found is not None
        kept.append(found[0])

    handle = model.structure.blocks[-1].module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


def _forced(model: Model, trial: Trial, extras: bool) -> _Forced:
    """One pass over prompt and answer; with extras the context is read once and both questions follow it."""
    first = trial.spans["context"].stop if extras else 0
    context: Context | None = None
    empty: Scores | None = None
    if extras:
        context = empty_context(model)
        read_on(model, trial.ids[:first], context)
        empty = _null_mass(model, trial, context.copy(), first)
    sight = _Sight(model, trial, first, extras)
    kept: list[Tensor] = []
    with _final_states(model, kept) if sight.reading else contextlib.nullcontext():
        output = read_on(model, trial.forced_ids[first:], context, sight)
    reply = _reply(model, trial, output, first)
    said = np.where(reply.emitted == trial.answer_ids, reply.emitted, -1)
    score = _present(model, copy_scores(sight.tops, said, trial.ids, trial.answer))
    if empty is None:
        return _Forced(reply, score, None, None, None)
    contribution = None
    if sight.read and not sight.unseen:
        final = kept[0][range_rows(trial.rows, first)]
        contribution = contributions(model, final, trial.answer_ids, sight.read)
    return _Forced(reply, score, sight.mass - empty, contribution, sight.unseen)


def _null_mass(model: Model, trial: Trial, context: Context | None, first: int) -> Scores:
    found = np.full((model.n_layers, most_heads(model)), np.nan)
    rows = range_rows(trial.null_spans["question"], first)

    def look(call: AttentionCall, key: int) -> None:
        mass = span_mass(call, rows, trial.null_spans["sentence"], key)
        found[call.block, : len(mass)] = mass

    stop = (
        trial.null_spans["question"].stop if model.is_causal else None
    )  # what follows is not seen
    read_on(model, trial.null_ids[first:stop], context, look)
    return found


def _encoder_mass(model: Model, trial: Trial) -> Scores:
    found = np.full((model.n_layers, most_heads(model)), np.nan)

    def look(call: AttentionCall, key: int) -> None:
        mass = span_mass(call, list(trial.question), trial.sentence, key)
        found[call.block, : len(mass)] = mass

    read_on(model, trial.ids, None, look)
    return found - _null_mass(model, trial, None, 0)


def _present(model: Model, scores: Scores) -> Scores:
    """`scores` (block, head) with NaN where a block has no such head."""
    for block in model.structure.blocks:
        scores[block.index, (block.n_heads or 0) if block.o_proj else 0 :] = np.nan
    return scores


def decode_trial(model: Model, trial: Trial) -> tuple[Reply, Scores]:
    """The reply of greedy decoding, as many tokens as the answer has, and the copy scores (block, head).

    The prompt is read at once, then one token at a time with its keys and values kept; only these steps are looked at.
    Decoding ends early at an end-of-text token.
    """
    require_language_model(model)
    context = empty_context(model)
    if len(trial.ids) > 1:
        read_on(model, trial.ids[:-1], context)
    shape = (model.n_layers, most_heads(model))
    tops = np.full((len(trial.rows), *shape), -1, np.int64)
    emitted: list[int] = []
    stops = _stop_tokens(model)
    token = int(trial.ids[-1])
    for step in range(len(trial.rows)):

        def look(call: AttentionCall, key: int, row: int = step) -> None:
            found = top_keys(call.logits()[0, :, 0])  # (head,)
            tops[row, call.block, : len(found)] = torch.where(found < 0, -1, found + key).cpu()

        output = read_on(model, np.asarray([token]), context, look)
        token = int(row_logits(model, output, [0]).argmax())
        emitted.append(token)
        if token in stops:
            break
    said = np.asarray(emitted, np.int64)
    score = _present(model, copy_scores(tops[: len(said)], said, trial.ids, trial.answer))
    return Reply(said, np.array_equal(said, trial.answer_ids), None, None), score


def _stop_tokens(model: Model) -> set[int]:
    config: Any = getattr(model.hf_model, "generation_config", None)
    given = getattr(config, "eos_token_id", None)
    listed = cast("list[Any]", given if isinstance(given, (list, tuple)) else [given])
    return {token for token in listed if isinstance(token, int)}


def check_retrieval(model: Model) -> None:
    """`DoesNotApply` with the reason where retrieval trials say nothing about this model."""
    if model.kind == "vision":
        raise DoesNotApply(f"{model.name} reads images: a needle is a sentence")
    head_blocks(model)
    if model.is_causal:
        require_language_model(model)
