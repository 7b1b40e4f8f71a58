"""Order and test: the tune part fixes a chain of candidates per variant, the calibrate part tests them, the test
part is looked at once (METHODS §6; fixed-sequence testing as in Learn then Test, Angelopoulos et al. 2021, arXiv
2110.01052).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.decision import Comparisons, Costs, Decision, Kept
from probes.exits.evidence import build_chains, loss_table, ratio, share_table, with_calibrate
from probes.exits.resample import Resamples
from probes.exits.tasks import Task
from probes.exits.walk import (
    Budget,
    Walk,
    cost_order,
    mean_excess,
    records,
    walk_chains,
)
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

PARTS = ("fit", "tune", "calibrate", "test")
DEPTHS = {"depth 1/2": 1 / 2, "depth 2/3": 2 / 3, "depth 3/4": 3 / 4}
FEWEST = 5  # independent examples of a part below which nothing can be said
SMALL = 30  # independent examples below which a bootstrap is not to be trusted
CROWD = 0.2  # share of a part in one cluster above which a bootstrap over clusters is coarse


@dataclass(frozen=True)
class Setting:
    """How the choice is made and what is known beside the scores: time per layer, caveats so far.

    `own_cost` is that of variants, by variant and layer, whose time is not that of the layer alone.
    """

    draws: int = 2000
    seed: int = 0
    pooling: str | None = None
    relative_cost: Mapping[int, float] | None = None
    caveats: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict[str, Any])
    own_cost: Mapping[tuple[str | None, int], float] = field(
        default_factory=dict[tuple[str | None, int], float]
    )


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
    budget, setting = budget or Budget(), setting or Setting()
    check_parts(scores.task, parts, budget)
    costs = _costs(scores, setting)
    chains = build_chains(scores, parts["tune"], costs)
    names = {c.name: c for c in scores.candidates}
    wanted = [names[name] for name in dict.fromkeys(chains["name"])]
    losses = loss_table(scores, wanted, parts["calibrate"])
    share_draws = share_table(
        scores, wanted, parts["fit"], parts["calibrate"], setting.draws, setting.seed
    )
    chains = with_calibrate(chains, scores, wanted, parts["calibrate"])
    walk = walk_chains(chains, share_draws, losses, budget)
    chosen = None if walk.chosen is None else names[walk.chosen]
    decision = _decide(scores, parts, budget, setting, walk, chosen, costs)
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
    resamples = Resamples.make(len(rows), setting.draws, setting.seed, scores.task.clusters[rows])
    both = [scores.full, *wanted]
    quality, draws = scores.quality(both, rows), scores.draws(both, rows, resamples)
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
            n=len(rows),
        )
        for i in range(1, len(both))
    ]


def _decide(
    scores: CandidateScores,
    parts: Mapping[str, IntArray],
    budget: Budget,
    setting: Setting,
    walk: Walk,
    chosen: Candidate | None,
    costs: Costs,
) -> Decision:
    named = _baseline_candidates(scores)
    looked = [c for _, c in named] + ([] if chosen is None else [chosen])
    kept = evaluate(scores, looked, parts["test"], budget.confidence, setting)
    baselines = tuple(
        {"name": name, **_place(c, costs), **k.as_dict()}
        for (name, c), k in zip(named, kept, strict=False)
    )
    about: dict[str, Any] = {
        "pooling": setting.pooling,
        "measure": scores.task.primary,
        "dataset": scores.task.name,
        "parts": {name: len(parts[name]) for name in PARTS},
        "reason": walk.reason,
        "full": {"layer": scores.full.layer, "dim": scores.full.dim},
        "calibrate": None if chosen is None else _certificate(walk, chosen, budget),
        "draws": setting.draws,
        "seed": setting.seed,
        **setting.about,
    }
    if chosen is not None and budget.max_loss is not None:
        about["test_excess_loss"] = _test_excess(scores, chosen, parts["test"])
    final = None if chosen is None else kept[-1]
    return Decision(
        chosen,
        final,
        kept[0].quality_full,
        budget,
        costs,
        Comparisons(baselines, _alternatives(walk, chosen, costs)),
        (*setting.caveats, *_caveats(scores, parts, budget, costs, final)),
        about,
    )


def _costs(scores: CandidateScores, setting: Setting) -> Costs:
    if setting.relative_cost is None:
        return Costs.counted(scores)
    missing = {c.layer for c in scores.candidates} - set(setting.relative_cost)
    if missing:
        raise InputError(
            f"no time is given for layer {min(missing)}: relative_cost needs every layer of the candidates"
        )
    return Costs(setting.relative_cost, True, setting.own_cost)


def _place(candidate: Candidate, costs: Costs) -> dict[str, Any]:
    where = {"variant": candidate.variant, "layer": candidate.layer, "dim": candidate.dim}
    return {**where, "relative_cost": costs.of(candidate)}


def _baseline_candidates(scores: CandidateScores) -> list[tuple[str, Candidate]]:
    """Last layer, and fixed depths (half a layer is rounded up) at full width, raw and every other variant."""
    widest: dict[tuple[str | None, int], Candidate] = {}
    for c in sorted(scores.candidates, key=lambda c: c.dim):
        widest[c.variant, c.layer] = c
    named = [("last layer", scores.full)]
    for variant in dict.fromkeys(c.variant for c in scores.candidates):
        for name, depth in DEPTHS.items():
            candidate = widest.get((variant, int(np.floor(depth * scores.full.layer + 0.5))))
            if candidate is not None:
                named.append((name if variant is None else f"{name}, {variant}", candidate))
    return named


def _certificate(walk: Walk, chosen: Candidate, budget: Budget) -> dict[str, Any]:
    """What the calibrate part says of the chosen candidate."""
    step = walk.row(chosen.name)
    certified = {
        "quality": float(step["calibrate_quality"]),
        "share": float(step["calibrate_share"]),
    }
    certified["p"] = float(step["p"])
    if budget.max_loss is None:
        return {**certified, "share_low": float(step["bound"])}
    return {**certified, "excess_loss": float(step["estimate"])}


def _alternatives(walk: Walk, chosen: Candidate | None, costs: Costs) -> tuple[dict[str, Any], ...]:
    """All other candidates that passed, cheapest first."""
    passed = [step for step in records(walk.steps) if step["passed"] and step["order"] > 0]
    rows: list[dict[str, Any]] = []
    for step in sorted(passed, key=cost_order):
        variant = None if pd.isna(step["variant"]) else str(step["variant"])
        candidate = Candidate(variant, int(step["layer"]), int(step["dim"]))
        if candidate != chosen:
            numbers = {
                key: float(step[key]) for key in ("calibrate_quality", "calibrate_share", "p")
            }
            bound = None if pd.isna(step["bound"]) else float(step["bound"])
            rows.append({**_place(candidate, costs), **numbers, "calibrate_share_low": bound})
    return tuple(rows)


def _test_excess(scores: CandidateScores, chosen: Candidate, rows: IntArray) -> float:
    return mean_excess(loss_table(scores, [chosen], rows), chosen.name)[0]


def _caveats(
    scores: CandidateScores,
    parts: Mapping[str, IntArray],
    budget: Budget,
    costs: Costs,
    kept: Kept | None,
) -> list[str]:
    found: list[str] = []
    for name in ("tune", "calibrate", "test"):
        sizes = np.unique(scores.task.clusters[parts[name]], return_counts=True)[1]
        if len(sizes) < SMALL:
            found.append(
                f"the {name} part holds only {len(sizes)} independent examples: its intervals are rough"
            )
        elif sizes.max() > CROWD * sizes.sum():
            found.append(
                f"{int(sizes.max())} of the {int(sizes.sum())} {name} examples hang together: intervals are rough"
            )
    rows = parts["calibrate"]
    if budget.max_loss is not None and len(np.unique(scores.task.clusters[rows])) < len(rows):
        found.append(
            "examples that hang together count once: the bounded loss is the mean over such clusters"
        )
    if not costs.measured:
        found.append("time was not measured: relative cost counts blocks")
    promised = budget.max_loss is None and kept is not None and kept.share is not None
    if promised and kept is not None and kept.share is not None and kept.share < budget.min_quality:
        found.append(
            f"on the test part the choice keeps {kept.share:.1%}, less than the asked {budget.min_quality:.1%}"
        )
    return found
