"""From the evidence on the calibrate part to a choice: the walk down every chain, for any budget, without re-running.

Light on purpose (numpy, pandas, scipy): the dashboard's budget slider and `choose` call this same function. A
*chain* is a fixed order of candidates, most conservative first. Fixed-sequence testing walks it, stops at the first
failure and returns the last candidate before; every chain gets an equal share of the error δ (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd

from probes.errors import InputError
from probes.exits.budget import Budget
from probes.exits.verdicts import (
    CLUSTER,
    FULL,
    MADE_UP,
    TASK,
    WEIGHT,
    Test,
    Verdict,
    above_chance,
    counts,
    make_test,
    mean_excess,
    told,
)

__all__ = [
    "CHAIN_COLUMNS",
    "CLUSTER",
    "FULL",
    "MADE_UP",
    "TASK",
    "WEIGHT",
    "Budget",
    "Walk",
    "cost_order",
    "mean_excess",
    "records",
    "walk_chains",
]

CHAIN_COLUMNS = (
    "chain",
    "order",
    "name",
    "variant",
    "layer",
    "dim",
    "tune_quality",
    "calibrate_quality",
    "calibrate_share",
)


@dataclass(frozen=True)
class Walk:
    """`steps`: the chains with `estimate`, `bound`, `p`, `tested`, `passed`; `chosen`: name, or None and `reason`.

    `needed`: independent calibrate examples that would do, per dataset ("" where there is one); empty where something
    was chosen or no number would do. `delta`: every chain's part of δ.
    """

    steps: pd.DataFrame
    chosen: str | None
    reason: str
    needed: Mapping[str, int] = field(default_factory=dict[str, int])
    delta: float = 0.05

    def row(self, name: str) -> dict[str, Any]:
        """The step of candidate `name`."""
        return next(step for step in reversed(records(self.steps)) if step["name"] == name)


def walk_chains(
    chains: pd.DataFrame, share_draws: pd.DataFrame, losses: pd.DataFrame, budget: Budget
) -> Walk:
    """The cheapest candidate that some chain reaches without a failure.

    Parameters: `chains` has the columns CHAIN_COLUMNS, one row per step; order 0 of every chain is the full model,
    which passes by definition. `share_draws` has one row per bootstrap draw: a column per candidate name with
    quality(c) / quality(full), and `full` with the full model's quality above chance. `losses` has one row per
    calibrate example: a column per candidate name, `full`, and `cluster`.

    With `budget.max_loss` ε the p-value is Hoeffding–Bentkus on the paired excess losses clipped to [0, 1],
    averaged within clusters first; `estimate` is the mean excess and `bound` is null. Otherwise p = (1 + #{draws
    below the share}) / (draws + 1), `estimate` is the share and `bound` its one-sided lower limit at the chain's
    part of δ. Both tables may hold several datasets (see `verdicts`): then the worst of them counts, or, for losses
    with the column `weight`, their weighted mean.

    Cost order: less time where the column `cost` says it, fewer layers, then fewer coordinates; equal costs go to the
    better tune quality.
    """
    missing = set(CHAIN_COLUMNS) - set(chains.columns)
    if missing:
        raise InputError(
            f"chains lack the column {sorted(missing)[0]!r}; needed: {', '.join(CHAIN_COLUMNS)}"
        )
    useful = len(np.unique(chains["chain"].to_numpy()[chains["order"].to_numpy() > 0]))
    delta = (1 - budget.confidence) / max(1, useful)
    test = make_test(share_draws, losses, budget, delta)
    steps = _tested(chains.sort_values(by=["chain", "order"], ignore_index=True), test, budget)
    if not above_chance(share_draws, budget):
        reason = (
            f"the full model's own quality is not above chance at confidence {budget.confidence:g}"
        )
        advice = "a share of it means nothing; more or other labelled data is needed"
        return Walk(steps.assign(passed=False), None, f"{reason}: {advice}")
    passed = [step for step in records(steps) if step["passed"] and step["order"] > 0]
    if not passed:
        return _nothing(steps, test, budget, counts(losses))
    best = min(passed, key=cost_order)
    return Walk(steps, str(best["name"]), "", delta=delta)


def cost_order(step: dict[str, Any]) -> tuple[float, ...]:
    """Cheaper steps first; runs of older versions know no time in their chains."""
    return float(step.get("cost", 0)), step["layer"], step["dim"], -step["tune_quality"]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of `frame` as dictionaries."""
    return cast("list[dict[str, Any]]", cast("Any", frame).to_dict("records"))


def _tested(steps: pd.DataFrame, test: Test, budget: Budget) -> pd.DataFrame:
    """`steps` (sorted) with estimate, bound, p; `tested`: all before in its chain passed; `passed`: so did this one."""
    found: list[tuple[Any, ...]] = []
    alive: dict[str, bool] = {}
    columns = [steps[key].tolist() for key in ("chain", "order", "name", "calibrate_share")]
    for chain, order, name, share in zip(*columns, strict=True):
        result = _by_definition(budget) if order == 0 else test.verdict(name, share)
        tested = alive.get(chain, True)
        alive[chain] = tested and result.fits
        found.append((result.estimate, result.bound, result.p, tested, alive[chain]))
    names = ("estimate", "bound", "p", "tested", "passed")
    table = steps.assign(**dict(zip(names, map(list, zip(*found, strict=True)), strict=True)))
    return table.astype({"bound": "Float64"})


def _by_definition(budget: Budget) -> Verdict:
    share = budget.max_loss is None
    return Verdict(1.0 if share else 0.0, 1.0 if share else None, 0.0, True)


def _nothing(steps: pd.DataFrame, test: Test, budget: Budget, came: Mapping[str, int]) -> Walk:
    """Why nothing cheaper than the full model passed, and how many examples would do."""
    first = [step for step in records(steps) if step["tested"] and not step["passed"]]
    if not first:
        return Walk(steps, None, "no candidate is cheaper than the full model")
    if not test.enough:
        reason = (
            f"too few bootstrap draws to show confidence {budget.confidence:g} in each of the "
            f"{len(set(steps['chain']))} chains: draw more, or ask for less"
        )
        return Walk(steps, None, reason)
    sizes = [test.sizes(str(step["name"]), float(step["calibrate_share"])) for step in first]
    possible = [needed for needed in sizes if needed is not None]
    opening = f"nothing cheaper than the full model keeps {budget.target} with confidence {budget.confidence:g}"
    if not possible:
        advice = "the first candidates in line miss it already in their estimates: more data will not help"
        return Walk(steps, None, f"{opening}; {advice}")
    least = min(possible, key=lambda needed: max(needed[name] / came[name] for name in needed))
    return Walk(steps, None, f"{opening}; {told(came, least)}", least)
