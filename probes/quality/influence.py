"""Block influence over the tokens of texts, with intervals that know that tokens of one text belong together."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from probes.errors import DoesNotApply
from probes.layers import block_influence


def influence_rows(store: Any, confidence: float = 0.95) -> list[dict[str, Any]]:
    """Rows of `block_influence` for every block, from a store of token states (pooling "none") of `resid_post`.

    The value is the mean over tokens, as in ShortGPT (Men et al. 2024, arXiv 2403.03853); the interval is value ±
    t · √(Σ r_g² · G/(G − 1)), r_g the summed deviation of text g's tokens from the value over all tokens; n counts
    texts. The value is null for a block where a token has no direction.
    """
    offsets = np.asarray(store.offsets)
    texts = len(offsets) - 1
    layers = store.layers("resid_post")
    rows: list[dict[str, Any]] = []
    for block in layers[:-1]:
        place = {
            "measure": "block_influence",
            "site": "resid_post",
            "block": int(block),
            "n": texts,
        }
        try:
            value, each = block_influence(
                store["resid_post", block], store["resid_post", block + 1]
            )
        except DoesNotApply:
            rows.append({**place, "value": None})
            continue
        row = {**place, "value": value}
        if texts > 2:
            own = np.add.reduceat(each - value, offsets[:-1]) / len(each)
            spread = np.sqrt(np.square(own).sum() * texts / (texts - 1))
            half = float(stats.t.ppf(0.5 + confidence / 2, texts - 1) * spread)
            row |= {"low": max(0.0, value - half), "high": min(2.0, value + half)}
        rows.append(row)
    return rows
