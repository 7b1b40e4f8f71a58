"""Blocks that can be left out: which stretch of blocks changes the states least, and what leaving it out costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError
from probes.layers import block_influence
from probes.quality.measured import Judge, Quality
from probes.stats import percentile_interval

if TYPE_CHECKING:
    from probes.models import Model

Array = NDArray[np.floating[Any]]

MOST = 0.5  # share of the blocks that a stretch may hold
COLUMNS = (
    "dataset",
    "first",
    "count",
    "chosen",
    "influence",
    "measure",
    "quality",
    "low",
    "high",
    "share",
    "share_low",
    "share_high",
    "relative_cost",
    "n",
    "seed",
)


@dataclass(frozen=True)
class Stretch:
    """`count` blocks from block `first` on; `chosen` by least influence, otherwise a comparison."""

    first: int
    count: int
    influence: float
    chosen: bool

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(range(self.first, self.first + self.count))


def stretch_influence(
    states: Mapping[int, Any], counts: Sequence[int]
) -> dict[tuple[int, int], float]:
    """1 − mean cosine between the states before and after every stretch: {(first, count): influence}.

    `states` maps layer 0…L to the residual stream (n, d). In [0, 2]; 0: the stretch leaves every direction as it was
    (`probes.layers.block_influence` over several blocks). Stretches where a state has no direction are left out.

    >>> X = np.eye(3)
    >>> stretch_influence({0: X, 1: X, 2: np.roll(X, 1, axis=0)}, [1])
    {(0, 1): 0.0, (1, 1): 1.0}
    """
    last = max(states)
    found: dict[tuple[int, int], float] = {}
    for count in sorted(set(counts)):
        for first in range(last - count + 1):
            with contextlib.suppress(DoesNotApply):
                value, _ = block_influence(states[first], states[first + count])
                found[first, count] = value
    return found


def choose_stretches(
    states: Mapping[int, Any], counts: Sequence[int] | None = None, seed: int = 0
) -> list[Stretch]:
    """For every count the stretch of least influence, the last blocks (an early exit), and one drawn at random.

    The counts are 1, 2, 3, 4, 6, 8, 12, … up to half the blocks by default. Raises `InputError` for counts that
    leave no block.
    """
    L = max(states)
    sizes = default_counts(L) if counts is None else list(counts)
    bad = [count for count in sizes if not 1 <= count < L]
    if bad:
        raise InputError(f"{bad[0]} blocks cannot be left out of {L}: 1 to {L - 1} can")
    influence = stretch_influence(states, sizes)
    rng = np.random.default_rng(seed)
    found: list[Stretch] = []
    for count in sizes:
        held = {first: value for (first, size), value in influence.items() if size == count}
        if not held:
            continue
        best = min(held, key=lambda first: (held[first], first))
        found.append(Stretch(best, count, held[best], True))
        last = L - count
        if last != best and last in held:
            found.append(Stretch(last, count, held[last], False))
        others = [first for first in held if first not in (best, last)]
        if others:
            other = int(rng.choice(others))
            found.append(Stretch(other, count, held[other], False))
    return found


def default_counts(n_blocks: int) -> list[int]:
    """How many blocks to leave out: 1, 2, 3, then ever larger steps, up to half.

    >>> default_counts(6), default_counts(30)
    ([1, 2, 3], [1, 2, 3, 4, 6, 8, 12, 15])
    """
    most = int(MOST * n_blocks)
    steps = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, most]
    return sorted({step for step in steps if 1 <= step <= most})


def measure_drops(
    model: Model,
    stretches: Sequence[Stretch],
    judge: Judge,
    full: Quality,
    capture_last: Callable[[str], Array],
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Quality of the last layer with each stretch left out of the live model, beside the whole model.

    `full` is the quality of the whole model's layers, its last cell the reference; `capture_last(text)` captures the
    last layer's pooled states (texts, d) of the model as it is at the call. Shares are paired: the same resamples
    judge both, and a share is null where the full model's own quality cannot be told from 0. Returns one row per
    stretch; relative_cost is the share of blocks that are kept, not of time.
    """
    from probes.capture.skip import skip_blocks

    rows: list[dict[str, Any]] = []
    L = model.n_layers
    for done, stretch in enumerate(stretches):
        if progress is not None:
            progress(done, len(stretches))
        with skip_blocks(model, stretch.blocks):
            states = capture_last(f"without blocks {stretch.first}–{stretch.blocks[-1]}")
        found = judge({L: states})
        low, high = percentile_interval(found.draws[0])
        share, share_low, share_high = found.share_of(full)
        rows.append(
            {
                "dataset": judge.task.name,
                "first": stretch.first,
                "count": stretch.count,
                "chosen": stretch.chosen,
                "influence": stretch.influence,
                "measure": judge.task.primary,
                "quality": float(found.values[0]),
                "low": float(low),
                "high": float(high),
                "share": share,
                "share_low": share_low,
                "share_high": share_high,
                "relative_cost": (L - stretch.count) / L,
                "n": len(judge.task),
                "seed": judge.seed,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))
