"""Scores as they come in, trial by trial: means, intervals, the leading heads, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DataError, DoesNotApply
from probes.heads.ablation.ranking import HeadId
from probes.heads.retrieval import summary
from probes.heads.retrieval.measures import (
    COPY_CONTRIBUTION,
    QUERY_MASS,
    RETRIEVAL_SCORE,
)
from probes.heads.retrieval.scores import TrialResult
from probes.heads.retrieval.summary import TOP
from probes.heads.retrieval.trials import Trial, describe
from probes.layers.tokens import mean_row, owner_of
from probes.registry import Measure

Scores = NDArray[np.float64]

WINDOW = 5  # answered trials between two top-20 sets that are compared
STABLE = 0.95
STABLE_TIMES = 3
FEWEST = 20  # answered trials before an early stop

TRIAL_COLUMNS = (
    "trial", "needle", "tokens", "depth", "distractors", "mode", "answered", "logprob", "expected", "emitted",
)  # fmt: skip
HEAD_COLUMNS = ("trial", "block", "head", "score", "mass", "contribution")
_FIELDS: dict[str, Measure] = {
    "score": RETRIEVAL_SCORE,
    "mass": QUERY_MASS,
    "contribution": COPY_CONTRIBUTION,
}


class RunningScores:
    """Scores of the trials so far. Copy scores count trials answered verbatim, mass and contribution all of them.

    `add` takes trials in any order and once each; `frames` and `from_frames` carry it over an interruption.

    >>> import numpy as np
    >>> scores = RunningScores()
    >>> scores.add_arrays(0, {"needle": "a", "answered": True}, {"score": np.array([[0.5, 1.0]])})
    >>> scores.top(1), 0 in scores
    ([(0, 1)], True)
    """

    def __init__(self) -> None:
        self._trials: dict[int, dict[str, Any]] = {}
        self._values: dict[int, dict[str, Scores]] = {}

    def __contains__(self, trial: object) -> bool:
        return trial in self._trials

    def __len__(self) -> int:
        return len(self._trials)

    @property
    def trials(self) -> list[int]:
        """Numbers of all trials, in order."""
        return sorted(self._trials)

    def about(self, trial: int) -> Mapping[str, Any]:
        """The columns of a trial: needle, tokens, depth, answered and so on."""
        return self._trials[trial]

    @property
    def answered(self) -> list[int]:
        """Numbers of the trials that were answered verbatim, in order."""
        return [i for i in sorted(self._trials) if self._trials[i].get("answered")]

    def add(
        self, number: int, trial: Trial, result: TrialResult, mode: str, expected: str | None = None
    ) -> None:
        """Takes in what `measure_trial` found; `number` is the trial's own and new."""
        answer = trial.needle.answer if expected is None else expected
        row = {
            **describe(trial),
            "mode": mode,
            "answered": result.answered,
            "logprob": result.logprob,
            "expected": answer,
            "emitted": result.emitted,
        }
        given = {name: getattr(result, name) for name in _FIELDS}
        self.add_arrays(number, row, {name: x for name, x in given.items() if x is not None})

    def add_arrays(self, number: int, row: Mapping[str, Any], values: Mapping[str, Scores]) -> None:
        """As `add`, from the columns of a trial and its (block, head) arrays, NaN where there is no head."""
        if number in self._trials:
            raise DataError(f"trial {number} was added twice")
        self._trials[number] = dict(row)
        self._values[number] = {name: np.asarray(x, np.float64) for name, x in values.items()}

    def stacked(self, field: str, trials: list[int] | None = None) -> tuple[Scores, list[int]]:
        """(trial, block, head) of "score", "mass" or "contribution", and the trials that have it."""
        chosen = self.answered if field == "score" else sorted(self._trials)
        if trials is not None:
            chosen = [i for i in chosen if i in trials]
        chosen = [i for i in chosen if field in self._values[i]]
        if not chosen:
            return np.zeros((0, 0, 0)), []
        return np.stack([self._values[i][field] for i in chosen]), chosen

    def means(self, field: str = "score", trials: list[int] | None = None) -> Scores:
        """(block, head), NaN where there is no head; `DoesNotApply` where no trial counts."""
        values, chosen = self.stacked(field, trials)
        if not chosen:
            raise DoesNotApply(
                "no trial was answered verbatim, so no head copied an answer: use easier needles, shorter contexts, "
                "or a model that answers questions"
                if field == "score"
                else f"{field} was measured in no trial"
            )
        return values.mean(axis=0)

    def order(self, trials: list[int] | None = None) -> dict[HeadId, float]:
        """Every head with its mean score, best first; equal ones by mass, then by block and head."""
        score = self.means("score", trials)
        mass, measured = self.stacked("mass", trials)
        known = ~np.isnan(score)
        second = mass.mean(axis=0)[known] if measured else np.zeros(int(known.sum()))
        places = np.argwhere(known)
        values = score[known]
        return {
            (int(places[i][0]), int(places[i][1])): float(values[i])
            for i in summary.leading(values, second)
        }

    def ranking(self, trials: list[int] | None = None) -> list[HeadId]:
        """Heads with a mean score above 0, in that order."""
        return [head for head, score in self.order(trials).items() if score > 0]

    def top(self, k: int = TOP, trials: list[int] | None = None) -> list[HeadId]:
        """At most k heads, best first; a head that never copied is never among them."""
        return self.ranking(trials)[:k]

    def overlap(self, upto: int | None = None) -> float | None:
        """Share of the top 20 after `upto` answered trials that were top 20 five answered trials before.

        None where there are no trials so far back, or no head has copied anything. Divided by the larger set.
        """
        answered = self.answered
        upto = len(answered) if upto is None else upto
        if upto - WINDOW < 1 or upto > len(answered):
            return None
        return shared(self.top(trials=answered[: upto - WINDOW]), self.top(trials=answered[:upto]))

    def running(self) -> pd.DataFrame:
        """Overlap after each answered trial: columns trial (how many), overlap, stopped (the rule holds by then)."""
        rows: list[dict[str, Any]] = []
        stable = 0
        stopped = False
        for upto in range(1, len(self.answered) + 1):
            overlap = self.overlap(upto)
            stable = stable + 1 if overlap is not None and overlap >= STABLE else 0
            stopped = stopped or (stable >= STABLE_TIMES and upto >= FEWEST)
            rows.append({"trial": upto, "overlap": overlap, "stopped": stopped})
        frame = pd.DataFrame(rows, columns=["trial", "overlap", "stopped"])
        return frame.astype({"trial": "Int64", "overlap": "Float64", "stopped": "boolean"})

    def stable(self) -> bool:
        """Whether the early stop's rule holds: 20 answered trials, and three overlaps in a row of 0.95 or more."""
        upto = len(self.answered)
        if upto < FEWEST:
            return False
        last = [self.overlap(upto - back) for back in range(STABLE_TIMES)]
        return all(overlap is not None and overlap >= STABLE for overlap in last)

    def rows(self, confidence: float = 0.95, **columns: Any) -> list[dict[str, Any]]:
        """Tidy rows of every head and measured field: mean over trials, interval by t over needles.

        Trials with the same needle count as one draw. `columns` are added to each row (seed, dataset).
        """
        found: list[dict[str, Any]] = []
        for field, measure in _FIELDS.items():
            values, trials = self.stacked(field)
            if not trials:
                continue
            owners = owner_of([self._trials[i]["needle"] for i in trials], len(trials))
            for block, head in np.argwhere(~np.isnan(values[0])):
                mean = mean_row(values[:, block, head], measure, owners, confidence)
                place = {"site": "z", "block": int(block), "head": int(head)}
                found.append({"measure": measure.name, **place, **mean, **columns})
        return found

    def summary_rows(self, *, seed: int = 0) -> list[dict[str, Any]]:
        """Run-level tidy rows: shares of heads, stability of two halves, share of trials answered, with intervals."""
        return summary.summary_rows(self, seed=seed)

    def halves(self) -> tuple[float | None, float | None]:
        """Top-20 overlap and Spearman correlation between every other answered trial and the rest; None undefined."""
        if not self.answered:
            return None, None
        return summary.answered_scores(self).halves(np.ones(len(self.answered)))

    def frames(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """All trials (`TRIAL_COLUMNS`), and all heads of all trials (`HEAD_COLUMNS`), null where not measured."""
        trials = [{"trial": i, **self._trials[i]} for i in sorted(self._trials)]
        heads = [self._head_frame(i) for i in sorted(self._trials)]
        table = pd.DataFrame(trials, columns=list(TRIAL_COLUMNS), dtype=object)
        whole = pd.concat(heads) if heads else pd.DataFrame(columns=list(HEAD_COLUMNS))
        return table.astype(_TRIAL_TYPES), whole.astype(_HEAD_TYPES).reset_index(drop=True)

    def _head_frame(self, number: int) -> pd.DataFrame:
        values = self._values[number]
        known = ~np.isnan(next(iter(values.values()))) if values else np.zeros((0, 0), bool)
        block, head = np.nonzero(known)
        columns: dict[str, Any] = {"trial": number, "block": block, "head": head}
        for field in _FIELDS:
            found = values.get(field)
            columns[field] = pd.array(
                [None] * len(block) if found is None else found[known], dtype="Float64"
            )
        return pd.DataFrame(columns)

    @classmethod
    def from_frames(
        cls, trials: pd.DataFrame, heads: pd.DataFrame, shape: tuple[int, int] | None = None
    ) -> RunningScores:
        """What `frames` gave, taken up again. Trials without head rows are left out: they are to be run again.

        `shape` is (blocks, most heads of a block) of the model. Without it the rows tell, which leaves out last blocks
        that have no heads: enough for looking at scores, not for adding trials of such a model.
        """
        found = cls()
        if heads.empty:
            return found
        if shape is None:
            numbers = heads[["block", "head"]].to_numpy(np.int64).max(axis=0)
            shape = (int(numbers[0]) + 1, int(numbers[1]) + 1)
        groups = dict(list(heads.groupby("trial")))
        for row in trials.to_dict("records"):
            number = int(row.pop("trial"))
            if number not in groups:
                continue
            group = groups[number]
            place = group["block"].to_numpy(int), group["head"].to_numpy(int)
            values: dict[str, Scores] = {}
            for field in _FIELDS:
                if not bool(group[field].isna().to_numpy().any()):
                    values[field] = np.full(shape, np.nan)
                    values[field][place] = group[field].to_numpy(float)
            clean = {key: None if value is pd.NA else value for key, value in row.items()}
            found.add_arrays(number, clean, values)
        return found


_TRIAL_TYPES: Any = {
    "trial": "Int64", "needle": "string", "tokens": "Int64", "depth": "Float64", "distractors": "Int64",
    "mode": "string", "answered": "boolean", "logprob": "Float64", "expected": "string", "emitted": "string",
}  # fmt: skip
_HEAD_TYPES: Any = {
    "trial": "Int64", "block": "Int64", "head": "Int64",
    "score": "Float64", "mass": "Float64", "contribution": "Float64",
}  # fmt: skip


def shared(first: list[HeadId], second: list[HeadId]) -> float | None:
    """Size of the intersection over that of the larger set; None for two empty ones.

    >>> shared([(0, 1), (2, 3)], [(2, 3)])
    0.5
    """
    larger = max(len(first), len(second))
    return len(set(first) & set(second)) / larger if larger else None
