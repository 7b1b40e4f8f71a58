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
from probes.heads.flow.energy import energy_table, node_means
from probes.heads.flow.walks import (
    WORDS,
    Graph,
    Shape,
    graph_edges,
    random_walk,
    rewired,
    single_tokens,
)
from probes.models import Model
from probes.models.selfcheck import collecting_layers

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BUFFER = 8  # tokens before the window that the control shares with the walk


@dataclass(frozen=True)
class GraphEnergy:
    """`energy`: one row per layer, context length and variant; `nodes`: layer, node, word, x, y; `edges`: a, b."""

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
    walks: int = 12,
    window: int = 50,
    permutations: int = 200,
    seed: int = 0,
) -> GraphEnergy:
    """Dirichlet energy of word states on the graph whose random walks are the context, per layer and context length.

    The context is a walk of words on a `grid` or `ring` of `nodes` nodes; each walk puts the words on the nodes
    anew, so that what the words mean does not count. A node's state is the mean over its occurrences among the last
    `window` tokens of the context, after k blocks; the first token, whose state is unlike all others, is never among
    them, so that the window is at most the shortest context less one.
    `energy` is the mean of ‖h_i − h_j‖² over edges divided by that over all pairs, which is its expectation when nodes
    are permuted: 1 where the graph leaves no trace, below 1 where neighbours lie together. Intervals are mean ± t ·
    standard error over walks, 95 %; `permuted` has the same for permuted nodes, with the central 95 % of
    `permutations` draws. Coordinates x, y of `nodes` are the first two principal components of the node means of
    one walk, over the second half of the longest context.

    Neighbours in the graph are neighbours in time too, so that positions and any mixing of nearby tokens, even by an
    untrained model, bring them together. Rows of the variant "rewired" are the control: the very same window at the
    same positions (with 8 tokens before it), but the context before that is the walk with words exchanged among nodes
    of as many neighbours, which tells of another graph. Permuted nodes do not keep this. `difference`, energy less
    that of the control, paired by walk, is what the context has taught; its bounds hold for all layers together with
    95 %. Both are known for the longest context, where it is longer than the window and those 8 tokens.

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
    window = min(window, lengths[0] - 1)
    kept = longest - window - BUFFER  # tokens before it are rewired in the control
    control: list[FloatArray] = []
    picture = pd.DataFrame()
    for number in range(walks):
        placed = tuple(str(word) for word in rng.permutation(list(tokens)))
        drawn = Graph(placed, edges)
        walk = random_walk(drawn, longest, rng)
        ids = np.asarray([tokens[word] for word in placed])
        states = _states(model, ids[walk])
        for length in lengths:
            seen = slice(length - window, length)
            means[length].append(node_means(states[:, seen], walk[seen], nodes))
        if kept > 0:
            other = walk.copy()
            other[:kept] = rewired(drawn, rng)[walk[:kept]]
            seen = slice(longest - window, longest)
            beside = _states(model, ids[other])
            control.append(node_means(beside[:, seen], walk[seen], nodes))
        if number == 0:
            late = slice(longest // 2, None)
            picture = _node_table(node_means(states[:, late], walk[late], nodes), placed)
    found = {longest: control} if control else None
    energy = energy_table(means, edges, permutations, seed, found)
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
