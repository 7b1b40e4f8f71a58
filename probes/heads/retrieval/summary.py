"""Numbers of a whole model from its running scores, with intervals that resample needles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.heads.retrieval.measures import (
    ANSWERED_SHARE,
    RETRIEVAL_SHARE,
    RETRIEVAL_ZERO_SHARE,
    SPLIT_HALF_OVERLAP,
    SPLIT_HALF_SPEARMAN,
)
from probes.layers.tokens import owner_of
from probes.registry import MEASURES, Measure
from probes.stats import percentile_interval, spearman, wilson_interval

if TYPE_CHECKING:
    from probes.heads.retrieval.running import RunningScores

Array = NDArray[np.float64]
Drawn = Sequence[float | None]

RETRIEVES = 0.1
TOP = 20
DRAWS = 1000
FEWEST_NEEDLES = 3
_OF_ANSWERED = (RETRIEVAL_SHARE, RETRIEVAL_ZERO_SHARE, SPLIT_HALF_OVERLAP, SPLIT_HALF_SPEARMAN)


@dataclass(frozen=True, eq=False)
class Answered:
    """What the answered trials hold: `score` and `mass` (trial, head), and which of them are every other one."""

    score: Array
    mass: Array
    odd: NDArray[np.bool_]

    def numbers(self, weights: Array) -> tuple[float | None, ...]:
        """The values of `_OF_ANSWERED`, trials counted by `weights` (trial,); None undefined."""
        mean = weights @ self.score / weights.sum()
        shares = float((mean >= RETRIEVES).mean()), float((mean == 0).mean())
        return (*shares, *self.halves(weights))

    def halves(self, weights: Array) -> tuple[float | None, float | None]:
        """Top-20 overlap and Spearman correlation of the two halves, trials counted by `weights`; None undefined."""
        both = [np.where(half, weights, 0.0) for half in (self.odd, ~self.odd)]
        if any(half.sum() == 0 for half in both):
            return None, None
        means = [half @ self.score / half.sum() for half in both]
        tops = [
            leading(mean, half @ self.mass / half.sum())[:TOP]
            for mean, half in zip(means, both, strict=True)
        ]
        tops = [top[mean[top] > 0] for mean, top in zip(means, tops, strict=True)]
        larger = max(map(len, tops))
        overlap = len(set(tops[0].tolist()) & set(tops[1].tolist())) / larger if larger else None
        constant = any(np.ptp(mean) == 0 for mean in means)
        return overlap, None if constant else float(spearman(*means))


def leading(score: Array, mass: Array) -> NDArray[np.int64]:
    """Numbers of heads, best score first; equal ones by mass, then in their own order.

    >>> leading(np.array([0.0, 0.5, 0.5]), np.array([0.0, 0.1, 0.2])).tolist()
    [2, 1, 0]
    """
    return np.lexsort((np.arange(len(score)), -mass, -score))


def summary_rows(
    running: RunningScores, *, seed: int = 0, draws: int = DRAWS
) -> list[dict[str, Any]]:
    """Run-level tidy rows: shares of heads, stability of two halves, share of trials answered.

    Intervals are central ones of `draws` resamples of needles with all their trials, drawn by `seed`, widened to the
    value itself (fewer different needles agree less and leave more heads at 0, so resamples lean to one side) and, for
    the share answered, to Wilson's. They speak of other needles of the kind; null below three needles, and where all
    resamples agree: few needles that are alike are no certainty about others.
    """
    asked = [i for i in running.trials if running.about(i).get("answered") is not None]
    if not asked:
        return []
    right = np.asarray([bool(running.about(i)["answered"]) for i in asked], np.float64)
    done = int(right.sum())
    needles = owner_of([running.about(i)["needle"] for i in asked], len(asked))
    weights = _resampled(needles, draws, seed)
    wilson = wilson_interval(done, len(asked))

    def row(measure: Measure, n: int, value: float | None, found: Drawn) -> dict[str, Any]:
        low, high = _bounds(value, found)
        if measure is ANSWERED_SHARE and value is not None and len(found):
            low, high = (
                wilson
                if low is None or high is None
                else (min(low, wilson[0]), max(high, wilson[1]))
            )
        about = {"measure": measure.name, "value": value, "n": n, "seed": seed}
        return {**about, "low": low, "high": high}

    shares = [float(w @ right / w.sum()) for w in weights]
    rows = [row(ANSWERED_SHARE, len(asked), done / len(asked), shares)]
    if done:
        answered = answered_scores(running)
        own = weights[:, right == 1]
        few = len(np.unique(needles[right == 1])) < FEWEST_NEEDLES
        drawn = [answered.numbers(w) for w in own if w.any() and not few]
        heads = answered.score.shape[1]
        for place, (value, measure) in enumerate(
            zip(answered.numbers(np.ones(done)), _OF_ANSWERED, strict=True)
        ):
            n = heads if measure in (RETRIEVAL_SHARE, RETRIEVAL_ZERO_SHARE) else done
            rows.append(row(measure, n, value, [numbers[place] for numbers in drawn]))
    return [row for row in rows if row["value"] is not None]


def answered_scores(running: RunningScores) -> Answered:
    """The answered trials' scores of all heads that there are; without mass all count as equal."""
    score, trials = running.stacked("score")
    known = ~np.isnan(score[0])
    mass, measured = running.stacked("mass", trials)
    flat = mass[:, known] if measured == trials else np.zeros((len(trials), int(known.sum())))
    return Answered(score[:, known], flat, np.arange(len(trials)) % 2 == 1)


def needle_notes(running: RunningScores) -> list[str]:
    """What to say of intervals where there are too few needles for them."""
    names = {running.about(i)["needle"] for i in running.trials}
    told = {running.about(i)["needle"] for i in running.answered}
    needed = f"an interval is taken over needles and needs {FEWEST_NEEDLES}"
    if len(names) < FEWEST_NEEDLES:
        return [f"{len(names)} needle(s) in all trials: no intervals, since {needed}"]
    if running.answered and len(told) < FEWEST_NEEDLES:
        return [f"{len(told)} needle(s) answered: no intervals of retrieval scores, since {needed}"]
    return []


def agreed_notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to say of rows of `summary_rows` without an interval, where there are enough needles for one."""
    names = [MEASURES[row["measure"]].title for row in rows if row["low"] is None]
    if not names:
        return []
    return [f"no interval of {', '.join(names)}: all resamples of needles give the same number"]


def not_answered(running: RunningScores) -> str:
    """What a model without a right answer said instead, by two examples."""
    told = [running.about(i) for i in running.trials[:2]]
    examples = "; ".join(
        f"expected {_short(each.get('expected'))} but the model said {_short(each.get('emitted'))}"
        for each in told
    )
    return f"answered none of {len(running)} trials word for word, so that no head has a retrieval score ({examples})"


def _short(text: Any) -> str:
    words = str(text or "").strip()
    return repr(words if len(words) <= 60 else f"{words[:60]}…")


def _resampled(owners: NDArray[np.int64], draws: int, seed: int) -> Array:
    """(draws, trial): how often each trial's needle was drawn; no draws below three needles."""
    groups = int(owners.max()) + 1
    if groups < FEWEST_NEEDLES:
        return np.zeros((0, len(owners)))
    picks = np.random.default_rng([seed, 7]).integers(0, groups, size=(draws, groups))
    counts = np.stack([np.bincount(pick, minlength=groups) for pick in picks])
    return counts[:, owners].astype(np.float64)


def _bounds(whole: float | None, found: Drawn) -> tuple[float | None, float | None]:
    known = np.asarray([value for value in found if value is not None], np.float64)
    if whole is None or len(known) < 2 or np.ptp([*known, whole]) == 0:
        return None, None
    low, high = percentile_interval(known)
    return min(float(low), whole), max(float(high), whole)
