"""What a model says to a trial: its first choices at the answer's rows, given the answer or on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from probes.heads.retrieval.hits import copy_scores, top_keys
from probes.heads.retrieval.passes import empty_context, most_heads, read_on, row_logits
from probes.heads.retrieval.sight import Scores, present
from probes.heads.retrieval.trials import Trial
from probes.models.completions import require_language_model

if TYPE_CHECKING:
    from probes.capture.attention_call import AttentionCall
    from probes.models import Model


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


def answer_trial(model: Model, trial: Trial) -> Reply:
    """What the model says, by one teacher-forced pass without looking at any attention."""
    require_language_model(model)
    return read_reply(model, trial, read_on(model, trial.forced_ids), 0)


def read_reply(model: Model, trial: Trial, output: Any, first: int) -> Reply:
    """The reply in an output whose position 0 is token `first` of the trial."""
    logits = row_logits(model, output, [row - first for row in trial.rows])
    target = torch.from_numpy(trial.answer_ids).to(logits.device)
    of_target = logits.gather(1, target[:, None])
    logprob = float((of_target[:, 0] - logits.logsumexp(1)).double().sum())
    ranks = (logits > of_target).sum(1).cpu().numpy()
    emitted = logits.argmax(1).cpu().numpy()
    answered = bool((emitted == trial.answer_ids).all())
    return Reply(emitted, answered, logprob, ranks)


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
    score = present(model, copy_scores(tops[: len(said)], said, trial.ids, trial.answer))
    return Reply(said, np.array_equal(said, trial.answer_ids), None, None), score


def _stop_tokens(model: Model) -> set[int]:
    config: Any = getattr(model.hf_model, "generation_config", None)
    given = getattr(config, "eos_token_id", None)
    listed = cast("list[Any]", given if isinstance(given, (list, tuple)) else [given])
    return {token for token in listed if isinstance(token, int)}
