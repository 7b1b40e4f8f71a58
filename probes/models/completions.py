"""What a language model says about texts: log-probabilities of completions and of sentences, at any layer.

The backbone runs as it is in memory, so edits in force (`probes.erasure.erase`, `steer`) count. Logits come from the
model's own head, with whatever scaling or capping it does, but only for the tokens that are scored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from probes.errors import DataError, DoesNotApply, InputError
from probes.models.model import Model
from probes.models.selfcheck import collecting_layers
from probes.models.trace import first_tensor, replacing_forward, with_first_tensor
from probes.types import check_texts

LOGITS_AT_ONCE = 2**25  # numbers: 128 MiB in float32


Edit = Callable[[Tensor], AbstractContextManager[None]]


@dataclass(frozen=True)
class _Way:
    batch_tokens: int
    per_token: bool
    edit: Edit | None = None


@dataclass(frozen=True)
class _Scored:
    """A tokenised text: `ids` (t,), and which of its tokens are scored, (t,); the first never is."""

    ids: NDArray[np.int64]
    scored: NDArray[np.bool_]


def completion_logprobs(
    model: Model,
    prompts: Sequence[str],
    completions: Sequence[str],
    *,
    batch_tokens: int = 2048,
    per_token: bool = False,
    edit: Edit | None = None,
) -> NDArray[np.float64]:
    """Log-probability (natural) of each completion given its prompt, (n,); ≤ 0, up is more probable.

    Prompt and completion are tokenised as one text, as the model would read them: every token that covers a character
    of the completion is scored, so one that straddles the border counts. Usually the completion begins with a space.
    `per_token` gives the mean over its tokens in place of the sum. `edit` is called for every batch with the numbers
    (batch,) of the tokens that the completions follow, the last ones of the prompts, and its context is in force
    during that pass.

    Raises `DoesNotApply` for models without a language-model head or that see later tokens, `DataError` for texts
    that are too long, or of which nothing can be scored (an empty prompt without a first token of the tokenizer's).

    >>> completion_logprobs(model, ["The capital of France is"], [" Paris"])  # doctest: +SKIP
    array([-0.72])
    """
    if len(prompts) != len(completions):
        raise InputError(f"{len(prompts)} prompts but {len(completions)} completions came")
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if not completion.strip():
            raise DataError(f"completion {row} is empty")
        if not prompt and not _has_first_token(model):
            raise DataError(f"prompt {row} is empty, and {model.name} puts no token before a text")
    whole = check_texts([p + c for p, c in zip(prompts, completions, strict=True)])
    texts = _tokenised(model, whole, [len(prompt) for prompt in prompts])
    return _scores(model, texts, None, _Way(batch_tokens, per_token, edit))[:, 0]


def sentence_logprobs(
    model: Model,
    texts: Sequence[str],
    layers: int | Sequence[int] | None = None,
    *,
    batch_tokens: int = 2048,
    per_token: bool = False,
) -> NDArray[np.float64]:
    """Log-probability of whole texts; with `layers` read out early, all layers in one pass.

    At layer k the residual stream after k blocks goes through the final norm and the head (the logit lens,
    nostalgebraist 2020), which is what the model cut there would say; at layer L this is the model itself. The first
    token is not scored unless the tokenizer puts one before the text. Compare texts of a minimal pair only.

    Returns (n,) for None (the whole model) or one layer, (n, layers) for a sequence. Raises as `completion_logprobs`
    does.
    """
    one = layers is None or isinstance(layers, (int, np.integer))
    wanted = None if layers is None else [int(cast("int", layers))] if one else list(layers)  # type: ignore[arg-type]
    for layer in wanted or ():
        if not 0 <= layer <= model.n_layers:
            raise InputError(f"layer {layer} does not exist: 0 to {model.n_layers} are allowed")
    if wanted is not None and not wanted:
        raise InputError("no layer was asked for: name at least one")
    tokenised = _tokenised(model, check_texts(texts), [0] * len(texts))
    found = _scores(model, tokenised, wanted, _Way(batch_tokens, per_token))
    return found[:, 0] if one else found


def require_language_model(model: Model) -> nn.Module:
    """The model's head; `DoesNotApply` with the reason where there is none to ask."""
    head = model.structure.lm_head
    if head is None:
        raise DoesNotApply(
            f"{model.name} has no language-model head: it gives no probabilities of texts"
        )
    if not model.is_causal:
        raise DoesNotApply(
            f"{model.name} sees later tokens: the probability of a text given what stands before is not defined"
        )
    return head


def _has_first_token(model: Model) -> bool:
    ids = model.require_tokenizer()("a")["input_ids"]
    return len(ids) > 0 and int(ids[0]) in model.tokenizer.all_special_ids


def _tokenised(model: Model, texts: Sequence[str], starts: Sequence[int]) -> list[_Scored]:
    """Texts as tokens; those that cover a character from `starts` on are scored, the first token excepted."""
    require_language_model(model)
    tokenizer = model.require_tokenizer()
    if not getattr(tokenizer, "is_fast", False):
        raise DoesNotApply(
            f"the tokenizer of {model.name} does not say where its tokens lie: a fast tokenizer is needed"
        )
    coded = tokenizer(
        list(texts),
        add_special_tokens=True,
        split_special_tokens=True,  # "</s>" in a text is four characters
        truncation=False,
        padding=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    found: list[_Scored] = []
    for row, start in enumerate(starts):
        ids = np.asarray(coded["input_ids"][row], np.int64)
        ends = np.asarray(coded["offset_mapping"][row], np.int64).reshape(-1, 2)[:, 1]
        special = np.asarray(coded["special_tokens_mask"][row], bool)
        if len(ids) > model.max_length:
            raise DataError(
                f"text {row} has {len(ids):,} tokens, {model.name} takes {model.max_length:,}: shorten it"
            )
        scored = (ends > start) & ~special
        scored[:1] = False
        if not scored.any():
            raise DataError(
                f"text {row} has no token to score: the first one has nothing before it to be predicted from"
            )
        found.append(_Scored(ids, scored))
    return found


def _scores(
    model: Model,
    texts: list[_Scored],
    layers: list[int] | None,
    way: _Way,
) -> NDArray[np.float64]:
    """Log-probabilities (n, layers) of the scored tokens; one column, the whole model, without `layers`."""
    result = np.zeros((len(texts), 1 if layers is None else len(layers)))
    for rows in _batches(model, texts, way.batch_tokens):
        for column, logprobs, owner in _read(model, [texts[row] for row in rows], layers, way.edit):
            sums = np.bincount(owner, weights=logprobs, minlength=len(rows))
            result[rows, column] = sums / np.bincount(owner) if way.per_token else sums
    return result


def _batches(model: Model, texts: list[_Scored], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Rows of each batch, longest first; of equal length where the model cannot be padded."""
    lengths = np.asarray([len(text.ids) for text in texts])
    order = np.argsort(-lengths, kind="stable")
    at = 0
    while at < len(order):
        rows = order[at : at + max(1, batch_tokens // int(lengths[order[at]]))]
        if not model.padding_sides:
            rows = rows[lengths[rows] == lengths[rows[0]]]
        yield rows
        at += len(rows)


def _read(
    model: Model, texts: list[_Scored], layers: list[int] | None, edit: Edit | None
) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.int64]]]:
    """For each column the log-probabilities of all scored tokens of a batch, (m,), and their rows, (m,)."""
    ids, mask, scored = _padded(model, texts)
    structure = model.structure
    collecting = contextlib.nullcontext([]) if layers is None else collecting_layers(structure)
    before = scored.long().argmax(1) - 1  # (batch,): the token that the first scored one follows
    editing = contextlib.nullcontext() if edit is None else edit(before)
    with torch.inference_mode(), editing, collecting as states:
        output = structure.base(**model.forward_inputs(ids, mask))
    row, token = scored.nonzero(as_tuple=True)
    target, owner = ids[row, token], row.cpu().numpy()
    last = first_tensor(output)
    assert last is not None
    if layers is None:
        picked = [last[row, token - 1]]  # (m, d): a token is predicted from the one before it
    else:
        picked = [_exit(model, states, layer, last)[row, token - 1] for layer in layers]
    del states[:]
    for column, exits in enumerate(picked):
        yield column, _target_logprobs(model, output, exits, target), owner


def _exit(model: Model, states: list[Tensor], layer: int, last: Tensor) -> Tensor:
    if layer == model.n_layers:
        return last
    with torch.inference_mode():
        return model.structure.apply_tail(states[layer])


def _padded(model: Model, texts: list[_Scored]) -> tuple[Tensor, Tensor, Tensor]:
    """ids, mask and scored tokens, each (batch, token) on the model's device."""
    width = max(len(text.ids) for text in texts)
    ids = np.full((len(texts), width), model.pad_id, np.int64)
    mask = np.zeros((len(texts), width), np.int64)
    scored = np.zeros((len(texts), width), bool)
    left = "right" not in model.padding_sides
    for i, text in enumerate(texts):
        n = len(text.ids)
        place = slice(width - n, width) if left else slice(0, n)
        ids[i, place], mask[i, place], scored[i, place] = text.ids, 1, text.scored
    return tuple(torch.from_numpy(part).to(model.device) for part in (ids, mask, scored))  # type: ignore[return-value]


def _target_logprobs(
    model: Model, output: Any, exits: Tensor, target: Tensor
) -> NDArray[np.float64]:
    """log p(target) (m,) from final states `exits` (m, d), by the model's own head, some tokens at a time."""
    vocabulary = int(cast("Any", model.hf_model).get_input_embeddings().weight.shape[0])
    step = max(1, LOGITS_AT_ONCE // vocabulary)
    parts: list[NDArray[np.float64]] = []
    for start in range(0, len(exits), step):
        rows = slice(start, start + step)
        logits = head_logits(model, output, exits[rows]).float()
        chosen = logits.gather(1, target[rows, None])[:, 0] - logits.logsumexp(1)
        parts.append(chosen.double().cpu().numpy())
    return np.concatenate(parts)


def head_logits(model: Model, output: Any, exits: Tensor) -> Tensor:
    """The head's logits (m, vocabulary) for final states (m, d); `output` is any output of the backbone.

    The whole model is called with a backbone that returns these states, so that what else the model does to its
    logits (scaling, capping) is done.
    """
    ids = torch.zeros((1, len(exits)), dtype=torch.long, device=exits.device)
    with torch.inference_mode(), _answering(model, with_first_tensor(output, exits[None])):
        found = cast("Any", model.hf_model)(input_ids=ids)
    return found.logits[0]


@contextlib.contextmanager
def _answering(model: Model, output: Any) -> Generator[None]:
    """While the context lasts, the backbone computes nothing and returns `output`.

    Some heads call a part of the backbone (OPT: its decoder), so every module on the way to the blocks answers.
    """
    *way, _list, _number = model.structure.blocks[0].path.split(".")
    modules: list[Any] = [model.structure.base]
    for name in way:
        modules.append(getattr(modules[-1], name))

    def answer(*args: Any, **kwargs: Any) -> Any:
        return output

    with replacing_forward(modules, answer):
        yield
