"""Thresholds under the same guarantee as static exits: chains fixed on the tune part, tested on the calibrate part.

A configuration is a rule with a threshold. Those on a rule's front of cost against quality on the tune part are its
chain, most costly first; `walk_chains` tests it beside the chain of the static exits (Learn then Test, Angelopoulos et
al. 2021, arXiv 2110.01052). Only the rules that look best on the tune part get a chain, since all chains share δ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.dynamic.gates import LayerGate
from probes.exits.dynamic.rules import exit_places
from probes.exits.dynamic.units import Units
from probes.exits.evidence import loss_table, ratio, share_table, with_calibrate
from probes.exits.resample import Resamples
from probes.exits.walk import Budget, Walk, walk_chains
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

STATIC = "static"
THRESHOLDS = 40  # per rule, at most
LOOK_COST = 0.15  # blocks: what pooling, head and rule cost at an exit on the way (measured: minilm on a CPU, batches)


@dataclass(frozen=True)
class DynamicCandidate(Candidate):
    """A rule (`variant`) with a threshold; `layer` is the last exit. Static exits have rule `static` and stop there."""

    threshold: float | None = None

    @property
    def name(self) -> str:
        """Its column in tables.

        >>> DynamicCandidate("margin", 6, 384, 0.5).name, DynamicCandidate("static", 3, 384).name
        ('margin>=0.5', 'static:3')
        """
        if self.threshold is None:
            return f"{self.variant}:{self.layer}"
        return f"{self.variant}>={self.threshold!r}"


@dataclass(frozen=True, eq=False)
class Configurations:
    """All configurations of one study: their scores per example, how many blocks each example runs, and what that
    costs: the blocks and the looks at the exits on the way, in blocks."""

    scores: CandidateScores
    depths: Array  # (candidates, examples)
    costs: Array  # (candidates, examples)

    @property
    def candidates(self) -> list[DynamicCandidate]:
        return [c for c in self.scores.candidates if isinstance(c, DynamicCandidate)]

    def depth(self, rows: IntArray) -> dict[Candidate, float]:
        """Mean blocks run per example over `rows`, of every configuration."""
        means = self.depths[:, rows].mean(axis=1)
        return dict(zip(self.scores.candidates, means.tolist(), strict=True))

    def cost(self, rows: IntArray) -> dict[Candidate, float]:
        """Mean cost per example over `rows`, in blocks, of every configuration."""
        means = self.costs[:, rows].mean(axis=1)
        return dict(zip(self.scores.candidates, means.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class DynamicChoice:
    """What was chosen and the evidence.

    Attributes:
        chosen: the cheapest configuration, static or dynamic, that passed; None where none did (`walk.reason`).
        static: the shallowest static exit that passes when static exits alone are tested, at the whole δ.
        walk: the steps of all chains.
        rules: the rules that got a chain, best on the tune part first.
        rehearsal: what each rule alone would come to on the tune part (see `rehearse`); promises nothing.
        chains, losses, share_draws: as `walk_chains` takes them, to choose anew for any budget.
    """

    chosen: DynamicCandidate | None
    static: DynamicCandidate | None
    walk: Walk
    rules: tuple[str, ...]
    rehearsal: Mapping[str, DynamicCandidate | None]
    chains: pd.DataFrame
    losses: pd.DataFrame
    share_draws: pd.DataFrame


def spread_thresholds(confidence: Array, most: int = THRESHOLDS) -> list[float]:
    """At most `most` thresholds among the values of `confidence` (exits, n), at even quantiles, from low to high."""
    finite = confidence[np.isfinite(confidence)]
    if not len(finite):
        return []
    levels = np.linspace(0, 1, most)
    return np.unique(np.quantile(finite, levels, method="inverted_cdf")).tolist()


def configurations(
    units: Units,
    confidences: Mapping[str, Array],
    tune: IntArray,
    most: int = THRESHOLDS,
    look_cost: float = LOOK_COST,
) -> Configurations:
    """Every static exit, and every rule at thresholds spread over its values on the units of the tune examples.

    A look at an exit that is not taken costs `look_cost` blocks.
    """
    last, width = units.layers[-1], units.answers(len(units.layers) - 1).shape[1]
    n_units, every = len(units.rows), np.arange(len(units.task))
    seen = np.unique(units.of_example[tune])
    planned: list[tuple[DynamicCandidate, IntArray]] = []
    for place, layer in enumerate(units.layers):
        planned.append((DynamicCandidate(STATIC, layer, width), np.full(n_units, place)))
    for rule, confidence in confidences.items():
        for threshold in spread_thresholds(confidence[:, seen], most):
            places = exit_places(confidence, threshold)
            planned.append((DynamicCandidate(rule, last, width, threshold), places))
    scores = np.stack([units.scores(places) for _, places in planned])
    depths = np.stack([units.depth(places, every) for _, places in planned])
    most_looks = {
        STATIC: 0,
        LayerGate.name: 1,
    }  # which know where to stop beforehand, or after the first
    looks = [
        units.looks_on_the_way(places, most_looks.get(str(c.variant), last))
        for c, places in planned
    ]
    costs = depths + look_cost * np.stack(looks)
    full = next(c for c, _ in planned if c.variant == STATIC and c.layer == last)
    return Configurations(
        CandidateScores(units.task, tuple(c for c, _ in planned), scores, full), depths, costs
    )


def fronts(found: Configurations, tune: IntArray) -> dict[str, list[DynamicCandidate]]:
    """Per rule its front of cost against quality on the tune part, most costly first; nothing as costly as the full
    model.

    Going down the front both fall: no configuration on it has a cheaper or equally cheap one of at least its quality.
    """
    scores = found.scores
    values = scores.quality(list(scores.candidates), tune)
    quality = dict(zip(scores.candidates, values.tolist(), strict=True))
    cost = found.cost(tune)
    result: dict[str, list[DynamicCandidate]] = {}
    for candidate in sorted(found.candidates, key=lambda c: (cost[c], -quality[c])):
        front = result.setdefault(str(candidate.variant), [])
        cheaper = cost[candidate] < scores.full.layer
        if cheaper and (not front or quality[candidate] > quality[front[-1]]):
            front.append(candidate)
    return {rule: front[::-1] for rule, front in result.items()}


def rehearse(
    found: Configurations,
    front: Mapping[str, Sequence[DynamicCandidate]],
    parts: Mapping[str, IntArray],
    budget: Budget,
    draws: int = 500,
    seed: int = 0,
) -> dict[str, DynamicCandidate | None]:
    """What the test would choose from every rule alone if the tune part were the calibrate part.

    It promises nothing, since the fronts were made there: it only says which rules are worth a chain.
    """
    on_tune = {**parts, "calibrate": parts["tune"]}
    result: dict[str, DynamicCandidate | None] = {}
    for rule, own in front.items():
        names = {c.name: c for c in own}
        made = _evidence(found, {rule: own}, on_tune, draws, seed)
        chosen = walk_chains(*made, budget).chosen if own else None
        result[rule] = None if chosen is None else names[chosen]
    return result


def choose_dynamic(
    found: Configurations,
    parts: Mapping[str, IntArray],
    budget: Budget,
    draws: int = 2000,
    seed: int = 0,
    rules: int = 1,
) -> DynamicChoice:
    """The cheapest configuration that keeps `budget`; static exits and the best `rules` rules get a chain each."""
    front = fronts(found, parts["tune"])
    rehearsal = rehearse(found, front, parts, budget, seed=seed)
    cost = found.cost(parts["tune"])
    least = {r: np.inf if c is None else cost[c] for r, c in rehearsal.items() if r != STATIC}
    taken = sorted(least, key=lambda rule: least[rule])[:rules]
    tested = {rule: front[rule] for rule in (STATIC, *taken)}
    chains, shares, losses = _evidence(found, tested, parts, draws, seed)
    walk = walk_chains(chains, shares, losses, budget)
    names = {c.name: c for c in found.candidates}
    alone = walk_chains(chains.loc[chains["chain"] == STATIC, :], shares, losses, budget)
    return DynamicChoice(
        None if walk.chosen is None else names[walk.chosen],
        None if alone.chosen is None else names[alone.chosen],
        walk,
        tuple(taken),
        rehearsal,
        chains,
        losses,
        shares,
    )


def _evidence(
    found: Configurations,
    front: Mapping[str, Sequence[DynamicCandidate]],
    parts: Mapping[str, IntArray],
    draws: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Chains, share draws and losses of these fronts, as `walk_chains` takes them."""
    steps = _chains(found, front, parts["tune"])
    names = {c.name: c for c in found.candidates}
    wanted: list[Candidate] = [names[name] for name in dict.fromkeys(steps["name"])]
    rows = parts["calibrate"]
    shares = share_table(found.scores, wanted, parts["fit"], rows, draws, seed)
    chains = with_calibrate(steps, found.scores, wanted, rows)
    return chains, shares, loss_table(found.scores, wanted, rows)


def _chains(
    found: Configurations, front: Mapping[str, Sequence[DynamicCandidate]], tune: IntArray
) -> pd.DataFrame:
    """The fronts as `walk_chains` takes them. `layer` holds the mean cost on the tune part, in blocks."""
    cost, full = found.cost(tune), found.scores.full
    rows: list[dict[str, Any]] = []
    for chain, own in front.items():
        quality = found.scores.quality([full, *own], tune)
        for order, candidate in enumerate([full, *own]):
            place = {"chain": chain, "order": order, "name": candidate.name}
            numbers = {"layer": cost[candidate], "dim": candidate.dim}
            rows.append(
                {
                    **place,
                    "variant": candidate.variant,
                    **numbers,
                    "tune_quality": float(quality[order]),
                }
            )
    return pd.DataFrame(rows).astype({"variant": "string", "layer": float})


def curve(
    found: Configurations,
    parts: Mapping[str, IntArray],
    splits: Sequence[str] = ("tune", "test"),
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Cost against quality for every configuration: columns rule, threshold, layer, split, on_front, depth, cost,
    quality, low, high, share, gain, gain_low, gain_high, n.

    `depth` are the mean blocks run, `cost` those and the looks on the way, in blocks. `gain` is the quality above that
    of static exits at equal cost: the front of static exits on the tune part, mixed from two neighbours where the cost
    lies between them; its interval is a paired bootstrap over clusters.
    """
    front = fronts(found, parts["tune"])
    chosen = {c for own in front.values() for c in own} | {found.scores.full}
    static = sorted([found.scores.full, *front.get(STATIC, [])], key=lambda c: c.layer)
    tables: list[dict[str, Any]] = []
    for split in splits:
        rows = parts[split]
        depth, cost, task = found.depth(rows), found.cost(rows), found.scores.task
        resamples = Resamples.make(len(rows), draws, seed, task.clusters[rows])
        values = found.scores.quality(list(found.scores.candidates), rows)
        drawn = found.scores.draws(list(found.scores.candidates), rows, resamples)
        place = {c: i for i, c in enumerate(found.scores.candidates)}
        full = values[place[found.scores.full]]
        low, high = percentile_interval(drawn, confidence, axis=1)
        weights = _mixtures([cost[c] for c in found.candidates], [cost[c] for c in static])
        own = [place[c] for c in static]
        gain, gains = values - weights @ values[own], drawn - weights @ drawn[own]
        gain_low, gain_high = percentile_interval(gains, confidence, axis=1)
        share = ratio(values, np.broadcast_to(full, values.shape))
        for i, c in enumerate(found.candidates):
            numbers = {"quality": values[i], "low": low[i], "high": high[i], "share": share[i]}
            more = {"gain": gain[i], "gain_low": gain_low[i], "gain_high": gain_high[i]}
            tables.append(
                {
                    "rule": c.variant,
                    "threshold": c.threshold,
                    "layer": c.layer,
                    "split": split,
                    "on_front": c in chosen,
                    "depth": depth[c],
                    "cost": cost[c],
                    **{key: float(value) for key, value in {**numbers, **more}.items()},
                    "n": len(rows),
                }
            )
    return pd.DataFrame(tables).astype({"threshold": "Float64"})


def _mixtures(costs: Sequence[float], static: Sequence[float]) -> Array:
    """Weights (costs, static) of the two static exits around each cost; below the shallowest, that one alone."""
    places = np.arange(len(static), dtype=np.float64)
    at = np.interp(costs, static, places)
    low = np.minimum(at.astype(np.int64), len(static) - 1)
    high = np.minimum(low + 1, len(static) - 1)
    weights = np.zeros((len(at), len(static)))
    rows = np.arange(len(at))
    np.add.at(weights, (rows, low), 1 - (at - low))
    np.add.at(weights, (rows, high), at - low)
    return weights
