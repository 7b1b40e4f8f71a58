"""The shape of attention on texts: how spread, how far, how much on one token. No token × token matrix is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.capture.progress import Report
from probes.capture.sites import Place
from probes.errors import InputError, NonFiniteError
from probes.heads.ablation.ranking import all_heads
from probes.heads.types.measures import SHAPES
from probes.heads.types.repeated import AT_ONCE
from probes.layers.tokens import cut_note, mean_row, owner_of
from probes.stats import check_confidence
from probes.tables import tidy

if TYPE_CHECKING:
    from torch import Tensor

    from probes.capture.attention_call import AttentionCall
    from probes.capture.batching import Batch
    from probes.capture.observe import Reading
    from probes.models import Model

FloatArray = NDArray[np.float64]

NEAR = 16  # tokens


def attention_shapes(
    model: Model,
    texts: Sequence[str],
    blocks: Iterable[int] | None = None,
    *,
    groups: Any = None,
    confidence: float | None = 0.95,
    dataset: str | None = None,
    seed: int | None = None,
    progress: bool | Report = False,
    **reading: Any,
) -> pd.DataFrame:
    """Entropy, share of the first token, distance, largest column mass and local share of every head, on texts.

    For one text, p_ij the attention from token i to token j, means over the tokens i that may see two tokens or more:
    `attention_entropy` −Σ_j p log p / log(tokens seen), in [0, 1]; `sink_share` p_i1, 1 the text's first token;
    `attention_distance` Σ_j p |i − j|, tokens; `max_column_mass` max_j of the mean p_ij; `local_share` Σ p_ij over
    |i − j| ≤ 16. Special tokens count, padding does not.

    Parameters
    ----------
    blocks : all with heads when None. groups : (n,) texts that belong together count as one draw. confidence : of
    the intervals (mean ± t · standard error over texts), None leaves them out. seed : only noted, nothing is drawn.
    reading : max_length, special_tokens, prompt, batch_tokens, padding_side as in `capture`.

    Returns a tidy table, one row per block, head and measure. Patterns are made a few queries at a time from what goes
    into the softmax. Texts of one token have no shape: left out, counted in `attrs["notes"]`.

    Raises `DoesNotApply` where a block has no attention heads, `ModelError` where attention cannot be seen,
    `NonFiniteError` for NaN in it. See also `probes.layers.frequency_gains`.

    >>> def sinks(model, texts):  # heads that mostly look at the first token
    ...     table = attention_shapes(model, texts)
    ...     return table[(table["measure"] == "sink_share") & (table["value"] > 0.9)][["block", "head"]]
    """
    from probes.capture.attention import check_blocks
    from probes.capture.observe import Reading

    if confidence is not None:
        check_confidence(confidence)
    owners = owner_of(groups, len(texts))
    with_heads = {block for block, _ in all_heads(model)}
    chosen = sorted(check_blocks(model, with_heads if blocks is None else blocks))
    if not chosen:
        raise InputError("no block was asked for: name at least one")
    found, read = _read(Reading.of(model, texts, **reading), chosen, progress)
    notes = cut_note(read)
    missing = int(np.isnan(found[chosen[0]][:, 0, 0]).sum())
    if missing:
        notes.append(f"{missing:,} of {len(texts):,} texts have one token: no shape of attention")
    rows: list[dict[str, Any]] = []
    for block, values in found.items():  # (n, heads, measures)
        for head in range(values.shape[1]):
            for at, measure in enumerate(SHAPES):
                mean = mean_row(values[:, head, at], measure, owners, confidence)
                about = {"measure": measure.name, "site": "z", "block": block, "head": head}
                rows.append({**about, "dataset": dataset, **mean, "seed": seed})
    frame = tidy(rows)
    frame.attrs.update(notes=notes, interval="t over texts")
    return frame


def _read(
    reading: Reading, blocks: Sequence[int], progress: bool | Report
) -> tuple[dict[int, FloatArray], pd.DataFrame]:
    """Block -> (n, heads, measures), NaN for texts without a shape; and what reading the texts returned."""
    from probes.capture.attention import attention_calls
    from probes.capture.hooks import TorchRunner
    from probes.capture.shard import reduce_batch

    model = reading.model
    found = {
        block: np.full(
            (reading.source.n, model.structure.block(block).n_heads or 0, len(SHAPES)), np.nan
        )
        for block in blocks
    }
    now: list[Batch] = []

    def look(call: AttentionCall) -> None:
        batch = now[0]
        own = batch.inputs["attention_mask"].to(model.device).bool()
        shapes = batch_shapes(call, own).cpu().double().numpy()
        seen = own.sum(1).cpu().numpy() > 1
        if not np.isfinite(shapes[seen]).all():
            raise NonFiniteError(f"attention of block {call.block} holds NaN or infinity")
        found[call.block][batch.rows] = shapes

    # Nothing is read at the last block's output projection; the pass ends there.
    runner = TorchRunner(model, [Place("z", blocks[-1])])

    def each(batch: Batch) -> None:
        now[:] = [batch]
        reduce_batch(model, runner, batch, lambda _, states: states[:0], lambda *_: None)

    with attention_calls(model, look, blocks):
        read = reading.run(each, progress)
    return found, read


def batch_shapes(call: AttentionCall, own: Tensor, at_once: int = AT_ONCE) -> Tensor:
    """(batch, head, measure) of one attention call, `own` (batch, token) true at real tokens; NaN without any query
    that may see two tokens."""
    import torch

    batch, n_heads, n, keys = call.shape
    place = own.long().cumsum(1) - 1  # among the text's own tokens
    first = own.long().argmax(1)  # (batch,)
    sums = torch.zeros(batch, n_heads, 4, device=own.device)  # all but the column mass
    columns = torch.zeros(batch, n_heads, keys, device=own.device)
    queries = torch.zeros(batch, n_heads, device=own.device)
    step = max(1, at_once // (batch * n_heads * keys))
    for low in range(0, n, step):
        rows = torch.arange(low, min(low + step, n), device=own.device)
        logits = call.logits(rows)  # (batch, head, row, key)
        visible = (logits > -torch.inf).sum(-1)
        counted = (visible > 1) & own[:, None, rows]  # (batch, head, row)
        weights = torch.softmax(logits, -1).masked_fill(~counted[..., None], 0.0)
        apart = (place[:, rows, None] - place[:, None, :]).abs()[:, None]  # (batch, 1, row, key)
        entropy = torch.special.entr(weights).sum(-1) / visible.clamp(min=2).log()
        sink = weights.gather(-1, first[:, None, None, None].expand(-1, n_heads, len(rows), 1))
        parts = [
            entropy,
            sink[..., 0],
            (weights * apart).sum(-1),
            (weights * (apart <= NEAR)).sum(-1),
        ]
        sums += torch.stack([part.sum(-1) for part in parts], -1)
        columns += weights.sum(2)
        queries += counted.sum(-1)
    count = torch.where(queries > 0, queries, torch.nan)
    mass = columns.amax(-1) / count
    entropy, sink, distance, near = (sums / count[..., None]).unbind(-1)
    return torch.stack([entropy.clamp(max=1), sink, distance, mass, near.clamp(max=1)], -1)
