"""The decision and what is printed beside it: baselines and the one look at the test part, alternatives, caveats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from probes.errors import InputError
from probes.exits.budget import Budget
from probes.exits.candidates import Candidate
from probes.exits.decision import Comparisons, Costs, Decision, Kept
from probes.exits.prune import MOST_CHAINS
from probes.exits.several import Judges
from probes.exits.verdicts import LossTest
from probes.exits.walk import Walk, cost_order, records
from probes.registry import MEASURES

PARTS = ("fit", "tune", "calibrate", "test")
DEPTHS = {"depth 1/2": 1 / 2, "depth 2/3": 2 / 3, "depth 3/4": 3 / 4}
SMALL = 30  # independent examples below which a bootstrap is not to be trusted
CROWD = 0.2  # share of a part in one cluster above which a bootstrap over clusters is coarse


@dataclass(frozen=True)
class Setting:
    """How the choice is made and what is known beside the scores: time per layer, caveats so far.

    `own_cost` is that of variants, by variant and layer, whose time is not that of the layer alone. At most
    `most_chains` chains are tested (`prune_chains`).
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
    most_chains: int = MOST_CHAINS


def decide(
    judges: Judges, budget: Budget, setting: Setting, walk: Walk, costs: Costs, losses: pd.DataFrame
) -> Decision:
    """The decision that `walk` came to; the test part is looked at here and nowhere else.

    `losses` is the calibrate part's table, for the upper limit of the loss that is certified.
    """
    names = {c.name: c for c in judges.candidates}
    chosen = None if walk.chosen is None else names[walk.chosen]
    named = _baseline_candidates(judges)
    looked = [c for _, c in named] + ([] if chosen is None else [chosen])
    drawn = budget.confidence, setting.draws, setting.seed
    kept = judges.kept(looked, "test", *drawn)
    baselines = tuple(
        {"name": name, **_place(c, costs), **k.as_dict()}
        for (name, c), k in zip(named, kept, strict=False)
    )
    measures = {task.scores.task.primary for task in judges.tasks}
    about: dict[str, Any] = {
        "pooling": setting.pooling,
        "measure": measures.pop() if len(measures) == 1 else None,
        "dataset": ", ".join(task.name for task in judges.tasks),
        "parts": {name: sum(len(task.parts[name]) for task in judges.tasks) for name in PARTS},
        "reason": walk.reason,
        "full": {"layer": judges.full.layer, "dim": judges.full.dim},
        "calibrate": None if chosen is None else _certificate(walk, chosen, budget, losses),
        "draws": setting.draws,
        "seed": setting.seed,
        **setting.about,
    }
    if walk.needed:
        about["needed"] = _needed(judges, walk)
    if judges.are_several:
        about["task_rule"] = judges.rule
        about["tasks"] = [] if chosen is None else list(judges.by_task(chosen, *drawn))
    if chosen is not None and budget.max_loss is not None:
        about["test_excess_loss"] = _test_excess(judges, chosen)
    final = None if chosen is None else kept[-1]
    excess = about.get("test_excess_loss")
    return Decision(
        chosen,
        final,
        (kept[0] if final is None else final).quality_full,
        budget,
        costs,
        Comparisons(baselines, _alternatives(walk, chosen, costs)),
        (*setting.caveats, *_caveats(judges, budget, costs), *_broken(budget, final, excess)),
        about,
    )


def with_label_free(decision: Decision, judges: Judges, metrics: pd.DataFrame) -> Decision:
    """`decision` with the raw layers that label-free metrics would pick among its baselines, on the test part.

    `metrics` are rows of `measure_layers`. A metric picks the layer where it is best, if the registry says which way
    is; the last layer counts as any other. Picks are shown and choose nothing.
    """
    picks: dict[int, list[str]] = {}
    for name in dict.fromkeys(metrics["measure"]):
        better = MEASURES[name].better if name in MEASURES else "none"
        rows = metrics.loc[(metrics["measure"] == name) & metrics["variant"].isna()]
        values, layers = rows["value"].to_numpy(dtype=float), rows["layer"].to_numpy(dtype=int)
        if better == "none" or not np.isfinite(values).any():
            continue
        best = np.nanargmax(values) if better == "up" else np.nanargmin(values)
        picks.setdefault(int(layers[best]), []).append(str(name))
    full = judges.full
    raw = {c.layer: c for c in judges.candidates if c.variant is None and c.dim == full.dim}
    found = [(raw[layer], names) for layer, names in sorted(picks.items()) if layer in raw]
    about = decision.about
    drawn = decision.budget.confidence, int(about["draws"]), int(about["seed"])
    kept = judges.kept([c for c, _ in found], "test", *drawn)
    rows = tuple(
        {"name": _picked(names), **_place(c, decision.costs), **k.as_dict(), "metrics": names}
        for (c, names), k in zip(found, kept, strict=True)
    )
    compared = decision.comparisons
    return replace(decision, comparisons=replace(compared, baselines=(*compared.baselines, *rows)))


def _picked(metrics: list[str]) -> str:
    others = f" +{len(metrics) - 1}" if len(metrics) > 1 else ""
    return f"best {metrics[0]}{others}"


def costs_of(judges: Judges, setting: Setting) -> Costs:
    """Measured time where `setting` holds it for every layer, else blocks."""
    if setting.relative_cost is None:
        return Costs.counted(judges.tasks[0].scores)
    missing = {c.layer for c in judges.candidates} - set(setting.relative_cost)
    if missing:
        raise InputError(
            f"no time is given for layer {min(missing)}: relative_cost needs every layer of the candidates"
        )
    return Costs(setting.relative_cost, True, setting.own_cost)


def _place(candidate: Candidate, costs: Costs) -> dict[str, Any]:
    where = {"variant": candidate.variant, "layer": candidate.layer, "dim": candidate.dim}
    return {**where, "relative_cost": costs.of(candidate)}


def _baseline_candidates(judges: Judges) -> list[tuple[str, Candidate]]:
    """Last layer, and fixed depths (half a layer is rounded up) at full width, raw and every other variant."""
    widest: dict[tuple[str | None, int], Candidate] = {}
    for c in sorted(judges.candidates, key=lambda c: c.dim):
        widest[c.variant, c.layer] = c
    named = [("last layer", judges.full)]
    for variant in dict.fromkeys(c.variant for c in judges.candidates):
        for name, depth in DEPTHS.items():
            candidate = widest.get((variant, int(np.floor(depth * judges.full.layer + 0.5))))
            if candidate is not None:
                named.append((name if variant is None else f"{name}, {variant}", candidate))
    return named


def _certificate(
    walk: Walk, chosen: Candidate, budget: Budget, losses: pd.DataFrame
) -> dict[str, Any]:
    """What the calibrate part says of the chosen candidate; limits are one-sided, at its chain's part of δ."""
    step = walk.row(chosen.name)
    certified = {
        "quality": float(step["calibrate_quality"]),
        "share": float(step["calibrate_share"]),
        "p": float(step["p"]),
    }
    if budget.max_loss is None:
        return {**certified, "share_low": float(step["bound"])}
    limit = LossTest(losses, budget.max_loss, walk.delta).limit(chosen.name)
    return {**certified, "excess_loss": float(step["estimate"]), "excess_loss_high": limit}


def _needed(judges: Judges, walk: Walk) -> list[dict[str, Any]]:
    """Per dataset: independent calibrate examples that came and would do, and about how many labelled ones in all."""
    rows: list[dict[str, Any]] = []
    for task in judges.tasks:
        came = len(np.unique(task.clusters("calibrate")))
        enough = walk.needed.get(task.name if judges.are_several else "", came)
        labelled = sum(len(rows) for rows in task.parts.values())
        total = int(np.ceil(labelled * enough / came))
        rows.append({"name": task.name, "came": came, "calibrate": enough, "labelled": total})
    return rows


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


def _test_excess(judges: Judges, chosen: Candidate) -> float:
    """Mean clipped excess loss on the test part: of the one dataset, the worst, or the weighted mean."""
    table = judges.losses([chosen], "test")
    return LossTest(table, 0.5, 0.5).verdict(chosen.name, 1.0).estimate


def _caveats(judges: Judges, budget: Budget, costs: Costs) -> list[str]:
    found: list[str] = []
    for task in judges.tasks:
        of = f" of {task.name}" if judges.are_several else ""
        for name in PARTS[1:]:
            sizes = np.unique(task.clusters(name), return_counts=True)[1]
            if len(sizes) < SMALL:
                found.append(
                    f"the {name} part{of} holds only {len(sizes)} independent examples: its intervals are rough"
                )
            elif sizes.max() > CROWD * sizes.sum():
                found.append(
                    f"{int(sizes.max())} of the {int(sizes.sum())} {name} examples{of} hang together: intervals are "
                    "rough"
                )
    calibrate = [task.clusters("calibrate") for task in judges.tasks]
    if budget.max_loss is not None and any(len(np.unique(c)) < len(c) for c in calibrate):
        found.append(
            "examples that hang together count once: the bounded loss is the mean over such clusters"
        )
    if not costs.measured:
        found.append("time was not measured: relative cost counts blocks")
    return found


def _broken(budget: Budget, kept: Kept | None, excess: float | None) -> list[str]:
    """Said where the test part shows less than was asked: one time in 1/δ that may be no more than chance."""
    if kept is None:
        return []
    if budget.max_loss is not None and excess is not None and excess > budget.max_loss:
        return [
            f"on the test part the choice loses {excess:.3f}, more than the asked {budget.max_loss:g}"
        ]
    if budget.max_loss is None and kept.share is not None and kept.share < budget.min_quality:
        return [
            f"on the test part the choice keeps {kept.share:.1%}, less than the asked {budget.min_quality:.1%}"
        ]
    return []
