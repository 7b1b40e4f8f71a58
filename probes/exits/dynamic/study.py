"""From a model and a labelled dataset to a dynamic exit: capture, heads, rules, thresholds under the guarantee."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError, unknown_name
from probes.exits.choose import Setting, check_parts, evaluate
from probes.exits.dynamic.calibrate import (
    LOOK_COST,
    STATIC,
    THRESHOLDS,
    Configurations,
    DynamicCandidate,
    DynamicChoice,
    choose_dynamic,
    configurations,
    curve,
)
from probes.exits.dynamic.gates import FEWEST, fit_gates, signals
from probes.exits.dynamic.heads import SpaceHeads
from probes.exits.dynamic.rules import Confidence, rules_for
from probes.exits.dynamic.runtime import Policy
from probes.exits.dynamic.units import Units, make_units
from probes.exits.material import Material, builtin_texts, prepare
from probes.exits.recipe import Linear
from probes.exits.translate import fit_translator
from probes.exits.walk import Budget
from probes.linalg import normalise_rows

if TYPE_CHECKING:
    from probes.models import Model
    from probes.types import Dataset

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Progress = Callable[[int, int, str], None]
GATES = ("layer-gate", "look-gate")


@dataclass(frozen=True)
class DynamicPlan:
    """How a study is done.

    `layers` are the exits (None: all), `rules` names of rules and gates (None: all that apply); the best `chains` of
    them on the tune part are tested, each with at most `thresholds` thresholds. `look_cost` is what looking at an exit
    costs, in blocks: a rule that stops too late costs more than the full model.
    """

    pooling: str | None = None
    layers: tuple[int, ...] | None = None
    rules: tuple[str, ...] | None = None
    thresholds: int = THRESHOLDS
    look_cost: float = LOOK_COST
    chains: int = 1
    draws: int = 1000
    seed: int = 0
    max_length: int | None = None


@dataclass(frozen=True, eq=False)
class DynamicStudy:
    """What was found. `curve` holds depth against quality of every rule, threshold and static exit (see
    `calibrate.curve`); `rules` are the rules and gates by name; `choice` is what passed."""

    units: Units
    rules: Mapping[str, Confidence]
    found: Configurations
    choice: DynamicChoice
    curve: pd.DataFrame
    material: Material
    budget: Budget
    plan: DynamicPlan

    def policy(self, candidate: DynamicCandidate | None = None) -> Policy:
        """What runs `candidate` (None: the chosen one)."""
        candidate = candidate or self.choice.chosen
        if candidate is None:
            raise InputError(f"nothing was chosen: {self.choice.walk.reason}")
        pooling, heads = self.plan.pooling or "mean", self.units.heads
        if candidate.threshold is None:
            return Policy(heads, (candidate.layer,), pooling)
        rule = self.rules[str(candidate.variant)]
        if not rule.needs_top and isinstance(heads, SpaceHeads):
            heads = replace(heads, index=None)
        return Policy(heads, self.units.layers, pooling, rule, candidate.threshold)

    def texts(self, part: str = "test") -> list[str]:
        """The texts of one part that exit one by one. Time is to be taken on these: heads and gates are surer of the
        fit part than of what they have not seen, so that its texts would stop too early."""
        rows = self.units.rows[self.units.of_example[self.material.parts[part]].ravel()]
        return [self.material.texts[row] for row in rows.tolist()]

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the choice, the best static exit and the full model on the test part, looked at once."""
        wanted = {"chosen": self.choice.chosen, "static": self.choice.static}
        looked = [c for c in wanted.values() if c is not None]
        test = self.material.parts["test"]
        setting = Setting(2 * self.plan.draws, self.plan.seed)
        kept = evaluate(self.found.scores, [*looked], test, self.budget.confidence, setting)
        depth, cost, full = self.found.depth(test), self.found.cost(test), self.found.scores.full
        told = {
            c.name: {
                "rule": c.variant,
                "threshold": c.threshold,
                "layer": c.layer,
                "depth": depth[c],
                "relative_depth": depth[c] / full.layer,
                "relative_cost": cost[c] / full.layer,
                **k.as_dict(),
            }
            for c, k in zip(looked, kept, strict=True)
        }
        return {
            "status": "infeasible" if self.choice.chosen is None else "chosen",
            "reason": self.choice.walk.reason,
            **{key: None if c is None else told[c.name] for key, c in wanted.items()},
            "chains": [STATIC, *self.choice.rules],
            "exits": list(self.units.layers),
            "measure": self.units.task.primary,
            "dataset": self.units.task.name,
            "confidence": self.budget.confidence,
            "guarantee": self.budget.guarantee,
            "budget": {"min_quality": self.budget.min_quality, "max_loss": self.budget.max_loss},
        }


def study_dynamic_states(
    material: Material,
    pooled: Mapping[int, Array],
    budget: Budget,
    plan: DynamicPlan,
    embed: Callable[[Array], Array] = lambda X: X,
    labels: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> DynamicStudy:
    """The study from pooled states on: `pooled[k]` is (texts, d) for every layer 0…L, `embed` the maker's head."""
    report = progress or (lambda done, total, text: None)
    layers = exits_of(plan, max(pooled))
    names = rule_names(plan, material.task.kind)
    maps: dict[int, Linear] = {}
    if material.task.kind != "classification":
        maps = _translators(material, pooled, layers, embed, report)
    fit = material.parts["fit"]
    units = make_units(material.task, pooled, layers, fit, maps, embed, labels)
    rules: dict[str, Confidence] = {
        r.name: r for r in rules_for(material.task.kind) if r.name in names
    }
    if set(names) & set(GATES):
        rules |= _gates(units, np.unique(units.of_example[fit]), names)
    confidences = measure_confidences(units, rules, report)
    report(0, 1, "thresholds")
    tune = material.parts["tune"]
    found = configurations(units, confidences, tune, plan.thresholds, plan.look_cost)
    choice = choose_dynamic(found, material.parts, budget, 2 * plan.draws, plan.seed, plan.chains)
    table = curve(found, material.parts, draws=plan.draws, seed=plan.seed)
    return DynamicStudy(units, rules, found, choice, table, material, budget, plan)


def study_dynamic(
    model: Model,
    data: Dataset,
    budget: Budget | None = None,
    texts: Sequence[str] | None = None,
    plan: DynamicPlan | None = None,
    progress: Progress | None = None,
) -> DynamicStudy:
    """Where each text of `data` can stop so that all together keep `budget`; captures, fits, calibrates.

    `texts` are unlabelled texts for the translators of similarity and retrieval (None: a sample of the built-in text).
    `DynamicExit(model, study.policy())` runs what was chosen.
    """
    from probes.capture import capture
    from probes.exits.pipeline import prompts_for

    budget, plan = budget or Budget(), plan or DynamicPlan()
    plan = replace(plan, pooling=plan.pooling or model.embedding.pooling)
    exits_of(plan, model.n_layers)
    extra = texts or ()
    if texts is None and not hasattr(data, "label_names"):
        extra = builtin_texts(data.all_texts(), seed=plan.seed)
    material = prepare(data, extra, plan.seed, prompts_for(model, data, None))
    rule_names(plan, material.task.kind)
    check_parts(material.task, material.parts, budget)
    acts = capture(
        model,
        material.texts,
        sites=["exit"],
        pooling=plan.pooling,
        max_length=plan.max_length,
        progress=False
        if progress is None
        else lambda done, total: progress(done, total, "encoding texts"),
    )
    labels = tuple(map(str, getattr(data, "label_names", ())))
    return study_dynamic_states(material, acts["exit"], budget, plan, model.embed, labels, progress)


def exits_of(plan: DynamicPlan, last: int) -> tuple[int, ...]:
    """The exits in rising order, the full model among them."""
    if plan.layers is None:
        return tuple(range(last + 1))
    bad = [layer for layer in plan.layers if not 0 <= layer <= last]
    if bad or not set(plan.layers) - {last}:
        raise InputError(
            f"exits {list(plan.layers)}: one or more layers from 0 to {last - 1} are needed; {last} is the full model"
        )
    return tuple(sorted({*plan.layers, last}))


def rule_names(plan: DynamicPlan, kind: str) -> tuple[str, ...]:
    """The rules and gates asked for; `InputError` for one that does not exist or has no meaning for data of `kind`."""
    allowed = (*(rule.name for rule in rules_for(kind)), *GATES)
    for name in plan.rules or ():
        if name not in allowed:
            raise unknown_name(f"rule for {kind} data", name, allowed)
    return plan.rules or allowed


def measure_confidences(
    units: Units, rules: Mapping[str, Confidence], report: Progress
) -> dict[str, Array]:
    """Confidence (exits − 1, units) of every rule."""
    shape = len(units.layers) - 1, len(units.rows)
    made: dict[str, Array] = {name: np.empty(shape) for name in rules}
    for place, look in enumerate(units.looks()):
        report(place, len(units.layers), "confidence at every exit")
        if place < shape[0]:
            for name, rule in rules.items():
                made[name][place] = rule(look)
    return made


def _gates(units: Units, fit: IntArray, names: Sequence[str]) -> dict[str, Confidence]:
    """The gates asked for, fitted on the units `fit`; none where these are too few."""
    if len(fit) < FEWEST:
        return {}
    seen: list[Array] = []
    origin: Array | None = None
    for look in units.looks():
        origin = look.origin[fit]
        if len(seen) < len(units.layers) - 1:
            seen.append(signals(look)[fit])
    assert origin is not None
    gates = fit_gates(units.layers[:-1], origin, seen, units.goodness(fit))
    return {gate.name: gate for gate in gates if gate.name in names}


def _translators(
    material: Material,
    pooled: Mapping[int, Array],
    layers: tuple[int, ...],
    embed: Callable[[Array], Array],
    report: Progress,
) -> dict[int, Linear]:
    rows = material.fit_rows
    target = normalise_rows(np.asarray(embed(np.asarray(pooled[layers[-1]])[rows]), np.float64))
    found: dict[int, Linear] = {}
    for place, layer in enumerate(layers[:-1]):
        report(place, len(layers) - 1, "fitting translators")
        map_ = fit_translator(np.asarray(pooled[layer])[rows], target)
        found[layer] = Linear(*map_.as_linear())
    return found
