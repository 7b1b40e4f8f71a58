"""Heads ablated one by one, and whether those that score high are those that matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from probes.capture.progress import Report, progress_bar
from probes.errors import DoesNotApply, InputError
from probes.heads.ablation.edit import Means, ablate_heads
from probes.heads.ablation.judge import Judge
from probes.heads.ablation.paired import difference_bounds
from probes.heads.ablation.ranking import HeadId, check_heads
from probes.stats import Estimate, percentile_interval, spearman
from probes.tables import typed

if TYPE_CHECKING:
    from probes.models import Model


def single_head_effects(
    model: Model,
    judge: Judge,
    heads: Iterable[HeadId],
    *,
    mode: str = "zero",
    means: Means | None = None,
    scores: Mapping[HeadId, float] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool | Report = False,
) -> pd.DataFrame:
    """What changes when each of `heads` alone is ablated: one row per head and measure.

    Columns: block, head, measure, `score` (of `scores`, null without), `difference` to the whole model with
    difference_low and difference_high, paired by item (t over items or the judge's groups), n, seed. Costs one pass
    over the judge's items per head, and one more. Nothing is drawn; `seed` is only noted.

    Raises `InputError` for heads that do not exist. See also `effect_agreement`.

    >>> def worst(model, judge, scores):  # the head whose loss costs most
    ...     table = single_head_effects(model, judge, scores, scores=scores)
    ...     return table.nsmallest(1, "difference")[["block", "head", "difference"]]
    """
    chosen = [
        (block, head) for block, numbers in check_heads(model, heads).items() for head in numbers
    ]
    if not chosen:
        raise InputError("no head was asked for: name at least one")
    rows: list[dict[str, Any]] = []
    with progress_bar(progress, len(chosen) + 1, 0, "heads") as advance:
        whole = judge(model)
        advance(1)
        for block, head in chosen:
            with ablate_heads(model, [(block, head)], mode, means):
                without = judge(model)
            advance(1)
            for name, plain in whole.items():
                value, low, high = difference_bounds(
                    without[name], plain, [judge.owners], confidence
                )
                rows.append(
                    {
                        "block": block,
                        "head": head,
                        "measure": name,
                        "score": None if scores is None else scores.get((block, head)),
                        "difference": value,
                        "difference_low": low,
                        "difference_high": high,
                        "n": judge.n,
                        "seed": seed,
                    }
                )
    frame = pd.DataFrame(rows, dtype=object)
    return typed(frame, integers=("block", "head", "n", "seed"), words=("measure",))


def effect_agreement(
    effects: pd.DataFrame,
    measure: str,
    *,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Spearman correlation over heads between `score` and the loss, −difference, in [−1, 1]; up: high scores matter.

    `effects` is what `single_head_effects` gives with scores, of a measure where up is better. The interval resamples
    heads with replacement, so it speaks of heads such as these.

    Raises `DoesNotApply` for fewer than four heads, or where all scores or all losses are equal.

    >>> effects = pd.DataFrame({"score": [0.9, 0.5, 0.3, 0.1, 0.0], "difference": [-0.8, -0.3, -0.4, 0.0, 0.1]})
    >>> round(effect_agreement(effects.assign(measure="accuracy"), "accuracy").value, 3)
    0.9
    """
    mine: Any = effects[(effects["measure"] == measure).to_numpy(bool)]
    mine = mine[mine["score"].notna()]
    score = mine["score"].to_numpy(np.float64)
    loss = -mine["difference"].to_numpy(np.float64)
    if len(score) < 4:
        raise DoesNotApply(
            f"agreement of {measure!r} over {len(score)} heads with a score: at least four are needed"
        )
    if np.ptp(score) == 0 or np.ptp(loss) == 0:
        what = "score" if np.ptp(score) == 0 else "loss"
        raise DoesNotApply(f"agreement of {measure!r}: every head has the same {what}")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(score), size=(draws, len(score)))
    low, high = percentile_interval(spearman(score[picks], loss[picks]), confidence)
    value = float(spearman(score, loss))
    return Estimate(value, float(low), float(high), len(score), seed)
