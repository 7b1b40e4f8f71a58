"""Discrete-autoencoder circuits: which heads say something at prompts of a task that they never say at others.

Outputs of all heads (z, before the output projection) on positive (clean) and negative (corrupted) prompts go through
one autoencoder. A head's code is its strongest feature; its score is the number of codes it uses on positives only.
An edge's score is the same for pairs of codes. Paper: O'Neill & Bui 2024 (arXiv 2405.12522). What is found is compared
with activation patching on the same model, beside random directions, k-means and the difference of means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import DoesNotApply, EstimatorInputError, InputError
from probes.heads.circuits import Draws, Effects, list_patches, patch_activations
from probes.registry import Measure, register_measure
from probes.sae.circuit_outputs import HeadOutputs, head_outputs
from probes.stats import ranks

if TYPE_CHECKING:
    from probes.heads.circuits import Task
    from probes.models import Model

Array = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]
Truths = NDArray[np.bool_]
Report = Callable[[int, int], None]
Rows = list[dict[str, Any]]

METHODS = ("sae", "random", "clusters", "mean difference")
FEWEST_SCORED = 8  # pairs apart from those that are patched

CIRCUIT_AUC = register_measure(
    Measure(
        "circuit_auc",
        "Heads of the circuit found",
        "",
        0.0,
        1.0,
        "up",
        "ROC AUC of a head's (or edge's) score for the heads (or edges between such heads) that activation patching "
        "shows to matter; 0.5 is chance.",
        "O'Neill & Bui 2024 (arXiv 2405.12522)",
        0.5,
    )
)


@dataclass(frozen=True)
class CircuitSettings:
    """How circuits are looked for.

    Attributes:
        fit_pairs: pairs whose head outputs the autoencoder is trained on, as few as in the paper.
        n_features, k, steps: of the autoencoder ("topk") and of its baselines.
        seeds: how often: each has weights of its own and a random half of the pairs.
        patched: pairs for activation patching, which are used for nothing else.
        least: share of the logit difference that a head must move, either way, to count as part of the circuit.
        positions: "last" token of each prompt, or "all" tokens.
    """

    fit_pairs: int = 10
    n_features: int = 200
    k: int = 8
    steps: int = 300
    seeds: int = 10
    patched: int = 20
    least: float = 0.02
    positions: str = "last"


@dataclass(frozen=True)
class DiscreteCircuit:
    """`scores`: one row per method, level and seed; `heads`: one per head; `measurements`: tidy, over seeds."""

    scores: Rows
    heads: Rows
    measurements: Rows


def discrete_circuit(
    model: Model,
    task: Task,
    settings: CircuitSettings | None = None,
    *,
    seed: int = 0,
    report: Report = lambda done, total: None,
) -> DiscreteCircuit:
    """Find the heads of a task's circuit from codes, and judge what is found by activation patching.

    The first `settings.patched` pairs of `task` (see `circuit_task`) are patched: heads are in the circuit whose effect
    has an interval, for all heads at once, apart from 0 and is `least` or more in size. An edge is a pair of heads, the
    first in an earlier block, and in the circuit if both are. On the other pairs scores are taken: each of `seeds`
    seeds draws half of them, trains on `fit_pairs` of those, and scores on all of that half. Intervals of the mean AUC
    are over seeds, so they hold for these pairs and this model.

    Scores of "random" and "clusters" come from codes of random directions and of k-means; of "mean difference" from the
    length of the difference between positive and negative mean outputs, for an edge of both ends together.

    Raises `DoesNotApply` where patching shows no head or where heads differ in width, `InputError` for too few pairs.
    """
    chosen = settings or CircuitSettings()
    _check(chosen, len(task))
    truth = patched_heads(model, task.part(range(chosen.patched)), chosen.least, seed)
    rest = task.part(range(chosen.patched, len(task)))
    outputs = head_outputs(model, rest, chosen.positions)
    keys = {(int(b), int(h)): i for i, (b, h) in enumerate(outputs.heads)}
    truth = [row for _, row in sorted((keys[row["block"], row["head"]], row) for row in truth)]
    inside = np.array([row["in_circuit"] for row in truth])
    if not inside.any() or inside.all():
        raise DoesNotApply(
            f"task {task.name}: activation patching shows {int(inside.sum())} of {len(inside)} heads to move the logit "
            f"difference by {chosen.least:g} or more, so there is no circuit to be told from the rest"
        )
    edges = list_edges(outputs.heads[:, 0])
    linked = inside[edges[0]] & inside[edges[1]]
    scores: Rows = []
    sums = {method: np.zeros(len(inside)) for method in METHODS}
    for i in range(chosen.seeds):
        report(i, chosen.seeds)
        for method, (node, edge) in seed_scores(outputs, chosen, seed + i, edges).items():
            own = {"task": task.name, "method": method, "seed": seed + i}
            scores.append({**own, "level": "node", "auc": roc_auc(node, inside)})
            if linked.any() and not linked.all():
                scores.append({**own, "level": "edge", "auc": roc_auc(edge, linked)})
            sums[method] += node / chosen.seeds
    heads = [
        {"task": task.name, **row, **{m.replace(" ", "_"): float(sums[m][i]) for m in METHODS}}
        for i, row in enumerate(truth)
    ]
    return DiscreteCircuit(scores, heads, _summary(task.name, scores, seed))


def _check(chosen: CircuitSettings, pairs: int) -> None:
    for name in ("fit_pairs", "n_features", "k", "steps", "seeds", "patched"):
        if getattr(chosen, name) < 1:
            raise EstimatorInputError(f"{name} is {getattr(chosen, name)}: 1 or more is needed")
    if not 0 < chosen.least < 1:
        raise InputError(f"least is {chosen.least}: a share between 0 and 1 is needed")
    if pairs < chosen.patched + FEWEST_SCORED:
        raise InputError(
            f"{pairs} pairs: {chosen.patched} for patching and at least {FEWEST_SCORED} others are needed"
        )


def patched_heads(model: Model, task: Task, least: float, seed: int = 0) -> Rows:
    """Effect of each head by activation patching at all tokens, with simultaneous intervals and `in_circuit`."""
    effects: Effects = patch_activations(model, task, list_patches(model, "head", ("all",)))
    return [
        {
            "block": row["block"], "head": row["head"], "effect": row["value"],
            "low": row["low"], "high": row["high"],
            "in_circuit": abs(row["value"]) >= least and not row["low"] <= 0 <= row["high"],
        }
        for row in effects.together(Draws.make(len(task), 1000, seed))
    ]  # fmt: skip


def seed_scores(
    outputs: HeadOutputs, settings: CircuitSettings, seed: int, edges: tuple[Integers, Integers]
) -> dict[str, tuple[Array, Array]]:
    """Scores of heads (H,) and edges (E,) by every method, from one seed's half of the pairs and weights."""
    rng = np.random.default_rng((seed, 11))
    order = rng.permutation(outputs.n_pairs)[: max(FEWEST_SCORED // 2, outputs.n_pairs // 2)]
    half, fit = outputs.part(order), outputs.part(order[: settings.fit_pairs])
    flat = fit.values.reshape(-1, fit.values.shape[-1])
    found: dict[str, tuple[Array, Array]] = {}
    for name, coder in _coders(flat, settings, seed).items():
        codes = head_codes(coder, half.values)
        size = int(codes.max()) + 1
        pairs = np.concatenate(
            [
                only_positive(
                    codes[:, [i]] * size + codes[:, edges[1][edges[0] == i]], half.positive
                )
                for i in np.unique(edges[0])
            ]
        )
        found[name] = only_positive(codes, half.positive), pairs
    difference = half.values[half.positive].mean(0) - half.values[~half.positive].mean(0)
    length = np.linalg.norm(difference, axis=1)
    found["mean difference"] = length, np.hypot(length[edges[0]], length[edges[1]])
    return found


def _coders(X: Array, settings: CircuitSettings, seed: int) -> Mapping[str, Any]:
    from probes.sae.baselines import ClusterCoder, random_autoencoder
    from probes.sae.estimator import SparseAutoencoder

    sae = SparseAutoencoder(
        settings.n_features,
        min(settings.k, settings.n_features),
        steps=settings.steps,
        batch_size=1024,
        seed=seed,
        device="cpu",
    ).fit(X)
    return {
        "sae": sae,
        "random": random_autoencoder(sae, X, seed),
        "clusters": ClusterCoder(settings.n_features, seed).fit(X),
    }


def head_codes(coder: Any, values: Array) -> Integers:
    """Code (rows, H) of every head: its strongest feature in `values` (rows, H, d), and a code of its own for none."""
    flat = values.reshape(-1, values.shape[-1])
    table: Any = sparse.csr_array(coder.transform(flat))
    table.data = np.maximum(table.data, 0)
    best, size = (
        np.asarray(table.argmax(axis=1)).reshape(-1),
        np.asarray(table.max(axis=1).todense()),
    )
    return np.where(size.reshape(-1) > 0, best, table.shape[1]).reshape(values.shape[:2])


def only_positive(codes: Integers, positive: Truths) -> Array:
    """Number of different codes in each column of `codes` (rows, columns) that occur in `positive` rows only.

    >>> only_positive(np.array([[1, 4], [2, 4], [1, 4]]), np.array([True, True, False]))
    array([1., 0.])
    """
    # With the row's side as last bit, sorting puts a negative use of a code, if any, in front of its positive ones.
    table = np.sort(codes * 2 + positive[:, None], axis=0)
    first = np.ones(table.shape, dtype=bool)
    first[1:] = table[1:] // 2 != table[:-1] // 2
    return (first & (table % 2 == 1)).sum(axis=0).astype(np.float64)


def list_edges(block: Integers) -> tuple[Integers, Integers]:
    """Numbers of the first and second head of every edge, sorted by the first; `block` (H,) is where a head lies.

    >>> list_edges(np.array([0, 0, 1]))
    (array([0, 1]), array([2, 2]))
    """
    first, second = np.nonzero(block[:, None] < block[None, :])
    return first, second


def roc_auc(score: Array, inside: Truths) -> float:
    """Chance that one inside has a larger score than one outside, ties half: (n,), (n,) -> [0, 1].

    >>> roc_auc(np.array([3.0, 1, 2, 1]), np.array([True, True, False, False]))
    0.625
    """
    ahead = ranks(score)[inside].sum() - inside.sum() * (inside.sum() + 1) / 2
    return float(ahead / (inside.sum() * (~inside).sum()))


def _summary(task: str, scores: Rows, seed: int) -> Rows:
    found: Rows = []
    for level, more in (("node", ""), ("edge", " edges")):
        for method in METHODS:
            own = [
                row["auc"] for row in scores if row["level"] == level and row["method"] == method
            ]
            if own:
                (row,) = Draws.make(len(own), 2000, seed).mean(np.array(own)[:, None])
                found.append(
                    {"measure": "circuit_auc", "dataset": task, "variant": method + more, **row}
                )
    return found
