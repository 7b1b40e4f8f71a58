"""In-context representations: does the geometry of word states follow a graph that the context alone defines?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError, NonFiniteError
from probes.heads.flow.measures import GRAPH_ENERGY
from probes.heads.flow.walks import WORDS, Graph, Shape, graph_edges, random_walk, single_tokens
from probes.layers.tokens import mean_row
from probes.models import Model
from probes.models.selfcheck import collecting_layers

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
_COLUMNS = {
    "layer": "Int64",
    "context": "Int64",
    "energy": "Float64",
    "low": "Float64",
    "high": "Float64",
    "permuted": "Float64",
    "permuted_low": "Float64",
    "permuted_high": "Float64",
    "n": "Int64",
    "seed": "Int64",
}


@dataclass(frozen=True)
class GraphEnergy:
    """`energy`: one row per layer and context length; `nodes`: layer, node, word, x, y; `edges`: a, b."""

    energy: pd.DataFrame
    nodes: pd.DataFrame
    edges: pd.DataFrame


def graph_energy(
    model: Model,
    *,
    shape: Shape = "grid",
    nodes: int = 16,
    words: Sequence[str] = WORDS,
    contexts: Sequence[int] = (50, 100, 200, 400),
    walks: int = 8,
    window: int = 50,
    permutations: int = 200,
    seed: int = 0,
) -> GraphEnergy:
    """Dirichlet energy of word states on the graph whose random walks are the context, per layer and context length.

    The context is a walk of words on a `grid` or `ring` of `nodes` nodes; each walk puts the words on the nodes
    anew, so that what the words mean does not count. A node's state is the mean over its occurrences among the last
    `window` tokens of the context, after k blocks.
    `energy` is the mean of ‖h_i − h_j‖² over edges divided by that over all pairs, which is its expectation when nodes
    are permuted: 1 where the graph leaves no trace, below 1 where neighbours lie together. Intervals are mean ± t ·
    standard error over walks, 95 %; `permuted` has the same for permuted nodes, with the central 95 % of
    `permutations` draws. Coordinates x, y of `nodes` are the first two principal components of the node means of
    one walk, over the second half of the longest context.

    Raises `DoesNotApply` for models that see later tokens or whose tokenizer knows too few of the words, `InputError`
    for contexts that are too long or too short. Paper: Park et al. 2025 (arXiv 2501.00070).

    >>> def turns(model):  # the layer whose geometry follows the graph most
    ...     table = graph_energy(model).energy
    ...     return int(table.loc[table["energy"].astype(float).idxmin(), "layer"])
    """
    if not model.is_causal:
        raise DoesNotApply(
            f"{model.name} sees later tokens: a state does not belong to a context of one length"
        )
    lengths = sorted({int(context) for context in contexts})
    longest = lengths[-1] if lengths else 0
    if not lengths or lengths[0] < 2 * nodes or walks < 2 or window < nodes or permutations < 2:
        raise InputError(
            f"contexts {list(contexts)}, window {window}, {walks} walks, {permutations} permutations: contexts of at "
            f"least {2 * nodes} tokens, a window of at least {nodes}, and 2 or more of the others are needed"
        )
    if longest + 1 > model.max_length:
        raise InputError(
            f"context {longest}: {model.name} takes {model.max_length - 1} tokens beside its first"
        )
    tokens = single_tokens(model, words, nodes)
    rng = np.random.default_rng(seed)
    edges = graph_edges(shape, nodes)
    means: dict[int, list[FloatArray]] = {length: [] for length in lengths}
    picture = pd.DataFrame()
    for number in range(walks):
        placed = tuple(str(word) for word in rng.permutation(list(tokens)))
        walk = random_walk(Graph(placed, edges), longest, rng)
        states = _states(model, np.asarray([tokens[word] for word in placed])[walk])
        for length in lengths:
            seen = slice(max(0, length - window), length)
            means[length].append(node_means(states[:, seen], walk[seen], nodes))
        if number == 0:
            late = slice(longest // 2, None)
            picture = _node_table(node_means(states[:, late], walk[late], nodes), placed)
    energy = energy_table(means, edges, permutations, seed)
    return GraphEnergy(energy, picture, pd.DataFrame(edges, columns=["a", "b"]))


def _states(model: Model, ids: IntArray) -> FloatArray:
    """States (layer, token, d) of the walk's tokens; a first token of the tokenizer's is put before and left out."""
    tokenizer = model.require_tokenizer()
    own = tokenizer(" a", add_special_tokens=False)["input_ids"]
    coded = tokenizer(" a")["input_ids"]
    first = coded[: next(i for i in range(len(coded)) if coded[i : i + len(own)] == own)]
    whole = torch.tensor([[*first, *ids.tolist()]], device=model.device)
    with torch.no_grad(), collecting_layers(model.structure) as states:
        model.structure.base(**model.forward_inputs(whole, torch.ones_like(whole)))
    found = torch.stack([state[0, len(first) :].float().cpu() for state in states]).numpy()
    if not np.isfinite(found).all():
        raise NonFiniteError(f"states of {model.name} hold NaN or infinity")
    return found


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
    means: dict[int, list[FloatArray]], edges: IntArray, permutations: int, seed: int
) -> pd.DataFrame:
    """The `energy` table from node means (layer, node, d) of each walk, by context length."""
    rng = np.random.default_rng([seed, 1])
    rows: list[dict[str, Any]] = []
    for context, walked in means.items():
        nodes = walked[0].shape[1]
        own = np.arange(nodes)[None]
        # the same permutations for every layer
        orders = [rng.permuted(np.tile(own, (permutations, 1)), axis=1) for _ in walked]
        for layer in range(len(walked[0])):
            spaces = [_distances(mean[layer]) for mean in walked]
            values = np.concatenate([edge_energy(space, edges, own) for space in spaces])
            drawn = [edge_energy(s, edges, o) for s, o in zip(spaces, orders, strict=True)]
            random = np.mean(drawn, axis=0)
            low, high = np.quantile(random, [0.025, 0.975])
            found = mean_row(values, GRAPH_ENERGY, np.arange(len(values)), 0.95)
            rows.append(
                {
                    "layer": layer,
                    "context": context,
                    "energy": found["value"],
                    "low": found["low"],
                    "high": found["high"],
                    "permuted": float(random.mean()),
                    "permuted_low": float(low),
                    "permuted_high": float(high),
                    "n": found["n"],
                    "seed": seed,
                }
            )
    frame: Any = pd.DataFrame(rows, columns=list(_COLUMNS))
    return frame.astype(_COLUMNS)


def _distances(means: FloatArray) -> FloatArray:
    """Squared distances (node, node) of node means (node, d)."""
    squares = (means**2).sum(1)
    return np.maximum(squares[:, None] + squares - 2 * means @ means.T, 0)


def _node_table(means: FloatArray, words: Sequence[str]) -> pd.DataFrame:
    """Two principal components of node means (layer, node, d), per layer; unvisited nodes are left out."""
    visited = np.flatnonzero(~np.isnan(means[0, :, 0]))
    rows: list[pd.DataFrame] = []
    for layer, states in enumerate(means[:, visited]):
        u, s, _ = np.linalg.svd(states - states.mean(0), full_matrices=False)
        signs = np.sign(u[np.abs(u).argmax(0), np.arange(u.shape[1])])  # the same picture each time
        places = (u * s * signs)[:, :2]
        rows.append(
            pd.DataFrame(
                {
                    "layer": layer,
                    "node": visited,
                    "word": [words[int(node)] for node in visited],
                    "x": places[:, 0],
                    "y": places[:, 1],
                }
            )
        )
    return pd.concat(rows, ignore_index=True)
