"""Softmax bottleneck: the spectrum of a language model's head, and what a lower rank costs in bits per token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.capture.padded import padded_batches, starts
from probes.errors import DataError, DoesNotApply, InputError
from probes.exits.resample import Resamples
from probes.stats import percentile_interval

if TYPE_CHECKING:
    import torch

    from probes.models import Model

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Told = Callable[[int, int], None]

MOST_TOKENS = 4000  # scored: their loss under every rank is known to a hundredth of a bit
LONGEST = 128  # tokens of a text that are read
_AT_ONCE = 2**25  # logits


@dataclass(frozen=True)
class Head:
    """Singular values (d,) of the unembedding, largest first, and its right singular vectors (d, d) in columns."""

    values: Array
    directions: Array


def find_head(model: Model) -> Head:
    """The spectrum of `model`'s head (vocabulary, d); `DoesNotApply` where it has none, or it is no single matrix."""
    from probes.models.completions import require_language_model

    module: Any = require_language_model(model)
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2:
        raise DoesNotApply(f"the head of {model.name} is no single matrix: {type(module).__name__}")
    return spectrum(weight.detach().float().cpu().numpy())


def spectrum(weight: Array) -> Head:
    """Singular values and right singular vectors of `weight` (vocabulary, d); by QR first: exact, little memory."""
    triangle = np.linalg.qr(np.asarray(weight, dtype=np.float64), mode="r")
    _, values, right = np.linalg.svd(triangle, full_matrices=False)
    return Head(values, right.T)


def spectrum_kl(values: Array) -> float:
    """Kullback-Leibler divergence (nats) of the normalised singular values (d,) from equal ones: log d − H(p).

    In [0, log d]; 0 where all are equal, log d where only one is above zero. Paper: Godey et al. 2024
    (arXiv 2404.07647).

    >>> round(spectrum_kl(np.ones(8)), 6), round(spectrum_kl(np.array([3.0, 0.0])), 6)
    (0.0, 0.693147)
    """
    sigma = np.asarray(values, dtype=np.float64)
    if sigma.ndim != 1 or not len(sigma) or (sigma < 0).any():
        raise InputError(f"singular values have shape {sigma.shape}: (d,) numbers ≥ 0 are needed")
    if not sigma.any():
        raise DoesNotApply("spectrum of a head whose weights are all zero")
    p = sigma[sigma > 0] / sigma.sum()
    return float(max(0.0, np.log(len(sigma)) + p @ np.log(p)))


def ranks_of(d: int) -> list[int]:
    """Powers of two below d, then d.

    >>> ranks_of(12)
    [1, 2, 4, 8, 12]
    """
    return [2**p for p in range(64) if 2**p < d] + [d]


def rank_losses(
    model: Model,
    texts: Sequence[str],
    head: Head,
    ranks: Sequence[int],
    *,
    max_length: int | None = None,
    progress: Told | None = None,
) -> tuple[Array, IntArray]:
    """Bits lost on every next token when the head is cut to its `ranks` strongest directions.

    A head W truncated to rank r gives a final state h the logits W V_r V_rᵀ h, so the state is projected and the
    model's own head does the rest (scaling and capping included). Texts are read up to 128 tokens until 4,000
    are scored.

    Returns losses (ranks, tokens) ≥ 0, in bits, and the text of each token (tokens,).
    """
    import torch

    parts: list[Array] = []
    owners: list[IntArray] = []
    chosen = _some(model, texts, max_length)
    done = 0
    for rows, output, states, target, owner in _final_states(model, chosen):
        losses = np.empty((len(ranks), len(target)))
        for step, rank in enumerate(ranks):
            kept = torch.from_numpy(head.directions[:, :rank]).to(states.device, torch.float32)
            projected = (states.float() @ kept @ kept.T).to(states.dtype)
            losses[step] = _bits(model, output, projected, target)
        parts.append(losses)
        owners.append(owner)
        done += len(rows)
        if progress:
            progress(done, len(chosen))
    return np.concatenate(parts, axis=1), np.concatenate(owners)


def _some(model: Model, texts: Sequence[str], max_length: int | None) -> list[Any]:
    """The first texts as tokens, until enough are to be scored."""
    from probes.capture.tokens import TextEncoder

    longest = min(max_length or LONGEST, LONGEST, model.max_length)
    encoder = TextEncoder(model.require_tokenizer(), longest)
    chosen: list[Any] = []
    total = 0
    for start in range(0, len(texts), 64):
        for tokens in encoder(texts[start : start + 64], start):
            if (~tokens.special[1:]).any():
                chosen.append(tokens)
                total += int((~tokens.special[1:]).sum())
            if total >= MOST_TOKENS:
                return chosen
    if len(chosen) < 10:
        raise DataError(f"{len(chosen)} texts have a token to predict: at least 10 are needed")
    return chosen


def _final_states(
    model: Model, texts: Sequence[Any]
) -> Iterator[tuple[IntArray, Any, torch.Tensor, torch.Tensor, IntArray]]:
    """Per batch: rows, the backbone's output, states before each token (m, d), the tokens (m,), their texts (m,)."""
    import torch

    from probes.models.trace import first_tensor

    for batch, inputs in padded_batches(model, texts):
        assert batch.keep is not None
        scored = batch.keep.clone()
        scored[range(len(scored)), starts(batch)] = False  # the first token has nothing before it
        scored = scored.to(model.device)
        ids = inputs["input_ids"]
        with torch.inference_mode():
            output = model.structure.base(**inputs)
        last = first_tensor(output)
        assert last is not None
        row, token = scored.nonzero(as_tuple=True)
        yield (
            batch.rows,
            output,
            last[row, token - 1],
            ids[row, token],
            batch.rows[row.cpu().numpy()],
        )


def _bits(model: Model, output: Any, states: torch.Tensor, target: torch.Tensor) -> Array:
    """−log₂ p(target) (m,) from final states (m, d)."""
    from probes.models.completions import head_logits

    vocabulary = int(cast("Any", model.hf_model).get_input_embeddings().weight.shape[0])
    step = max(1, _AT_ONCE // vocabulary)
    parts: list[Array] = []
    for start in range(0, len(states), step):
        rows = slice(start, start + step)
        logits = head_logits(model, output, states[rows]).float()
        chosen = logits.gather(1, target[rows, None])[:, 0] - logits.logsumexp(1)
        parts.append(-chosen.double().cpu().numpy() / np.log(2))
    return np.concatenate(parts)


def bottleneck_table(
    losses: Array, owner: IntArray, ranks: Sequence[int], draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean loss in bits per token at every rank: rank, loss_bits, low, high, n (tokens), seed; bootstrap over texts.

    difference, difference_low, difference_high: the loss less that of the last rank, paired by text. `losses` (ranks,
    tokens), `owner` (tokens,) the text of each.
    """
    _, owner = np.unique(owner, return_inverse=True)
    sizes: Array = np.bincount(owner).astype(np.float64)
    per_text = [np.bincount(owner, weights=row) for row in losses]
    sums = np.asarray(per_text, dtype=np.float64)  # (ranks, texts)
    resamples = Resamples.make(len(sizes), draws, seed)
    drawn = resamples.means(sums) / resamples.means(sizes[None, :])
    low, high = percentile_interval(drawn, axis=1)
    lower, upper = percentile_interval(drawn - drawn[-1], axis=1)
    mean = losses.mean(axis=1)
    return pd.DataFrame(
        {
            "rank": list(ranks),
            "loss_bits": mean,
            "low": low,
            "high": high,
            "difference": mean - mean[-1],
            "difference_low": lower,
            "difference_high": upper,
            "n": losses.shape[1],
            "seed": seed,
        }
    )
