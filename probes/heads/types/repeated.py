"""Induction, previous-token and duplicate-token heads, found on random tokens that repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.capture.progress import Report, progress_bar
from probes.capture.sites import Place
from probes.errors import DoesNotApply, InputError, NonFiniteError, unknown_name
from probes.heads.types.measures import DUPLICATE, INDUCTION, ON_RANDOM_TOKENS, PREVIOUS
from probes.layers.tokens import mean_row
from probes.registry import Measure
from probes.tables import tidy

if TYPE_CHECKING:
    from torch import Tensor

    from probes.capture.attention_call import AttentionCall
    from probes.models import Model

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

AT_ONCE = 2**20  # numbers of a pattern: 4 MiB in float32, which is faster than more
LENGTH = 50  # tokens of what repeats, as in TransformerLens' demonstrations
CONTROL = "unrepeated"


@dataclass(frozen=True)
class RandomTokens:
    """`ids` (n, token) with special tokens around; the random ones begin at `start`, `repeats` times `length`."""

    ids: IntArray
    start: int
    length: int
    repeats: int

    def pairs(self, measure: Measure) -> tuple[IntArray, IntArray]:
        """(m,) queries and (m,) keys whose attention is the score."""
        whole, one = self.length * self.repeats, self.length
        back = {INDUCTION.name: one - 1, PREVIOUS.name: 1, DUPLICATE.name: one}[measure.name]
        first = 1 if measure is PREVIOUS else one
        queries = np.arange(first, whole) + self.start
        return queries, queries - back


def induction_scores(
    model: Model,
    *,
    length: int | None = None,
    repeats: int = 2,
    sequences: int = 20,
    batch: int = 4,
    seed: int = 0,
    measures: Sequence[str] | None = None,
    confidence: float | None = 0.95,
    progress: bool | Report = False,
) -> pd.DataFrame:
    """Induction, previous-token and duplicate-token score of every head, from one pass over repeated random tokens.

    With `length` random tokens said `repeats` times, the attention from token i to token i − (length − 1) (induction),
    i − 1 (previous) and i − length (duplicate), mean over i: over all tokens of the second and later times for the
    first and last, so that a perfect head has 1. (TransformerLens' demonstration takes the same diagonal but counts
    the last token of the first time too, for which there is nothing to find.)

    Parameters
    ----------
    length : 50, or what the model and its vocabulary have room for; no token comes twice within it. The tokenizer's
    special tokens stand around.
    sequences : drawn by `seed`; the interval is mean ± t · standard error over them.
    measures : all that apply when None.

    Returns a tidy table with one row per block, head and measure, and the same on as many random tokens that all
    differ: variant "unrepeated", the control. Blocks without heads are passed over. For a model that sees later
    tokens the token right after the last occurrence is no prediction: induction does not apply, and is left out with
    a note in `attrs["notes"]`.

    Raises `DoesNotApply` where there are no heads, or for induction asked of such a model by name; `InputError` where
    there is no room. Paper: Olsson et al. 2022 (arXiv 2209.11895).

    >>> def best(model):  # the three heads that most do induction
    ...     table = induction_scores(model, measures=["induction_score"])
    ...     return table[table["variant"].isna()].nlargest(3, "value")[["block", "head", "value"]]
    """
    chosen, notes = _chosen(model, measures)
    blocks = [block.index for block in model.structure.blocks if block.heads and block.o_proj]
    if not blocks:
        raise DoesNotApply(f"heads of {model.name}: {model.structure.why_missing('z', 0)}")
    if sequences < 1 or batch < 1 or repeats < 2:
        raise InputError(
            f"{sequences} sequences, {batch} at once, {repeats} times: at least 1, 1 and 2 are needed"
        )
    rng = np.random.default_rng(seed)
    drawn = draw_tokens(model, length, repeats, sequences, rng)
    rows: list[dict[str, Any]] = []
    with progress_bar(progress, 2 * sequences, 0, "sequences") as advance:
        for variant, tokens in zip((None, CONTROL), drawn, strict=True):
            found: dict[tuple[int, str], list[FloatArray]] = {}
            for low in range(0, sequences, batch):
                ids = tokens.ids[low : low + batch]
                for key, values in _attention(model, blocks, ids, tokens, chosen).items():
                    found.setdefault(key, []).append(values)
                advance(len(ids))
            rows += _rows(found, variant, chosen, seed, confidence)
    frame = tidy(rows)
    frame.attrs.update(notes=notes, interval="t over sequences", length=drawn[0].length)
    return frame


def _chosen(model: Model, measures: Sequence[str] | None) -> tuple[list[Measure], list[str]]:
    known = {measure.name: measure for measure in ON_RANDOM_TOKENS}
    for name in measures or ():
        if name not in known:
            raise unknown_name("head score", name, known)
    reason = f"induction_score: {model.name} sees later tokens, and predicts none from those before"
    if model.is_causal:
        return list(ON_RANDOM_TOKENS) if measures is None else [known[n] for n in measures], []
    if measures is not None and INDUCTION.name in measures:
        raise DoesNotApply(reason)
    names = measures or [PREVIOUS.name, DUPLICATE.name]
    return [known[name] for name in names], [reason]


def draw_tokens(
    model: Model, length: int | None, repeats: int, sequences: int, rng: np.random.Generator
) -> tuple[RandomTokens, RandomTokens]:
    """Repeated random tokens, and as many that do not repeat; `InputError` where the model has no room for them."""
    before, after = _around(model)
    plain = _plain_tokens(model)
    room = min(model.max_length - len(before) - len(after), len(plain)) // repeats
    fit = min(LENGTH, room) if length is None else length
    if not 2 <= fit <= room:
        raise InputError(
            f"length {fit}, {repeats} times: {model.name} has room for lengths from 2 to {room} "
            f"({model.max_length:,} tokens, {len(plain):,} different ones)"
        )
    all_different = np.stack(
        [rng.choice(plain, size=repeats * fit, replace=False) for _ in range(sequences)]
    )
    repeated = np.tile(all_different[:, :fit], (1, repeats))

    def around(tokens: IntArray) -> RandomTokens:
        parts = [np.tile(before, (sequences, 1)), tokens, np.tile(after, (sequences, 1))]
        ids = np.concatenate(parts, axis=1).astype(np.int64)
        return RandomTokens(ids, len(before), fit, repeats)

    return around(repeated), around(all_different)


def _around(model: Model) -> tuple[IntArray, IntArray]:
    """The special tokens that the tokenizer puts before and after a text."""
    none = np.zeros(0, np.int64)
    if model.tokenizer is None:
        return none, none
    coded = model.tokenizer("a", return_special_tokens_mask=True)
    ids = np.asarray(coded["input_ids"], np.int64)
    own = np.flatnonzero(np.asarray(coded["special_tokens_mask"]) == 0)
    if not len(own):  # "a" is unknown here, and that counts as special
        ids = np.asarray(model.tokenizer("")["input_ids"], np.int64)
        return (ids[:-1], ids[-1:]) if len(ids) > 1 else (ids, none)
    return ids[: own[0]], ids[own[-1] + 1 :]


def _plain_tokens(model: Model) -> IntArray:
    """All tokens that the model has embeddings for, without special ones."""
    from probes.models.inputs import text_config

    if model.kind == "vision":
        model.require_tokenizer()
    hf_model: Any = model.hf_model
    size = int(hf_model.get_input_embeddings().weight.shape[0])
    special: set[int] = set()
    if model.tokenizer is not None:
        size = min(size, len(model.tokenizer))
        special = set(model.tokenizer.all_special_ids) | set(model.tokenizer.added_tokens_decoder)
    config = text_config(hf_model)
    for name in ("pad", "bos", "eos", "cls", "sep", "mask", "unk"):
        token = getattr(config, f"{name}_token_id", None)
        special |= {token} if isinstance(token, int) else set()
    return np.asarray([token for token in range(size) if token not in special], np.int64)


def _attention(
    model: Model,
    blocks: Sequence[int],
    ids: IntArray,
    tokens: RandomTokens,
    measures: Sequence[Measure],
) -> dict[tuple[int, str], FloatArray]:
    """(block, measure) -> (batch, heads): mean attention over the pairs of tokens."""
    import torch

    from probes.capture.attention import attention_calls
    from probes.capture.hooks import TorchRunner

    found: dict[tuple[int, str], FloatArray] = {}
    pairs = {measure.name: tokens.pairs(measure) for measure in measures}

    def look(call: AttentionCall) -> None:
        for name, scores in pair_attention(call, pairs).items():
            found[call.block, name] = scores.cpu().double().numpy()

    given = torch.from_numpy(ids).to(model.device)
    # Nothing is read at the last block's output projection; the pass ends there.
    runner = TorchRunner(model, [Place("z", blocks[-1])])
    with attention_calls(model, look, blocks):
        runner(model.forward_inputs(given, torch.ones_like(given)), lambda *_: None)
    return found


def pair_attention(
    call: AttentionCall, pairs: Mapping[str, tuple[IntArray, IntArray]], at_once: int = AT_ONCE
) -> dict[str, Tensor]:
    """(batch, head) for each name: mean attention from queries (m,) to keys (m,), made a few queries at a time."""
    batch, n_heads, n, keys = call.shape
    step = max(1, at_once // (batch * n_heads * keys))
    sums: dict[str, Tensor] = {}
    for low in range(0, n, step):
        pattern = call.pattern(range(low, min(low + step, n)))  # (batch, head, row, key)
        for name, (queries, targets) in pairs.items():
            here = (queries >= low) & (queries < low + step)
            part = pattern[:, :, queries[here] - low, targets[here]].sum(-1)
            sums[name] = sums[name] + part if name in sums else part
    return {name: total / len(pairs[name][0]) for name, total in sums.items()}


def _rows(
    found: Mapping[tuple[int, str], list[FloatArray]],
    variant: str | None,
    measures: Sequence[Measure],
    seed: int,
    confidence: float | None,
) -> list[dict[str, Any]]:
    by_name = {measure.name: measure for measure in measures}
    rows: list[dict[str, Any]] = []
    for (block, name), parts in sorted(found.items()):
        values = np.concatenate(parts)  # (sequences, heads)
        if not np.isfinite(values).all():
            raise NonFiniteError(f"attention of block {block} holds NaN or infinity")
        for head, mine in enumerate(values.T):
            mean = mean_row(mine, by_name[name], np.arange(len(mine)), confidence)
            about = {"measure": name, "site": "z", "block": block, "head": head, "variant": variant}
            rows.append({**about, **mean, "seed": seed})
    return rows
