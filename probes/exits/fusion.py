"""What reading all layers would give: learnt mixtures of a frozen model's layers, a mark for exits to be seen by.

A mixture reads every block, so it is no exit. It says how much the last layer leaves on the table. Weights are learnt
on the fit part, where they start and their penalty are chosen on the tune part, and quality is measured on the test
part.

Kinds: `mean`, all layers alike, nothing learnt; `scalar-mix`, one weight per layer (Peters et al. 2018); `importance`,
one weight per layer and coordinate (the trainable importance of RINE, Koutlis & Papadopoulos 2024, here without its
projections). `last` is the full model, `single` the layer that is best on the tune part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from probes.exits.classification import ClassificationTask
from probes.exits.resample import Resamples
from probes.exits.retrieval import RetrievalTask
from probes.exits.similarity import SimilarityTask
from probes.exits.tasks import Task
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

PENALTIES = (0.01, 0.3, 10.0)  # on the mean squared distance of the logits from where they start
STARTS = (
    0.0,
    4.0,
)  # logit of the last layer, 0 for the others: all alike, and nearly the full model
MOST = 2000  # examples, and documents, that weights are learnt from: a seeded sample of more
SCALE = 20.0  # of a cosine in a loss, as in sentence-transformers
STEPS = 60  # of L-BFGS
KINDS = ("mean", "scalar-mix", "importance")


@dataclass(frozen=True, eq=False)
class Mixture:
    """Σ_k w_k ⊙ (h_k − μ_k) / r_k over layers; `weights` (layers, 1 or d) sum to one over layers.

    μ_k and r_k, the mean and the root mean square of layer k's centred states, come from fit rows: without them the
    weights would say how large a layer's states are.
    """

    layers: tuple[int, ...]
    means: Array  # (layers, d)
    scales: Array  # (layers,)
    weights: Array

    def __call__(self, states: Mapping[int, Array], rows: IntArray | None = None) -> Array:
        """(texts, d) from the states of all layers, read one layer at a time."""
        total: Array | None = None
        for place, layer in enumerate(self.layers):
            held = np.asarray(states[layer])
            held = held if rows is None else held[rows]
            part = (held - self.means[place]) * (self.weights[place] / self.scales[place])
            total = part if total is None else total + part
        assert total is not None
        return total

    def with_weights(self, weights: Array) -> Mixture:
        """The same layers, weighted otherwise."""
        return Mixture(self.layers, self.means, self.scales, weights)


@dataclass(frozen=True)
class FusionStudy:
    """`table`: kind, layer (of single), value, low, high, over_full, over_full_low, over_full_high, penalty, n.
    `weights`: kind, layer, weight (its mean over coordinates)."""

    table: pd.DataFrame
    weights: pd.DataFrame
    mixtures: Mapping[str, Mixture]


def fusion_study(
    task: Task,
    states: Mapping[int, Array],
    parts: Mapping[str, IntArray],
    fit_rows: IntArray,
    draws: int = 1000,
    seed: int = 0,
) -> FusionStudy:
    """Quality of every kind of mixture on the test part, beside the last layer and the best single one.

    Args:
        task: judges; its probe, for classification, is fitted on the fit part as everywhere.
        states: (texts, d) per layer, as the maker embeds them.
        parts: examples by part: fit, tune, test.
        fit_rows: rows of `states` that means and scales may use.
    """
    full = max(states)
    start = neutral_mixture(states, fit_rows)
    score = _Scorer(task, parts, states)
    single = max(sorted(states), key=lambda k: score.on("tune", np.asarray(states[k])))
    found: dict[str, Mixture] = {"mean": start}
    chosen: dict[str, float | None] = {"mean": None}
    learn = _learner(task, states, start, parts["fit"], seed)
    for kind in KINDS[1:]:
        width = 1 if kind == "scalar-mix" else start.means.shape[1]
        tried = [(p, learn(width, origin, p)) for origin in STARTS for p in PENALTIES]
        chosen[kind], found[kind] = max(tried, key=lambda one: score.on("tune", one[1](states)))
    embeddings = {"last": states[full], "single": states[single]}
    cells = {name: score.cells(np.asarray(X)) for name, X in embeddings.items()}
    cells |= {kind: score.cells(mixture(states)) for kind, mixture in found.items()}
    rows = _compared(task, cells, parts["test"], draws, seed)
    for row in rows:
        row["penalty"] = chosen.get(row["kind"])
        row["layer"] = {"last": full, "single": single}.get(row["kind"])
    table = pd.DataFrame(rows).astype({"layer": "Int64", "penalty": "Float64"})
    weights = [
        {"kind": kind, "layer": layer, "weight": float(mixture.weights[place].mean())}
        for kind, mixture in found.items()
        for place, layer in enumerate(mixture.layers)
    ]
    return FusionStudy(table, pd.DataFrame(weights), found)


def neutral_mixture(states: Mapping[int, Array], fit_rows: IntArray) -> Mixture:
    """All layers alike, each centred and scaled by its rows `fit_rows`."""
    layers = tuple(sorted(states))
    means: list[Array] = []
    scales: list[float] = []
    for layer in layers:
        X = np.asarray(states[layer])[fit_rows].astype(np.float64)
        means.append(X.mean(axis=0))
        scales.append(float(np.sqrt(np.square(X - means[-1]).mean())) or 1.0)
    weights = np.full((len(layers), 1), 1 / len(layers))
    return Mixture(layers, np.stack(means), np.asarray(scales), weights)


@dataclass(frozen=True)
class _Scorer:
    task: Task
    parts: Mapping[str, IntArray]
    states: Mapping[int, Array]

    def cells(self, X: Array) -> Array:
        """Scores of the primary measure at full width, (1, n)."""
        return self.task.score(X, [X.shape[1]], self.parts["fit"])[self.task.primary]

    def on(self, part: str, X: Array) -> float:
        return float(self.task.estimate(self.task.primary, self.cells(X), self.parts[part])[0])


def _compared(
    task: Task, cells: Mapping[str, Array], rows: IntArray, draws: int, seed: int
) -> list[dict[str, Any]]:
    """Every embedding's quality on `rows`, and how far above the last layer's it lies, by paired resamples."""
    resamples = Resamples.make(len(rows), draws, seed, task.clusters[rows])
    stacked = np.concatenate(list(cells.values()))
    values = np.asarray(task.estimate(task.primary, stacked, rows))
    drawn = np.asarray(task.draws(task.primary, stacked, rows, resamples))
    last = list(cells).index("last")
    low, high = percentile_interval(drawn, 0.95, axis=1)
    less, more = percentile_interval(drawn - drawn[last], 0.95, axis=1)
    return [
        {
            "kind": kind,
            "measure": task.primary,
            "value": float(values[i]),
            "low": float(low[i]),
            "high": float(high[i]),
            "over_full": float(values[i] - values[last]),
            "over_full_low": float(less[i]),
            "over_full_high": float(more[i]),
            "n": len(rows),
        }
        for i, kind in enumerate(cells)
    ]


Learner = Callable[[int, float, float], Mixture]


def _learner(
    task: Task, states: Mapping[int, Array], start: Mixture, fit: IntArray, seed: int
) -> Learner:
    """A function of width (1 or d), start and penalty that learns weights; states are read once."""
    picked = np.sort(np.random.default_rng(seed).permutation(fit)[:MOST])
    rows, loss, extra = _objective(task, picked, seed)
    Z = torch.stack(
        [
            torch.as_tensor((np.asarray(states[k])[rows] - start.means[i]) / start.scales[i])
            for i, k in enumerate(start.layers)
        ]
    ).float()  # (layers, texts, d)

    def learn(width: int, last: float, penalty: float) -> Mixture:
        origin = torch.zeros(len(Z), width)
        origin[-1] = last
        logits = origin.clone().requires_grad_(True)
        head = [torch.zeros(shape, requires_grad=True) for shape in extra(Z.shape[2])]
        solver = torch.optim.LBFGS([logits, *head], max_iter=STEPS, line_search_fn="strong_wolfe")

        def closure() -> float:
            solver.zero_grad()
            mixed = (logits.softmax(0)[:, None, :] * Z).sum(0)  # (texts, d)
            value = loss(mixed, head) + penalty * (logits - origin).square().mean()
            value.backward()
            return float(value.detach())

        solver.step(closure)
        return start.with_weights(logits.detach().softmax(0).double().numpy())

    return learn


Loss = Callable[[Tensor, list[Tensor]], Tensor]
Shapes = Callable[[int], list[tuple[int, ...]]]


def _objective(task: Task, rows: IntArray, seed: int) -> tuple[IntArray, Loss, Shapes]:
    """Rows of the states that are needed, the mean loss of a mixture (texts, d) of them, and shapes of its head."""
    if isinstance(task, SimilarityTask):
        texts, place = np.unique(np.concatenate([task.a[rows], task.b[rows]]), return_inverse=True)
        a, b = torch.as_tensor(place[: len(rows)]), torch.as_tensor(place[len(rows) :])
        gold = torch.as_tensor(task.gold[rows])

        def ordered(mixed: Tensor, _: list[Tensor]) -> Tensor:
            return cosent(functional.cosine_similarity(mixed[a], mixed[b]), gold)

        return texts, ordered, lambda _: []
    if isinstance(task, RetrievalTask):
        return _ranking(task, rows, seed)
    assert isinstance(task, ClassificationTask)
    labels = torch.as_tensor(task.labels[rows]).long()

    def classified(mixed: Tensor, head: list[Tensor]) -> Tensor:
        weight, bias = head
        ridge = weight.square().sum() / len(labels)
        return functional.cross_entropy(mixed @ weight + bias, labels) + ridge

    classes = task.n_classes
    return task.rows[rows], classified, lambda d: [(d, classes), (classes,)]


def _ranking(task: RetrievalTask, rows: IntArray, seed: int) -> tuple[IntArray, Loss, Shapes]:
    """Cross-entropy of the relevant documents among theirs and a sample of the others."""
    relevant = task.relevance[rows].tocsr()
    wanted = np.unique(relevant.indices[relevant.data > 0])
    others = np.setdiff1d(np.arange(len(task.documents)), wanted)
    room = max(0, MOST - len(wanted))
    pool = np.sort(np.r_[wanted, np.random.default_rng(seed).permutation(others)[:room]])
    gain = torch.as_tensor(relevant[:, pool].toarray() > 0).float()  # (queries, pool)
    gain = gain / gain.sum(1, keepdim=True).clamp(min=1)
    texts = np.concatenate([task.queries[rows], task.documents[pool]])

    def ranked(mixed: Tensor, _: list[Tensor]) -> Tensor:
        unit = functional.normalize(mixed, dim=-1)
        logits = SCALE * unit[: len(rows)] @ unit[len(rows) :].T
        return -(gain * logits.log_softmax(1)).sum(1).mean()

    return texts, ranked, lambda _: []


def cosent(cosines: Tensor, gold: Tensor) -> Tensor:
    """log(1 + Σ exp(20 (c_j − c_i))) over pairs i, j with gold_i > gold_j: how far the order is wrong.

    >>> float(cosent(torch.tensor([0.9, 0.1]), torch.tensor([1.0, 0.0]))) < 1e-6
    True
    """
    gold, order = gold.sort()
    scores = SCALE * cosines[order]
    suffix = torch.logcumsumexp(-scores.flip(0), 0).flip(0)
    suffix = torch.cat([suffix, suffix.new_full((1,), -torch.inf)])
    higher = torch.searchsorted(gold, gold, right=True)  # where larger golds begin
    return torch.cat([scores.new_zeros(1), scores + suffix[higher]]).logsumexp(0)
