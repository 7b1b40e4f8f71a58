"""The parts of a circuit study: what each measures on a task, and the tables it writes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import DoesNotApply
from probes.heads.circuits.attribution import attribute
from probes.heads.circuits.faithfulness import ABSOLUTE, HeadId, faithfulness_curves
from probes.heads.circuits.lens import read_lens
from probes.heads.circuits.names import LEVELS, POSITIONS
from probes.heads.circuits.patching import (
    Effects,
    Patch,
    agreement,
    list_patches,
    patch_activations,
    patch_attributions,
    require_gap,
)
from probes.heads.circuits.tasks import Task
from probes.heads.circuits.tidied import energy_rows, neuron_rows, saliency_rows

if TYPE_CHECKING:
    from probes.heads.circuits.study import Study

CONTEXTS = (50, 100, 200, 400)  # tokens of a walk
_MOST_PROMPTS = 20  # of the saliency, which takes a backward pass for each
_LONGEST = 128  # tokens of a text whose neurons are read
_FEWEST_FRESH = 10  # pairs that no ranking has seen, to judge it by
_AGAIN = 5  # heads that are patched on other pairs too


def attribution(study: Study, task: Task) -> None:
    """Table attribution; the contribution of every head."""
    study.progress(0, None, f"attribution: {task.name}")
    rows = attribute(study.model, task).rows(study.draws(task))
    study.extend("attribution", ({"task": task.name, **row} for row in rows))
    study.add(_measured(rows, "direct_logit_attribution", task, "component"))


def _measured(
    rows: list[dict[str, Any]], measure: str, task: Task, column: str
) -> list[dict[str, Any]]:
    """The rows about heads as tidy ones."""
    kept = ("block", "head", "value", "low", "high", "n", "seed")
    return [
        {"measure": measure, "site": "z", "dataset": task.name, **{k: row[k] for k in kept}}
        for row in rows
        if row[column] == "head"
    ]


def all_patches(study: Study) -> list[Patch]:
    """Every place that the model has, with every group of tokens."""
    found: list[Patch] = []
    for level in LEVELS:
        try:
            found += list_patches(study.model, level)
        except DoesNotApply as reason:
            study.keep.note(f"patching ({level}): {reason}")
    return found


def patching(study: Study, task: Task) -> None:
    """Tables patching, strongest and agreement. Heads are patched at all tokens; groups have the approximation."""
    own = study.patched(task)
    draws = study.draws(own)
    patches = all_patches(study)
    told = f"patching: {task.name}"
    study.progress(0, None, told)
    estimated = patch_attributions(study.model, own, patches)
    require_gap(estimated.gap, draws)
    few = [p for p in patches if p.level != "head" or p.positions == "all"]
    effects = patch_activations(
        study.model, own, few, lambda done, total: study.progress(done, total, told)
    )
    rows = effects.rows(draws)
    both = {"activation": rows, "attribution": estimated.rows(draws)}
    study.extend(
        "patching",
        (
            {"task": task.name, "method": method, **row}
            for method, some in both.items()
            for row in some
        ),
    )
    _strongest(study, task, effects)
    agreed = list(agreement(effects, estimated, draws))
    if agreed:
        study.extend("agreement", ({"task": task.name, **row} for row in agreed))
    study.add(_measured(rows, "activation_patching", task, "level"))
    study.add(
        {
            "measure": "patching_agreement", "dataset": task.name, "variant": row["level"],
            "value": row["pearson"], **{k: row[k] for k in ("low", "high", "n", "seed")},
        }
        for row in agreed
    )  # fmt: skip


def _fresh(study: Study, task: Task) -> Task | None:
    """The pairs that no head was patched or ranked on; None where they are too few to judge by."""
    rows = range(len(study.patched(task)), len(task))
    return task.part(rows) if len(rows) >= _FEWEST_FRESH else None


def _strongest(study: Study, task: Task, effects: Effects) -> None:
    """Table strongest: the heads that bring back most of the answer, patched once more on pairs that did not pick them.

    Where there are no such pairs (`fresh` 0), all heads as they are on the same pairs. Intervals hold for all rows of a
    task at once.
    """
    heads = effects.part([p for p in effects.patches if p.level == "head"])
    if not heads.patches:
        return
    fresh = _fresh(study, task)
    own = heads
    if fresh is not None:
        share = heads.values.mean(axis=0) / heads.gap.mean()
        best = [heads.patches[i] for i in np.argsort(-share, kind="stable")[:_AGAIN]]
        own = patch_activations(study.model, fresh, best)
    draws = study.draws(study.patched(task) if fresh is None else fresh)
    kept = ("block", "head", "value", "low", "high", "n", "seed")
    study.extend(
        "strongest",
        (
            {"task": task.name, "fresh": int(fresh is not None), **{k: row[k] for k in kept}}
            for row in own.together(draws)
        ),
    )


def faithfulness(study: Study, task: Task) -> None:
    """Table faithfulness; the areas. Heads are ranked on the pairs that were patched, and kept on the others."""
    ranked = study.patched(task)
    judged = _fresh(study, task) or task
    if judged is task:
        study.keep.note(
            f"faithfulness ({task.name}): heads were ranked on the pairs that they are judged by; {_FEWEST_FRESH} more "
            f"pairs than --patched keep these apart, here {len(task)} pairs could be had"
        )
    told = f"faithfulness: {task.name}"
    study.progress(0, None, told)
    curves = faithfulness_curves(
        study.model,
        judged,
        _rankings(study, task, ranked),
        means_from=task,
        seed=study.plan.seed,
        report=lambda done, total: study.progress(done, total, told),
    )
    draws = study.draws(judged)
    study.extend(
        "faithfulness",
        ({"task": task.name, **row} for curve in curves for row in curve.rows(draws)),
    )
    study.add(
        {
            "measure": name, "site": "z", "dataset": task.name,
            "variant": curve.ranking.removesuffix(ABSOLUTE), **row,
        }
        for curve in curves
        for name, row in curve.areas(draws).items()
    )  # fmt: skip


def _rankings(study: Study, task: Task, ranked: Task) -> dict[str, dict[HeadId, float]]:
    """Scores of every head by ranking; that of activation patching where the part `patching` was done."""
    found: dict[str, dict[HeadId, float]] = {}
    patched: Any = study.tables.get("patching")
    if patched is not None:
        own = patched[
            (patched["task"] == task.name)
            & (patched["level"] == "head")
            & (patched["method"] == "activation")
            & (patched["positions"] == "all")
        ]
        if len(own):
            found["activation"] = {
                (int(row["block"]), int(row["head"])): float(row["value"])
                for row in own.to_dict("records")
            }
    heads = list_patches(study.model, "head", POSITIONS[:1])
    effects = patch_attributions(study.model, ranked, heads)
    found["attribution"] = {
        (p.block or 0, p.head or 0): float(v)
        for p, v in zip(heads, effects.values.mean(axis=0), strict=True)
    }
    try:
        direct = attribute(study.model, ranked)
    except DoesNotApply as reason:
        study.keep.note(f"faithfulness ({task.name}), ranking dla: {reason}")
        return found
    found["dla"] = {
        (c.block or 0, c.head or 0): float(v)
        for c, v in zip(direct.components, direct.values.mean(axis=0), strict=True)
        if c.kind == "head"
    }
    return found


def lens(study: Study, task: Task) -> None:
    """Table lens; how far the last layers take the answer back."""
    study.progress(0, None, f"lens: {task.name}")
    draws = study.draws(task)
    found = read_lens(study.model, task)
    study.extend("lens", ({"task": task.name, **row} for row in found.rows(draws)))
    row = found.suppression(study.plan.seed)
    study.add([{"measure": "answer_suppression", "dataset": task.name, **row}])


TASK_FUNCTIONS: Mapping[str, Callable[[Study, Task], None]] = {
    "attribution": attribution,
    "patching": patching,
    "faithfulness": faithfulness,
    "lens": lens,
}


def flow(study: Study) -> None:
    """Table saliency: flows between texts, label words and answer in few-shot prompts of built-in sentiment data."""
    from probes.datasets import load_dataset
    from probes.heads.flow import label_saliency

    study.progress(0, None, "flow: saliency of label words")
    data: Any = load_dataset("sentiment")
    prompts = min(study.plan.pairs, _MOST_PROMPTS)
    table = label_saliency(study.model, data, prompts, seed=study.plan.seed)
    study.extend("saliency", table)
    study.add(saliency_rows(table))


def graph(study: Study) -> None:
    """Tables graph, graph_nodes and graph_edges: what a context of walks on a grid does to the geometry of words."""
    from probes.heads.flow import graph_energy

    study.progress(0, None, "graph: walks of words")
    contexts = [length for length in CONTEXTS if length + 1 <= study.model.max_length]
    if not contexts:
        raise DoesNotApply(
            f"{study.model.name} reads {study.model.max_length} tokens: walks of {CONTEXTS[0]} after a first token "
            "are needed"
        )
    found = graph_energy(study.model, contexts=contexts, seed=study.plan.seed)
    study.extend("graph", found.energy)
    study.extend("graph_nodes", found.nodes)
    study.extend("graph_edges", found.edges)
    study.add(energy_rows(found.energy))


def neurons(study: Study) -> None:
    """Table neurons: core neurons of texts, on pairs of texts from docstrings graded by where they come from."""
    from probes.datasets import limit_dataset, load_dataset
    from probes.heads.neurons import neuron_table

    study.progress(0, None, "neurons: cores of texts")
    plan = study.plan
    rng = np.random.default_rng(plan.seed)
    data: Any = limit_dataset(load_dataset("docstring-pairs"), max(plan.pairs, 20), rng)
    longest = min(_LONGEST, study.model.max_length)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*were cut")  # said in the note
        table = neuron_table(
            study.model, data, draws=plan.draws, seed=plan.seed, max_length=longest
        )
    study.keep.note(f"neurons: texts are cut at {longest} tokens")
    for note in table.attrs.get("notes", ()):
        study.keep.note(f"neurons: {note}")
    study.extend("neurons", table)
    study.add(neuron_rows(table, data.name))


MODEL_PARTS: Mapping[str, Callable[[Study], None]] = {
    "flow": flow,
    "graph": graph,
    "neurons": neurons,
}
