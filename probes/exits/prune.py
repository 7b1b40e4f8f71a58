"""Which chains are tested: every chain shares the error δ, so only the most promising of a large search space enter.

The rule sees the tune part only and no budget, so the guarantee holds, and any budget can be asked of the same tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError

Array = NDArray[np.floating[Any]]

MOST_CHAINS = 6
LEAST_SHARE = 0.8  # of the full model's tune quality: what keeps less is seldom asked for


def prune_chains(chains: pd.DataFrame, most: int = MOST_CHAINS) -> pd.DataFrame:
    """The rows of at most `most` chains: those whose common cost–quality front on the tune part is best.

    `chains` as `build_chains` makes them. Chains are taken one after the other, each time the one that adds most to
    the area under the front of those taken: cost from 0 to the full model's, quality (the best at no higher cost) above
    LEAST_SHARE of the full model's; where none adds to that, above the poorest candidate's. So a chain whose every
    candidate is dominated by others comes last. Chains without a candidate besides the full model are always kept:
    they are never tested and share nothing.

    Raises `InputError` where `most` is below 1.
    """
    if most < 1:
        raise InputError(f"most {most}: at least one chain must be tested")
    names = [str(name) for name in dict.fromkeys(chains["chain"])]
    points = {name: _points(chains.loc[chains["chain"] == name]) for name in names}
    empty = [name for name in names if not len(points[name])]
    rest = [name for name in names if len(points[name])]
    if len(rest) <= most:
        return chains
    full = chains.loc[chains["order"] == 0, ["cost", "tune_quality"]].to_numpy(dtype=float)
    ceiling, top = (float(value) for value in full[0])
    floors = (LEAST_SHARE * top, float(chains["tune_quality"].to_numpy(dtype=float).min()))
    taken, front = list[str](), np.empty((0, 2))
    while len(taken) < most:
        joined = {name: np.concatenate([front, points[name]]) for name in rest}
        best = max(rest, key=lambda name: tuple(_area(joined[name], ceiling, f) for f in floors))
        taken.append(best)
        rest.remove(best)
        front = joined[best]
    return chains.loc[chains["chain"].isin([*taken, *empty])].reset_index(drop=True)


def chains_left_out(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """Names of the chains that were pruned."""
    kept = set(after["chain"])
    return [str(name) for name in dict.fromkeys(before["chain"]) if name not in kept]


def _points(chain: pd.DataFrame) -> Array:
    """(cost, tune quality) of its candidates besides the full model: (steps, 2)."""
    return chain.loc[chain["order"] > 0, ["cost", "tune_quality"]].to_numpy(dtype=float)


def _area(points: Array, ceiling: float, floor: float) -> float:
    """Area between `floor` and the best quality to be had at each cost up to `ceiling`."""
    ordered = points[np.argsort(points[:, 0], kind="stable")]
    best = np.maximum.accumulate(np.maximum(ordered[:, 1] - floor, 0))
    borders = np.append(np.minimum(ordered[:, 0], ceiling), ceiling)
    return float((best * np.diff(borders)).sum())
