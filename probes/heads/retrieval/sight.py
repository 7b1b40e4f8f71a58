"""What is kept of attention while a trial is read: where heads look most, and how much falls on the needle."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.heads.retrieval.contribution import no_contribution, read_values
from probes.heads.retrieval.hits import top_keys
from probes.heads.retrieval.passes import Context, most_heads, read_on
from probes.heads.retrieval.trials import Trial
from probes.models.trace import first_tensor

if TYPE_CHECKING:
    from probes.capture.attention_call import AttentionCall
    from probes.models import Model

Scores = NDArray[np.float64]


class Sight:
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
def final_states(model: Model, kept: list[Tensor]) -> Generator[None]:
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


def null_mass(model: Model, trial: Trial, context: Context | None, first: int) -> Scores:
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


def encoder_mass(model: Model, trial: Trial) -> Scores:
    found = np.full((model.n_layers, most_heads(model)), np.nan)

    def look(call: AttentionCall, key: int) -> None:
        mass = span_mass(call, list(trial.question), trial.sentence, key)
        found[call.block, : len(mass)] = mass

    read_on(model, trial.ids, None, look)
    return found - null_mass(model, trial, None, 0)


def present(model: Model, scores: Scores) -> Scores:
    """`scores` (block, head) with NaN where a block has no such head."""
    for block in model.structure.blocks:
        scores[block.index, (block.n_heads or 0) if block.o_proj else 0 :] = np.nan
    return scores
