"""What heads put out on positive and negative prompts of a task, and tasks whose negatives lack what the task needs."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError, unknown_name
from probes.heads.circuits import SOURCES, Pair, Task, build_task, make_task
from probes.heads.circuits import words as w
from probes.heads.circuits.passes import numbers, places_of, read, split

if TYPE_CHECKING:
    from probes.models import Model

Array = NDArray[np.floating[Any]]
CIRCUIT_TASKS = ("ioi", "greater_than", "docstring")
POSITIONS = ("last", "all")


@dataclass(frozen=True, eq=False)
class HeadOutputs:
    """z of all heads: `values` (rows, H, d_head), of which row belongs to a pair and to one of its two prompts."""

    values: Array
    pair: NDArray[np.int64]  # (rows,)
    positive: NDArray[np.bool_]  # (rows,)
    heads: NDArray[np.int64]  # (H, 2) block and head

    @property
    def n_pairs(self) -> int:
        return int(self.pair.max()) + 1

    def part(self, pairs: NDArray[np.int64]) -> HeadOutputs:
        """The rows of some of the pairs."""
        kept = np.isin(self.pair, pairs)
        return HeadOutputs(self.values[kept], self.pair[kept], self.positive[kept], self.heads)


def head_outputs(model: Model, task: Task, positions: str = "last") -> HeadOutputs:
    """z of every head on clean (positive) and corrupted prompts, at the last token of each or at all.

    Raises `DoesNotApply` where the model has no heads, or heads of different widths.
    """
    if positions not in POSITIONS:
        raise unknown_name("positions", positions, POSITIONS)
    places = places_of(model, ["z"])
    found: list[tuple[int, bool, Array]] = []
    sizes: list[int] = []
    for rows, batch in split(model, task):
        for side, ids in ((True, batch.clean), (False, batch.corrupted)):
            states = read(model, batch, ids, places).states
            per_block = [numbers(states[place]).astype(np.float32) for place in places]
            if len({z.shape[-1] for z in per_block}) > 1:
                raise DoesNotApply(
                    f"heads of {model.name} differ in width: no autoencoder fits all"
                )
            sizes = [z.shape[2] for z in per_block]
            z = np.concatenate(per_block, axis=2)  # (n, T, H, d_head)
            for i, (row, last) in enumerate(zip(rows, batch.last.tolist(), strict=True)):
                first = last if positions == "last" else 0
                found.append((row, side, z[i, first : last + 1]))
    heads = [(place.number, h) for place, n in zip(places, sizes, strict=True) for h in range(n)]
    lengths = [len(values) for _, _, values in found]
    return HeadOutputs(
        np.concatenate([values for _, _, values in found]),
        np.repeat([row for row, _, _ in found], lengths),
        np.repeat([side for _, side, _ in found], lengths),
        np.array(heads),
    )


def circuit_task(model: Model, name: str, n: int = 80, seed: int = 0) -> Task:
    """A built-in task whose corrupted prompts are negatives: nothing in them calls for the task.

    That holds for all built-in ones but "ioi", whose corrupted prompts are indirect objects again, with the names
    exchanged: codes of one set would be those of the other. Here a third name gives instead (Wang et al. 2022). Up to
    `n` pairs. Raises as `build_task`.
    """
    if name != "ioi":
        return build_task(model, name, n, seed)
    if n < 1:
        raise InputError(f"{n} pairs: at least one is needed")
    rng = np.random.default_rng((seed, 12))
    drawn = SOURCES["ioi"].draw(np.random.default_rng(seed), lambda words: list(words))
    made = make_task(model, "ioi", [third_gives(pair, rng) for pair in islice(drawn, 4 * n)])
    return made.part(range(min(n, len(made))))


def third_gives(pair: Pair, rng: np.random.Generator) -> Pair:
    """The pair with a name in place of the giver's, in the corrupted prompt, that occurs nowhere in it."""
    clean, corrupted = pair.clean.split(" "), pair.corrupted.split(" ")
    (place,) = (i for i, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b)
    others = [name for name in w.NAMES if name not in (clean[place], corrupted[place])]
    corrupted[place] = others[int(rng.integers(len(others)))]
    return Pair(pair.clean, " ".join(corrupted), pair.answers, pair.wrongs, pair.form)
