"""Random walks on small graphs of words: the texts whose graph a model may pick up from context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError, unknown_name
from probes.models import Model

IntArray = NDArray[np.integer[Any]]
Shape = Literal["grid", "ring"]
SHAPES: tuple[Shape, ...] = ("grid", "ring")
WORDS = (
    "apple", "bird", "fish", "cat", "dog", "tree", "house", "river", "stone", "sun", "moon", "king", "queen",
    "gold", "iron", "wood", "glass", "city", "road", "night", "sand", "plane", "math", "rock", "ship", "milk",
    "box", "book", "car", "door", "chair", "phone", "table", "bread", "horse", "bridge", "paper", "window",
    "garden", "money",
)  # fmt: skip
_DRAWS = 50


@dataclass(frozen=True)
class Graph:
    """Nodes 0…n-1, named by `words`, and undirected edges (e, 2)."""

    words: tuple[str, ...]
    edges: IntArray

    @property
    def neighbours(self) -> list[IntArray]:
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        return [both[both[:, 0] == node, 1] for node in range(len(self.words))]


def graph_edges(shape: Shape, nodes: int) -> IntArray:
    """Edges (e, 2) of a square grid or a ring of `nodes` nodes.

    >>> graph_edges("ring", 4).tolist()
    [[0, 1], [1, 2], [2, 3], [3, 0]]
    >>> len(graph_edges("grid", 16))
    24
    """
    if shape not in SHAPES:
        raise unknown_name("graph", shape, SHAPES)
    if nodes < 4:
        raise InputError(f"{nodes} nodes: 4 or more are needed")
    if shape == "ring":
        return np.asarray([(node, (node + 1) % nodes) for node in range(nodes)])
    side = round(nodes**0.5)
    if side * side != nodes:
        raise InputError(
            f"a square grid has no {nodes} nodes: take {side * side} or {(side + 1) ** 2}"
        )
    right = [(n, n + 1) for n in range(nodes) if (n + 1) % side]
    down = [(n, n + side) for n in range(nodes - side)]
    return np.asarray(right + down)


def single_tokens(model: Model, words: Sequence[str], needed: int) -> dict[str, int]:
    """The words that are one token of the model's behind a space, with that token; `needed` of them.

    Raises `DoesNotApply` where there are fewer.
    """
    tokenizer = model.require_tokenizer()
    found: dict[str, int] = {}
    for word in words:
        ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        known = len(ids) == 1 and ids[0] != getattr(tokenizer, "unk_token_id", None)
        if known and ids[0] not in found.values():
            found[word] = int(ids[0])
    if len(found) < needed:
        raise DoesNotApply(
            f"{len(found)} of {len(words)} words are one token of {model.name}, {needed} are needed: give other words="
        )
    return dict(list(found.items())[:needed])


def random_walk(graph: Graph, length: int, rng: np.random.Generator) -> IntArray:
    """Node numbers (length,) of a walk to a random neighbour each time.

    It begins at a node with a probability in proportion to its neighbours, as it visits nodes in the long run: all
    parts of a walk are alike.
    """
    neighbours = graph.neighbours
    walk = np.empty(length, np.int64)
    walk[0] = rng.choice(graph.edges.ravel())
    for step in range(1, length):
        walk[step] = rng.choice(neighbours[walk[step - 1]])
    return walk


def rewired(graph: Graph, rng: np.random.Generator) -> IntArray:
    """Another order (n,) of the nodes: words change places with words that have as many neighbours.

    Of some draws the one that keeps the fewest edges: most of the graph is another, while how often a walk visits
    each word stays as it is.

    >>> ring = Graph(tuple("abcdefgh"), graph_edges("ring", 8))
    >>> order = rewired(ring, np.random.default_rng(0))
    >>> sorted(order.tolist()) == list(range(8)), shared_edges(ring.edges, order) < 3
    (True, True)
    """
    degrees = np.bincount(graph.edges.ravel(), minlength=len(graph.words))
    orders: list[IntArray] = []
    for _ in range(_DRAWS):
        order = np.arange(len(degrees))
        for degree in np.unique(degrees):
            alike = np.flatnonzero(degrees == degree)
            order[alike] = rng.permutation(alike)
        orders.append(order)
    return min(orders, key=lambda order: shared_edges(graph.edges, order))


def shared_edges(edges: IntArray, order: IntArray) -> int:
    """How many edges are edges still when node order[i] takes the place of node i."""
    known = {frozenset(edge) for edge in edges.tolist()}
    return sum(frozenset(edge) in known for edge in order[edges].tolist())
