"""Core neurons as a table: how quiet blocks are, how stable cores are, and whether they follow meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DataError
from probes.heads.neurons.core import CoreNeurons, core_neurons, jaccard
from probes.heads.neurons.measures import ACTIVATION_SPARSITY, CORE_SIMILARITY, CORE_STABILITY
from probes.layers.tokens import mean_row
from probes.models import Model
from probes.stats import percentile_interval, spearman
from probes.types import TextPairs

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]
RANDOM = "random"
COLUMNS = {
    "block": "Int64",
    "measure": "string",
    "variant": "string",
    "value": "Float64",
    "low": "Float64",
    "high": "Float64",
    "n": "Int64",
    "seed": "Int64",
}


def neuron_table(
    model: Model,
    data: Sequence[str] | TextPairs,
    *,
    share: float = 0.2,
    token_share: float = 0.4,
    draws: int = 1000,
    seed: int = 0,
    max_length: int | None = None,
) -> pd.DataFrame:
    """block, measure, variant, value, low, high, n, seed for the texts of `data`.

    * `activation_sparsity`: mean over texts.
    * `core_stability`: overlap of the core of the first half of a text with that of the whole; variant "random": with
      that of another text. Models that see later tokens have none, said in `frame.attrs["notes"]`.
    * `core_similarity`, where `data` are scored pairs: Spearman correlation of the overlap of the two cores with the
      score, bootstrap over pairs (over groups where there are any); variant "random": with scores dealt out anew, its
      mean and the central 95 % of `draws` draws.

    Intervals of means are mean ± t · standard error over texts, 95 %. Raises as `core_neurons` does, `DataError` for
    fewer than four texts or pairs.

    >>> def quietest(model, texts):  # the block with the most quiet neurons
    ...     table = neuron_table(model, texts)
    ...     own = table[table["measure"] == "activation_sparsity"]
    ...     return int(own.loc[own["value"].astype(float).idxmax(), "block"])
    """
    texts = data.all_texts() if isinstance(data, TextPairs) else tuple(data)
    if (len(data) if isinstance(data, TextPairs) else len(texts)) < 4:
        raise DataError(f"{len(texts)} texts: four texts or pairs or more are needed")
    core = core_neurons(model, texts, share=share, token_share=token_share, max_length=max_length)
    owners = np.arange(len(texts))
    if isinstance(data, TextPairs):  # what belongs together is one draw
        groups = np.arange(len(data)) if data.groups is None else np.asarray(data.groups)
        owners = np.unique(np.concatenate([groups, groups]), return_inverse=True)[1]
    rows: list[dict[str, Any]] = []
    for block in core.sets:
        rng = np.random.default_rng([seed, block])
        own = {"block": block, "seed": seed}
        sparsity = mean_row(core.sparsity[block], ACTIVATION_SPARSITY, owners, 0.95)
        rows.append({**own, **sparsity, "measure": ACTIVATION_SPARSITY.name, "seed": seed})
        rows += [{**row, **own} for row in _stability(core, block, owners, rng)]
        if isinstance(data, TextPairs):
            overlap = jaccard(core.sets[block][: len(data)], core.sets[block][len(data) :])
            rows += [{**row, **own} for row in _similarity(overlap, data, draws, rng)]
    frame: Any = pd.DataFrame({name: [row.get(name) for row in rows] for name in COLUMNS})
    typed = frame.astype(COLUMNS)
    notes = list(core.missing)
    if core.half is None:
        notes.append(
            f"core_stability: {model.name} sees later tokens, half a text has other states"
        )
    typed.attrs["notes"] = notes
    return typed


def _stability(
    core: CoreNeurons, block: int, owners: IntArray, rng: np.random.Generator
) -> list[dict[str, Any]]:
    if core.half is None:
        return []
    sets, half = core.sets[block], core.half[block]
    n = len(sets)
    # one step along a random order: everybody gets another text, and none its own
    order = rng.permutation(n)
    other = np.empty(n, np.int64)
    other[order] = np.roll(order, -1)
    found: list[dict[str, Any]] = []
    for variant, theirs in ((None, sets), (RANDOM, sets[other])):
        estimate = mean_row(jaccard(half, theirs), CORE_STABILITY, owners, 0.95)
        found.append({**estimate, "measure": CORE_STABILITY.name, "variant": variant})
    return found


def _similarity(
    overlap: FloatArray, pairs: TextPairs, draws: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    n, scores = len(pairs), pairs.scores
    groups = (
        np.arange(n) if pairs.groups is None else np.unique(pairs.groups, return_inverse=True)[1]
    )
    boots = np.concatenate(
        [spearman(overlap[rows], scores[rows]) for rows in _resamples(groups, draws, rng)]
    )
    dealt = rng.permuted(np.tile(scores, (draws, 1)), axis=1)
    random = spearman(np.broadcast_to(overlap, dealt.shape), dealt)
    found: list[dict[str, Any]] = []
    for variant, value, drawn in (
        (None, float(spearman(overlap, scores)), boots),
        (RANDOM, float(np.mean(random)), random),
    ):
        low, high = percentile_interval(drawn)
        found.append(
            {
                "measure": CORE_SIMILARITY.name,
                "variant": variant,
                "value": value,
                "low": float(low),
                "high": float(high),
                "n": n,
            }
        )
    return found


def _resamples(groups: IntArray, draws: int, rng: np.random.Generator) -> list[IntArray]:
    """Row numbers (m, n) of `draws` bootstrap samples of whole groups; in one piece where groups are single rows."""
    n, sizes = len(groups), np.bincount(groups)
    if len(sizes) == n:
        return [rng.integers(0, n, (draws, n))]
    members = [np.flatnonzero(groups == group) for group in range(len(sizes))]
    chosen = rng.integers(0, len(members), (draws, len(members)))
    return [np.concatenate([members[group] for group in row])[None] for row in chosen]
