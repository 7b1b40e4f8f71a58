"""High-frequency gain: how much of the difference between tokens an attention pattern can let through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError, NonFiniteError
from probes.layers.tokens import cut_note, mean_row, owner_of
from probes.linalg import check_matrix
from probes.registry import Measure, register_measure
from probes.stats import check_confidence
from probes.tables import tidy

if TYPE_CHECKING:
    from torch import Tensor

    from probes.capture.attention_call import AttentionCall
    from probes.capture.batching import Batch, Side
    from probes.capture.observe import Reading
    from probes.capture.progress import Report
    from probes.models import Model

FloatArray = NDArray[np.floating[Any]]

_MEASURE = register_measure(
    Measure(
        "high_frequency_gain",
        "High-frequency gain",
        "",
        0.0,
        None,
        "none",
        "Largest factor by which an attention pattern passes on what differs between tokens: 0 for uniform "
        "attention, which leaves the mean only, 1 when every token attends to itself.",
        "Wang et al. 2022 (arXiv 2203.05962); Zhou et al. 2024 (arXiv 2410.24200)",
    )
)


def high_frequency_gain(A: Any) -> float:
    """σ₁((I − 11ᵀ/n) A) of one attention pattern A (query, key), n tokens each.

    The largest factor by which a value sequence comes out of A with its mean over tokens removed. At least 0: uniform
    attention gives 0, the identity 1. It exceeds 1 where many queries share few keys in different ways, up to √n.

    Raises `InputError` for what is no square matrix, `DoesNotApply` for one token. Papers: Wang et al. 2022
    (arXiv 2203.05962), Zhou et al. 2024 (arXiv 2410.24200). See also `frequency_gains`, `dc_share`.

    >>> import numpy as np
    >>> round(high_frequency_gain(np.eye(3)), 6), round(high_frequency_gain(np.full((3, 3), 1 / 3)), 6)
    (1.0, 0.0)
    """
    pattern = check_matrix(A, "A").astype(np.float64)
    n = len(pattern)
    if pattern.shape != (n, n):
        raise InputError(f"A has shape {pattern.shape}: a square attention pattern is needed")
    if n < 2:
        raise DoesNotApply("high-frequency gain of one token: it differs from no other")
    return float(np.linalg.norm(pattern - pattern.mean(axis=0), ord=2))


def frequency_gains(
    model: Model,
    texts: Sequence[str],
    blocks: Iterable[int] | None = None,
    *,
    groups: Any = None,
    confidence: float | None = 0.95,
    dataset: str | None = None,
    seed: int | None = None,
    progress: bool | Report = False,
    max_length: int | None = None,
    prompt: str = "",
    batch_tokens: int | None = None,
    padding_side: Side | None = None,
) -> pd.DataFrame:
    """High-frequency gain of every attention head on texts, as a tidy table.

    One row per block and head (`head` counts from 0), and one per block with `head` null: the mean of its heads.
    Values are means over the texts of two tokens or more, special tokens included, with mean ± t · standard error
    over texts (or `groups`). Patterns are recomputed head by head from what goes into the softmax, on each text's own
    tokens; the gain is the root of the largest eigenvalue of the Gram matrix, in float32, not a power iteration.
    Inside `temperature` the changed patterns are measured. `blocks` are all by default; `seed` is only noted,
    nothing is drawn.

    Raises `DoesNotApply` where a block has no attention heads, `InputError` for unknown blocks and options,
    `ModelError` where attention cannot be seen, `NonFiniteError` for NaN in it.

    >>> def darkest(model, texts):  # the heads that average most
    ...     table = frequency_gains(model, texts)
    ...     return table[table["head"].notna()].nsmallest(5, "value")[["block", "head", "value"]]
    """
    from probes.capture.attention import check_blocks
    from probes.capture.observe import Reading

    if confidence is not None:
        check_confidence(confidence)
    owners = owner_of(groups, len(texts))
    chosen = sorted(check_blocks(model, blocks))
    if not chosen:
        raise InputError("no block was asked for: name at least one")
    reading = Reading.of(
        model, texts, max_length=max_length, prompt=prompt,
        batch_tokens=batch_tokens, padding_side=padding_side,
    )  # fmt: skip
    gains, read = _gains(reading, chosen, progress)
    notes = cut_note(read)
    missing = int((read["tokens"].to_numpy() < 2).sum())
    if missing:
        notes.append(f"high_frequency_gain is undefined for {missing:,} texts of one token")
    rows: list[dict[str, Any]] = []
    for block, found in gains.items():
        columns = {"measure": _MEASURE.name, "block": block, "dataset": dataset}
        for head, values in [(None, found.mean(axis=1)), *enumerate(found.T)]:
            mean = mean_row(values, _MEASURE, owners, confidence)
            rows.append({**columns, "head": head, **mean, "seed": seed})
    frame = tidy(rows)
    frame.attrs.update(notes=notes, interval="t over texts")
    return frame


def _gains(
    reading: Reading, blocks: Sequence[int], progress: bool | Report
) -> tuple[dict[int, FloatArray], pd.DataFrame]:
    """Block -> (n, heads), NaN for texts of one token; and what reading the texts returned."""
    from probes.capture.attention import attention_calls
    from probes.capture.hooks import TorchRunner
    from probes.capture.shard import reduce_batch
    from probes.capture.sites import Place

    structure = reading.model.structure
    gains = {
        block: np.full((reading.source.n, structure.block(block).n_heads or 0), np.nan)
        for block in blocks
    }
    now: list[Batch] = []

    def look(call: AttentionCall) -> None:
        batch = now[0]
        own = batch.inputs["attention_mask"].to(reading.model.device).bool()
        for head in range(call.heads.n):  # one at a time: a pattern is token × token
            found = batch_gains(call.pattern(heads=[head])[:, 0], own)
            gains[call.block][batch.rows, head] = found.double().cpu().numpy()

    # Nothing is read at the last block's output projection; the pass ends there.
    runner = TorchRunner(reading.model, [Place("z", blocks[-1])])

    def each(batch: Batch) -> None:
        now[:] = [batch]
        reduce_batch(reading.model, runner, batch, lambda _, states: states[:0], lambda *_: None)

    with attention_calls(reading.model, look, blocks):
        read = reading.run(each, progress)
    short = read["tokens"].to_numpy() < 2
    for block, found in gains.items():
        if not np.isfinite(found[~short]).all():
            raise NonFiniteError(f"attention of block {block} holds NaN or infinity")
    return gains, read


def batch_gains(patterns: Tensor, own: Tensor) -> Tensor:
    """`high_frequency_gain` of each pattern (batch, query, key) on its own tokens, own (batch, token): (batch,).

    NaN for fewer than two tokens and for patterns that are not finite.
    """
    import torch

    pairs = own[:, :, None] & own[:, None, :]
    inside = torch.where(pairs, patterns, 0.0)  # zero rows and columns leave singular values alone
    n = own.sum(1)[:, None, None]
    high = torch.where(pairs, inside - inside.sum(1, keepdim=True) / n, 0.0)
    finite = torch.isfinite(high).flatten(1).all(1)
    high = high.masked_fill(~finite[:, None, None], 0.0)
    # By the Gram matrix: twice as fast as singular values, and the largest one loses nothing.
    gains = torch.linalg.eigvalsh(high.transpose(1, 2) @ high)[:, -1].clamp(min=0).sqrt()
    return torch.where((own.sum(1) < 2) | ~finite, torch.nan, gains)
