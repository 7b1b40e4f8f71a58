"""By which datasets candidates are judged: one, or several of which the worst or the weighted mean counts.

Where the worst counts, "its" quality is that of the dataset on which a candidate keeps the smallest share. Where the
weighted mean counts, it is the weighted mean of the qualities, and the share is that of the full model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.decision import Kept
from probes.exits.evidence import Drawn, draw_quality, loss_table, ratio
from probes.exits.resample import Resamples
from probes.exits.verdicts import TASK, WEIGHT
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

_APART = 1_000_003  # between the seeds of datasets, whose resamples must be independent


@dataclass(frozen=True)
class Judged:
    """Scores on one dataset and its four parts."""

    scores: CandidateScores
    parts: Mapping[str, IntArray]

    @property
    def name(self) -> str:
        return self.scores.task.name

    def clusters(self, part: str) -> IntArray:
        return self.scores.task.clusters[self.parts[part]]


@dataclass(frozen=True)
class Judges:
    """The datasets, with the weights of their mean (summing to 1), or None where each must keep the budget."""

    tasks: tuple[Judged, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names:
            raise InputError("no dataset: candidates are judged on at least one")
        if len(set(names)) < len(names):
            raise InputError(f"datasets {', '.join(names)}: two have one name")
        if any(task.scores.candidates != self.candidates for task in self.tasks):
            raise InputError("the datasets have different candidates: give the same to each")

    @classmethod
    def make(cls, tasks: tuple[Judged, ...], weights: tuple[float, ...] | None = None) -> Judges:
        """With `weights` made to sum to 1; one dataset needs none.

        Raises `InputError` where they are not one positive number per dataset.
        """
        check_weights(weights, len(tasks))
        if weights is None or len(tasks) == 1:
            return cls(tasks)
        return cls(tasks, tuple(w / sum(weights) for w in weights))

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return self.tasks[0].scores.candidates

    @property
    def full(self) -> Candidate:
        return self.tasks[0].scores.full

    @property
    def are_several(self) -> bool:
        return len(self.tasks) > 1

    @property
    def rule(self) -> str | None:
        """`worst`, `weighted`, or None for one dataset."""
        if not self.are_several:
            return None
        return "worst" if self.weights is None else "weighted"

    def quality(self, wanted: list[Candidate], part: str) -> tuple[Array, Array]:
        """Quality and share of the wanted candidates on a part: (wanted,) each."""
        found = [t.scores.quality([self.full, *wanted], t.parts[part]) for t in self.tasks]
        values = np.stack(found)  # (tasks, 1 + wanted)
        if self.weights is not None:
            mean = np.asarray(self.weights) @ values
            return mean[1:], ratio(mean[1:], mean[:1])
        shares = ratio(values[:, 1:], values[:, :1])
        worst = shares.argmin(axis=0)
        columns = np.arange(len(wanted))
        return values[worst, columns + 1], shares[worst, columns]

    def merit(self, part: str) -> dict[Candidate, float]:
        """By what chains are ordered: quality, or the smallest share where the worst dataset counts."""
        quality, share = self.quality(list(self.candidates), part)
        values = share if self.rule == "worst" else quality
        return dict(zip(self.candidates, values.tolist(), strict=True))

    def losses(self, wanted: list[Candidate], part: str) -> pd.DataFrame:
        """Losses on a part as in `loss_table`, with the columns `task` and `weight` where they are needed."""
        tables: list[pd.DataFrame] = []
        for index, task in enumerate(self.tasks):
            table = loss_table(task.scores, wanted, task.parts[part])
            if self.are_several:
                table.insert(0, TASK, task.name)
            if self.weights is not None:
                table.insert(1, WEIGHT, self.weights[index])
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def share_draws(self, wanted: list[Candidate], draws: int, seed: int) -> pd.DataFrame:
        """The draws of `share_table`: of the weighted means, or of every dataset with the column `task`."""
        drawn: list[Drawn] = []
        for index, task in enumerate(self.tasks):
            fit, rows = task.parts["fit"], task.parts["calibrate"]
            own_seed = seed + _APART * index
            drawn.append(draw_quality(task.scores, wanted, fit, rows, draws, own_seed))
        if self.weights is not None:
            total = drawn[0].times(self.weights[0])
            for one, weight in zip(drawn[1:], self.weights[1:], strict=True):
                total = total.plus(one.times(weight))
            return total.table(wanted, self.full)
        tables = [one.table(wanted, self.full) for one in drawn]
        if self.are_several:
            for task, table in zip(self.tasks, tables, strict=True):
                table.insert(0, TASK, task.name)
        return pd.concat(tables, ignore_index=True)

    def kept(
        self, wanted: list[Candidate], part: str, confidence: float, draws: int, seed: int
    ) -> list[Kept]:
        """Quality and share of the wanted candidates on a part, with intervals."""
        both = [self.full, *wanted]
        if self.weights is None:
            each = [
                kept_on(t.scores, wanted, t.parts[part], confidence, draws, seed + _APART * i)
                for i, t in enumerate(self.tasks)
            ]
            return [_worst(list(of_one)) for of_one in zip(*each, strict=True)]
        quality, drawn, n = np.zeros(len(both)), np.zeros((len(both), draws)), 0
        for index, (task, weight) in enumerate(zip(self.tasks, self.weights, strict=True)):
            rows, own_seed = task.parts[part], seed + _APART * index
            resamples = Resamples.make(len(rows), draws, own_seed, task.clusters(part))
            quality += weight * task.scores.quality(both, rows)
            drawn += weight * task.scores.draws(both, rows, resamples)
            n += len(rows)
        return _kept(quality, drawn, n, confidence)

    def by_task(
        self, candidate: Candidate, confidence: float, draws: int, seed: int
    ) -> tuple[dict[str, Any], ...]:
        """What the candidate keeps of every dataset, on its test part; empty for a single dataset."""
        if not self.are_several:
            return ()
        rows: list[dict[str, Any]] = []
        for index, task in enumerate(self.tasks):
            place = task.parts["test"], confidence, draws, seed + _APART * index
            kept = kept_on(task.scores, [candidate], *place)[0]
            about = {"name": task.name, "kind": task.scores.task.kind}
            weight = None if self.weights is None else self.weights[index]
            about |= {"measure": task.scores.task.primary, "weight": weight}
            rows.append({**about, **kept.as_dict()})
        return tuple(rows)


def check_weights(weights: Sequence[float] | None, tasks: int) -> None:
    """`InputError` unless `weights` are one number above 0 per dataset, or None."""
    if weights is not None and (len(weights) != tasks or not all(w > 0 for w in weights)):
        raise InputError(
            f"task weights {', '.join(f'{w:g}' for w in weights)}: one number above 0 for each of the "
            f"{tasks} datasets is needed"
        )


def kept_on(
    scores: CandidateScores,
    wanted: list[Candidate],
    rows: IntArray,
    confidence: float,
    draws: int,
    seed: int,
) -> list[Kept]:
    """Quality and share of the wanted candidates over the examples `rows` of one dataset, resamples shared."""
    resamples = Resamples.make(len(rows), draws, seed, scores.task.clusters[rows])
    both = [scores.full, *wanted]
    drawn = scores.draws(both, rows, resamples)
    return _kept(scores.quality(both, rows), drawn, len(rows), confidence)


def _kept(quality: Array, draws: Array, n: int, confidence: float) -> list[Kept]:
    """Of every candidate behind the first, which is the full model; `quality` (1 + c,), `draws` (1 + c, draws)."""
    low, high = percentile_interval(draws, confidence, axis=1)
    meaning = bool(quality[0] > 0)
    shares = ratio(draws, draws[0])
    share_high = percentile_interval(shares, confidence, axis=1)[1]
    share_low = np.quantile(shares, 1 - confidence, axis=1)
    return [
        Kept(
            quality=float(quality[i]),
            low=float(low[i]),
            high=float(high[i]),
            quality_full=float(quality[0]),
            share=float(quality[i] / quality[0]) if meaning else None,
            share_low=float(share_low[i]) if meaning else None,
            share_high=float(share_high[i]) if meaning else None,
            n=n,
        )
        for i in range(1, len(quality))
    ]


def _worst(each: list[Kept]) -> Kept:
    """The dataset with the smallest share speaks; the lower limit is the lowest of all.

    The smallest true share is that of some dataset, whose own lower limit holds at the stated confidence.
    """
    worst = min(each, key=lambda kept: -np.inf if kept.share is None else kept.share)
    if len(each) == 1 or worst.share is None:
        return worst
    lows = [kept.share_low for kept in each if kept.share_low is not None]
    return replace(worst, share_low=min(lows))
