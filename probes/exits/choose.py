"""Order and test: the tune part fixes a chain of candidates per variant, the calibrate part tests them, the test
part is looked at once (METHODS §6; fixed-sequence testing as in Learn then Test, Angelopoulos et al. 2021, arXiv
2110.01052).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.decide import PARTS, Setting, costs_of, decide
from probes.exits.decision import Decision, Kept
from probes.exits.evidence import chains_of, with_numbers
from probes.exits.prune import chains_left_out, prune_chains
from probes.exits.several import Judged, Judges, check_weights, kept_on
from probes.exits.tasks import Task
from probes.exits.walk import Budget, walk_chains

__all__ = [
    "PARTS",
    "Choice",
    "Judged",
    "Judges",
    "Setting",
    "check_parts",
    "check_weights",
    "choose",
    "choose_jointly",
    "evaluate",
]

IntArray = NDArray[np.integer[Any]]

FEWEST = 5  # independent examples of a part below which nothing can be said


@dataclass(frozen=True)
class Choice:
    """The decision and the tables from which it can be made again for any budget (see `walk_chains`)."""

    decision: Decision
    chains: pd.DataFrame
    losses: pd.DataFrame
    share_draws: pd.DataFrame


def choose(
    scores: CandidateScores,
    parts: Mapping[str, IntArray],
    budget: Budget | None = None,
    setting: Setting | None = None,
) -> Choice:
    """The cheapest candidate that keeps `budget`, tested on parts that its place in the order did not see.

    `parts` maps fit, tune, calibrate and test to disjoint example indices. Raises `InputError` when a part is empty
    or overlaps another, and for a largest loss on similarity data (a rank correlation is no mean of losses in [0,
    1]).
    """
    return choose_jointly(Judges((Judged(scores, parts),)), budget, setting)


def choose_jointly(
    judges: Judges, budget: Budget | None = None, setting: Setting | None = None
) -> Choice:
    """The cheapest candidate that keeps `budget` on several datasets: on each of them, or in the weighted mean.

    On each: a candidate passes where it passes on every dataset at the whole of its chain's part of δ (its p-value is
    the largest), and chains are ordered by the smallest share of the tune parts. In the mean: shares are of the
    weighted mean quality, with every dataset resampled by itself; losses are bounded by `weighted_p`.
    """
    budget, setting = budget or Budget(), setting or Setting()
    for task in judges.tasks:
        check_parts(task.scores.task, task.parts, budget)
    costs = costs_of(judges, setting)
    measured = chains_of(judges.merit("tune"), judges.full, costs)
    chains = prune_chains(measured, setting.most_chains)
    names = {c.name: c for c in judges.candidates}
    wanted = [names[name] for name in dict.fromkeys(chains["name"])]
    losses = judges.losses(wanted, "calibrate")
    share_draws = judges.share_draws(wanted, setting.draws, setting.seed)
    chains = with_numbers(chains, wanted, *judges.quality(wanted, "calibrate"))
    walk = walk_chains(chains, share_draws, losses, budget)
    left_out = chains_left_out(measured, chains)
    if left_out:
        setting = replace(setting, about={**setting.about, "chains_left_out": left_out})
    decision = decide(judges, budget, setting, walk, costs, losses)
    return Choice(decision, walk.steps, losses, share_draws)


def check_parts(task: Task, parts: Mapping[str, IntArray], budget: Budget) -> None:
    """Refuse what no scores could make right: parts missing, too small or overlapping, a loss bound on similarity."""
    missing = [name for name in PARTS if name not in parts]
    if missing:
        raise InputError(f"the part {missing[0]!r} is missing: {', '.join(PARTS)} are needed")
    total = sum(len(rows) for rows in parts.values())
    for name in PARTS[1:]:
        n = len(np.unique(task.clusters[parts[name]]))
        if n < FEWEST:
            raise InputError(
                f"the {name} part has {n} independent examples, {FEWEST} are needed: give more than these {total} "
                "examples (a few hundred for a useful answer)"
            )
    joined = np.concatenate([parts[name] for name in PARTS])
    if len(np.unique(joined)) < len(joined):
        raise InputError("the parts share examples: fit, tune, calibrate and test must be disjoint")
    if budget.max_loss is not None and task.kind == "similarity":
        raise InputError(
            "max loss does not apply to similarity data: Spearman's ρ is no mean of losses in [0, 1], so no "
            "finite-sample bound holds. Use --min-quality, or labelled texts or retrieval data"
        )


def evaluate(
    scores: CandidateScores,
    wanted: list[Candidate],
    rows: IntArray,
    confidence: float,
    setting: Setting,
) -> list[Kept]:
    """Quality and share of the wanted candidates over the examples `rows`, resamples shared."""
    return kept_on(scores, wanted, rows, confidence, setting.draws, setting.seed)
