"""Dirichlet energy of the nodes of a graph: how near neighbours lie, against permuted nodes and a control context."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from probes.heads.flow.measures import GRAPH_ENERGY
from probes.layers.tokens import mean_row

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
_COLUMNS = {
    "variant": "string",
    "layer": "Int64",
    "context": "Int64",
    "energy": "Float64",
    "low": "Float64",
    "high": "Float64",
    "permuted": "Float64",
    "permuted_low": "Float64",
    "permuted_high": "Float64",
    "difference": "Float64",
    "difference_low": "Float64",
    "difference_high": "Float64",
    "n": "Int64",
    "seed": "Int64",
}


def node_means(states: FloatArray, walk: IntArray, nodes: int) -> FloatArray:
    """(layer, node, d): the mean of `states` (layer, token, d) over each node's tokens; NaN where there are none."""
    counts = np.bincount(walk, minlength=nodes)
    shares = np.eye(nodes)[walk] / np.maximum(counts, 1)[walk][:, None]  # (token, node)
    means = np.einsum("ltd,tn->lnd", states.astype(np.float64), shares)
    means[:, counts == 0] = np.nan
    return means


def edge_energy(distances: FloatArray, edges: IntArray, orders: IntArray) -> FloatArray:
    """Mean of squared `distances` (node, node) over `edges` divided by that over all pairs, for each order: (m,).

    Each of `orders` (m, node) puts node order[i] in the place of node i. Unseen nodes have NaN and are left out; 0
    when all states are equal.

    >>> line = (np.arange(4.0)[:, None] - np.arange(4.0)) ** 2
    >>> edge_energy(line, np.asarray([[0, 1], [1, 2], [2, 3]]), np.arange(4)[None]).round(3).tolist()
    [0.3]
    """
    on_edges = distances[orders[:, edges[:, 0]], orders[:, edges[:, 1]]]  # (m, edge)
    known = ~np.isnan(on_edges)
    sums = np.where(known, on_edges, 0.0).sum(1)
    means = np.divide(sums, known.sum(1), out=np.zeros_like(sums), where=known.any(1))
    pairs = distances[np.triu_indices(len(distances), 1)]
    whole = float(np.nanmean(pairs))
    return means / whole if whole > 0 else np.zeros_like(means)


def energy_table(
    means: dict[int, list[FloatArray]],
    edges: IntArray,
    permutations: int,
    seed: int,
    control: dict[int, list[FloatArray]] | None = None,
) -> pd.DataFrame:
    """The `energy` table from node means (layer, node, d) of each walk, by context length.

    `control` has the same of the rewired walks, for some of the lengths: their rows have the variant "rewired", and
    rows of the walks themselves get the `difference` to them.
    """
    rng = np.random.default_rng([seed, 1])
    rows: list[dict[str, Any]] = []
    for context, walked in means.items():
        nodes = walked[0].shape[1]
        # the same permutations for every layer
        orders = [
            rng.permuted(np.tile(np.arange(nodes), (permutations, 1)), axis=1) for _ in walked
        ]
        own = {"context": context, "seed": seed}
        values = _energies(walked, edges)
        beside: list[dict[str, Any]] = [{}] * len(values)
        if control is not None and context in control:
            random = _energies(control[context], edges)
            beside = paired(values - random)
            told = _rows(control[context], random, edges, orders)
            rows += [{**own, "variant": "rewired", **row} for row in told]
        told = _rows(walked, values, edges, orders)
        rows += [{**own, **row, **more} for row, more in zip(told, beside, strict=True)]
    frame: Any = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame.astype(_COLUMNS)


def paired(differences: FloatArray, confidence: float = 0.95) -> list[dict[str, Any]]:
    """Mean of `differences` (layer, walk) per layer, with bounds that hold for all layers together.

    Mean ± t · standard error over walks, t at the level 1 − (1 − confidence) / layers (Bonferroni).

    >>> [round(paired(np.asarray(d))[0]["difference_high"], 2) for d in ([[1.0, 3.0]], [[1.0, 3.0]] * 2)]
    [14.71, 27.45]
    """
    layers, n = differences.shape
    reach = float(student.ppf(1 - (1 - confidence) / (2 * layers), n - 1))
    middle = differences.mean(1)
    half = reach * differences.std(1, ddof=1) / n**0.5
    return [
        {"difference": float(m), "difference_low": float(m - h), "difference_high": float(m + h)}
        for m, h in zip(middle, half, strict=True)
    ]


def _energies(walked: list[FloatArray], edges: IntArray) -> FloatArray:
    """(layer, walk): energy of every walk's node means."""
    own = np.arange(walked[0].shape[1])[None]
    return np.asarray(
        [
            [edge_energy(_distances(mean[layer]), edges, own)[0] for mean in walked]
            for layer in range(len(walked[0]))
        ]
    )


def _rows(
    walked: list[FloatArray], values: FloatArray, edges: IntArray, orders: list[IntArray]
) -> list[dict[str, Any]]:
    """One row per layer: energies `values` (layer, walk) and those of permuted nodes."""
    rows: list[dict[str, Any]] = []
    for layer, some in enumerate(values):
        drawn = [
            edge_energy(_distances(mean[layer]), edges, order)
            for mean, order in zip(walked, orders, strict=True)
        ]
        random = np.mean(drawn, axis=0)
        low, high = np.quantile(random, [0.025, 0.975])
        found = mean_row(some, GRAPH_ENERGY, np.arange(len(some)), 0.95)
        rows.append(
            {
                "layer": layer,
                "energy": found["value"],
                "low": found["low"],
                "high": found["high"],
                "permuted": float(random.mean()),
                "permuted_low": float(low),
                "permuted_high": float(high),
                "n": found["n"],
            }
        )
    return rows


def _distances(means: FloatArray) -> FloatArray:
    """Squared distances (node, node) of node means (node, d)."""
    squares = (means**2).sum(1)
    return np.maximum(squares[:, None] + squares - 2 * means @ means.T, 0)
