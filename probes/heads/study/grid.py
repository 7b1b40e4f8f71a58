"""Answers by length and depth: of the whole model, without its best heads, and without random ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.heads.ablation import (
    ablate_heads,
    all_heads,
    matched_random_heads,
    spared,
    without_random,
)
from probes.heads.ablation.paired import mean_bounds
from probes.heads.retrieval import PlannedTrial
from probes.heads.study.asking import Questions

if TYPE_CHECKING:
    from probes.heads.study.study import Study

GRID_HEADS = 10
BANDS = 3  # of depth: early, middle, late
CELL = 4  # trials of a cell at least
CELL_NEEDLES = 3  # different needles among them, without which there is no interval
Array = NDArray[np.float64]
IntArray = NDArray[np.int64]


def band(depth: float) -> int:
    """0 for the first third of the context, 1 for the second, 2 for the last.

    >>> [band(depth) for depth in (0.1, 0.3, 0.5, 0.7, 1.0)]
    [0, 0, 1, 2, 2]
    """
    return min(int(depth * BANDS), BANDS - 1)


def needle_grid(study: Study, asked: Questions, whole: dict[str, Array]) -> None:
    """tables/ablation_grid, from the trials of `asked` with the values `whole`, and a few more.

    A cell holds the trials of one length and one third of the context, at least four: cells that have fewer get more
    trials. Its depth is the mean depth of all trials in that third.
    """
    plan = study.plan.ablations
    ranking = study.ranking
    heads = all_heads(study.model)
    best = list(ranking)
    k = min(GRID_HEADS, max(plan.ks), len(best) // 4)
    if k < 1:
        return
    exclude, note = spared(ranking, heads, min(max(plan.ks), len(heads) // 2), k)
    rng = np.random.default_rng(study.plan.seed)
    try:
        control = matched_random_heads(best[:k], heads, plan.random_sets, rng, exclude)
    except InputError as reason:
        study.tell([f"no grid of length and depth: {reason}"])
        return
    study.tell([f"grid of length and depth: {note}"] if note else [])
    grid = _Grid.of(study, asked)
    judge = grid.asked.judge()
    more = np.arange(len(asked.planned), judge.n)
    added = judge(study.model, more) if len(more) else {}
    plain = {
        name: np.concatenate([whole[name], added.get(name, np.zeros(0))]) for name in _MEASURES
    }
    study.progress(0, None, "length and depth")
    with ablate_heads(study.model, best[:k]):
        top = judge(study.model)
    set_of = grid.dealt(plan.random_sets, study.plan.seed)
    random = without_random(study.model, judge, control, study.plan.seed, set_of=set_of)
    own = judge.owners
    found = [
        (None, plain, [own]),
        (f"zero=top{k}", top, [own]),
        (f"zero=random{k}", random, [own, set_of]),
    ]
    rows = [row for each in found for row in grid.rows(*each)]
    study.write("ablation_grid", [{**row, "seed": study.plan.seed} for row in rows])


_MEASURES = ("needle_accuracy", "answer_logprob")


@dataclass(frozen=True)
class _Grid:
    """Trials, and which (tokens, band) each is in."""

    asked: Questions
    places: list[tuple[int, int]]

    @classmethod
    def of(cls, study: Study, asked: Questions) -> _Grid:
        planned = _filled(study, asked.planned)
        more = planned[len(asked.planned) :]
        built = [each.build(study.model, study.haystack, study.chat) for each in more]
        trials = [*asked.trials, *built]
        return cls(Questions(planned, trials, None), [_place(each) for each in planned])

    def dealt(self, draws: int, seed: int) -> IntArray:
        """(n,) number of the random set that each trial meets: those of one cell meet different ones."""
        shuffled = np.random.default_rng(seed).permutation(len(self.places))
        order = sorted(shuffled, key=lambda i: self.places[i])  # stable
        found = np.empty(len(order), np.int64)
        found[order] = np.arange(len(order)) % draws
        return found

    def rows(
        self, variant: str | None, values: dict[str, Array], owners: Sequence[IntArray]
    ) -> list[dict[str, Any]]:
        """A row for each cell and measure: mean, with the interval over needles, and over `owners` besides."""
        found: list[dict[str, Any]] = []
        depths = np.asarray([each.depth for each in self.asked.planned])
        bands = np.asarray([band for _, band in self.places])
        for tokens, which in sorted(set(self.places)):
            inside = np.asarray([place == (tokens, which) for place in self.places])
            own = [np.unique(owner[inside], return_inverse=True)[1] for owner in owners]
            depth = round(float(depths[bands == which].mean()), 3)
            about = {"variant": variant, "tokens": tokens, "depth": depth, "n": int(inside.sum())}
            for measure in _MEASURES:
                value, low, high = mean_bounds(values[measure][inside], own)
                found.append(
                    {**about, "measure": measure, "value": value, "low": low, "high": high}
                )
        return found


def _place(trial: PlannedTrial) -> tuple[int, int]:
    return trial.tokens, band(trial.depth)


def _filled(study: Study, planned: list[PlannedTrial]) -> list[PlannedTrial]:
    """`planned`, and of the trials that follow in the plan those whose cell has too few trials or needles."""
    plan = study.plan.trials
    several = plan.needles.several
    # So many rounds over all lengths and depths hold enough of each, needles being dealt in turn.
    more = len(planned) + CELL * len(plan.lengths) * len(plan.depths) * several
    found = list(planned)
    cells: dict[tuple[int, int], list[str]] = {}
    for each in planned:
        cells.setdefault(_place(each), []).append(each.needle.name)
    for each in study.judging(more)[len(planned) :]:
        names = cells.setdefault(_place(each), [])
        if len(names) < CELL or len(set(names)) < min(CELL_NEEDLES, len(study.divided[1])):
            names.append(each.needle.name)
            found.append(each)
    return found
