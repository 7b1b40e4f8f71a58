"""From the evidence on the calibrate part to a choice: the walk down every chain, for any budget, without re-running.

Light on purpose (numpy, pandas, scipy): the dashboard's budget slider and `choose` call this same function. A
*chain* is a fixed order of candidates, most conservative first. Fixed-sequence testing walks it, stops at the first
failure and returns the last candidate before; every chain gets an equal share of the error δ (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError
from probes.stats import check_confidence, hoeffding_bentkus

Array = NDArray[np.floating[Any]]
Test = Callable[[str, float], dict[str, Any]]  # candidate and share -> estimate, bound, p, fits

FULL = "full"  # column of the full model, in both tables of evidence
MADE_UP = "made_up"  # column of `share_draws`: what the made-up example adds, as a share of the full quality
CLUSTER = "cluster"  # column of `losses`: the unit that was drawn
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
_LARGEST_SAMPLE = 10**7
ROUNDING = 1e-12  # a share this little below the asked one is equal to it


@dataclass(frozen=True)
class Budget:
    """What must be kept, and how sure: a share of the full model's quality, or (if given) a largest excess loss.

    >>> Budget(0.95).guarantee, Budget(max_loss=0.05).guarantee
    ('asymptotic', 'finite-sample')
    """

    min_quality: float = 0.95
    max_loss: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if not 0 < self.min_quality <= 1:
            raise InputError(
                f"min quality {self.min_quality}: a share above 0 and up to 1 is needed, such as 0.95"
            )
        if self.max_loss is not None and not 0 < self.max_loss < 1:
            raise InputError(
                f"max loss {self.max_loss}: a number strictly between 0 and 1 is needed, such as 0.05"
            )

    @property
    def guarantee(self) -> str:
        """`finite-sample` for a largest loss (Hoeffding–Bentkus), `asymptotic` for a share (bootstrap)."""
        return "asymptotic" if self.max_loss is None else "finite-sample"

    @property
    def target(self) -> str:
        """The promise in words."""
        if self.max_loss is None:
            return f"at least {self.min_quality:.1%} of the full model's quality"
        return (
            f"its losses within {self.max_loss:g} of the full model's on average (an example that gets worse counts, "
            "one that gets better does not make up for it)"
        )


@dataclass(frozen=True)
class Walk:
    """`steps`: the chains with `estimate`, `bound`, `p`, `tested`, `passed`; `chosen`: name, or None and `reason`."""

    steps: pd.DataFrame
    chosen: str | None
    reason: str

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
    part of δ.

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
    test = (
        _share_test(share_draws, budget, delta)
        if budget.max_loss is None
        else _loss_test(losses, budget, delta)
    )
    steps = _tested(chains.sort_values(by=["chain", "order"], ignore_index=True), test, budget)
    if not _positive(share_draws, budget):
        reason = (
            f"the full model's own quality is not above chance at confidence {budget.confidence:g}"
        )
        advice = "a share of it means nothing; more or other labelled data is needed"
        return Walk(steps.assign(passed=False), None, f"{reason}: {advice}")
    passed = [step for step in records(steps) if step["passed"] and step["order"] > 0]
    if not passed:
        return Walk(steps, None, _why_not(records(steps), losses, budget, delta, share_draws))
    best = min(passed, key=cost_order)
    return Walk(steps, str(best["name"]), "")


def cost_order(step: dict[str, Any]) -> tuple[float, ...]:
    """Cheaper steps first; runs of older versions know no time in their chains."""
    return float(step.get("cost", 0)), step["layer"], step["dim"], -step["tune_quality"]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of `frame` as dictionaries."""
    return cast("list[dict[str, Any]]", cast("Any", frame).to_dict("records"))


def _tested(steps: pd.DataFrame, test: Test, budget: Budget) -> pd.DataFrame:
    """`steps` (sorted) with estimate, bound, p; `tested`: all before in its chain passed; `passed`: so did this one."""
    found: list[dict[str, Any]] = []
    alive: dict[str, bool] = {}
    for step in records(steps):
        chain = str(step["chain"])
        full = step["order"] == 0
        result = (
            _by_definition(budget)
            if full
            else test(str(step["name"]), float(step["calibrate_share"]))
        )
        tested = alive.get(chain, True)
        alive[chain] = tested and result.pop("fits")
        found.append({**result, "tested": tested, "passed": alive[chain]})
    columns = ("estimate", "bound", "p", "tested", "passed")
    table = steps.assign(**{key: [row[key] for row in found] for key in columns})
    return table.astype({"bound": "Float64"})


def _by_definition(budget: Budget) -> dict[str, Any]:
    share = budget.max_loss is None
    return {
        "estimate": 1.0 if share else 0.0,
        "bound": 1.0 if share else None,
        "p": 0.0,
        "fits": True,
    }


def _rank_of_bound(delta: float, draws: int) -> int:
    """The k-th smallest draw is the lower bound at δ: the largest k with k/(draws + 1) ≤ δ."""
    return math.floor(delta * (draws + 1) + 1e-9)


def _share_test(draws: pd.DataFrame, budget: Budget, delta: float) -> Test:
    rank = _rank_of_bound(delta, len(draws))

    def test(name: str, share: float) -> dict[str, Any]:
        shares = np.sort(draws[name].to_numpy(dtype=float))
        below = int(np.searchsorted(shares, budget.min_quality - ROUNDING, side="left"))
        bound = float(shares[rank - 1]) if rank >= 1 else None
        return {
            "estimate": share,
            "bound": bound,
            "p": (below + 1) / (len(shares) + 1),
            "fits": below + 1 <= rank,
        }

    return test


def mean_excess(losses: pd.DataFrame, name: str) -> tuple[float, int]:
    """Mean over clusters of the clipped excess loss of candidate `name`, and the number of clusters."""
    excess = np.clip(losses[name].to_numpy(dtype=float) - losses[FULL].to_numpy(dtype=float), 0, 1)
    code = np.unique(losses[CLUSTER].to_numpy(), return_inverse=True)[1]
    return _cluster_mean(excess, code)


def _cluster_mean(values: Array, code: NDArray[np.integer[Any]]) -> tuple[float, int]:
    units = np.bincount(code, weights=values) / np.bincount(code)
    return float(units.mean()), len(units)


def _loss_test(losses: pd.DataFrame, budget: Budget, delta: float) -> Test:
    assert budget.max_loss is not None
    epsilon = budget.max_loss
    code = np.unique(losses[CLUSTER].to_numpy(), return_inverse=True)[1]
    full = losses[FULL].to_numpy(dtype=float)

    def test(name: str, share: float) -> dict[str, Any]:
        risk, n = _cluster_mean(np.clip(losses[name].to_numpy(dtype=float) - full, 0, 1), code)
        p = hoeffding_bentkus(risk, n, epsilon)
        return {"estimate": risk, "bound": None, "p": p, "fits": p <= delta}

    return test


def _positive(share_draws: pd.DataFrame, budget: Budget) -> bool:
    """Is the full model's quality above chance, one-sided at the budget's confidence?"""
    above = share_draws[FULL].to_numpy(dtype=float)
    return (1 + int((above <= 0).sum())) / (len(above) + 1) <= 1 - budget.confidence + 1e-12


def _why_not(
    steps: list[dict[str, Any]],
    losses: pd.DataFrame,
    budget: Budget,
    delta: float,
    share_draws: pd.DataFrame,
) -> str:
    """Why nothing cheaper than the full model passed, and how many examples would do."""
    first = [step for step in steps if step["tested"] and not step["passed"]]
    if not first:
        return "no candidate is cheaper than the full model"
    n = len(np.unique(losses[CLUSTER].to_numpy()))
    draws = len(share_draws)
    if budget.max_loss is None and _rank_of_bound(delta, draws) < 1:
        return f"{draws} bootstrap draws cannot show confidence {budget.confidence:g}: draw more, or ask for less"
    needed = [_needed(row, n, budget, delta, share_draws) for row in first]
    possible = [k for k in needed if k is not None]
    opening = f"nothing cheaper than the full model keeps {budget.target} with confidence {budget.confidence:g}"
    if not possible:
        return f"{opening}; the first candidates in line miss it already in their estimates: more data will not help"
    return (
        f"{opening}; {n} independent calibrate examples came, about {min(possible):,} would do if the estimates hold "
        "(the interval narrows with the root of their number)"
    )


def _needed(
    step: Any, n: int, budget: Budget, delta: float, share_draws: pd.DataFrame
) -> int | None:
    """Calibrate examples at which `step` would pass with today's estimate; None when none would do.

    Of a share's distance to its bound, the part that resampling makes shrinks with 1/√n and the part that the made-up
    example makes with 1/n: a/√N + b/N = room is solved for N.
    """
    estimate = float(step["estimate"])
    if budget.max_loss is None:
        room = estimate - budget.min_quality
        if room <= 0:
            return None
        bound = float(step["bound"])
        made_up = share_draws[MADE_UP].to_numpy(dtype=float) if MADE_UP in share_draws else 0.0
        plain = np.sort(share_draws[step["name"]].to_numpy(dtype=float) * (1 + made_up))
        alone = min(estimate, max(bound, float(plain[_rank_of_bound(delta, len(plain)) - 1])))
        a, b = (estimate - alone) * math.sqrt(n), (alone - bound) * n
        root = room / a if b == 0 else (math.sqrt(a * a + 4 * b * room) - a) / (2 * b)
        return max(n + 1, math.ceil(1 / root**2))
    if estimate >= budget.max_loss:
        return None
    size = n + 1
    while hoeffding_bentkus(estimate, size, budget.max_loss) > delta and size < _LARGEST_SAMPLE:
        size = math.ceil(size * 1.02)
    return size if size < _LARGEST_SAMPLE else None
