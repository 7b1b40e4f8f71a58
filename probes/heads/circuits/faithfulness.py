"""How few heads do the task: the best heads of a ranking are kept, the others give their mean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.sites import Place
from probes.heads.ablation.ranking import HeadId, all_heads
from probes.heads.circuits.draws import Draws
from probes.heads.circuits.passes import (
    Batch,
    edit_tokens,
    last_logits,
    numbers,
    places_of,
    read,
    split,
)
from probes.heads.circuits.patching import require_gap

if TYPE_CHECKING:
    from probes.heads.circuits.tasks import Row, Task
    from probes.models import Model

Array = NDArray[np.floating[Any]]
Orders = list[list[HeadId]]  # of the heads, for each pair
Report = Callable[[int, int], None]
SHARES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FEWEST_ORDERS = 10  # random ones; every pair has its own
RANDOM = "random"
ABSOLUTE = ":absolute"  # rankings by size, whatever the sign


def head_ids(model: Model) -> list[HeadId]:
    """All heads of the model; `DoesNotApply` where a block has none."""
    places_of(model, ["z"])
    return all_heads(model)


def kept_counts(heads: int) -> list[int]:
    """How many heads are kept at each point of the curve: none, all, and shares between.

    >>> kept_counts(20)
    [0, 1, 2, 4, 10, 20]
    """
    return sorted({round(share * heads) for share in SHARES})


class HeadMeans:
    """Mean output of every head over the corrupted prompts of the same form and length, token by token.

    A prompt that is the only one of its form gets what its own corrupted prompt gives, the counterfactual ablation of
    MIB.
    """

    def __init__(self, model: Model, task: Task) -> None:
        self._sums: dict[tuple[str, int], list[Tensor]] = {}
        self._counts: dict[tuple[str, int], int] = {}
        places = places_of(model, ["z"])
        for _, batch in split(model, task):
            states = read(model, batch, batch.corrupted, places).states
            for i, row in enumerate(batch.rows):
                own = [states[place][i, : len(row.clean)] for place in places]
                self._add(_form(row), own)

    def _add(self, form: tuple[str, int], own: list[Tensor]) -> None:
        before = self._sums.get(form)
        self._sums[form] = (
            own if before is None else [a + b for a, b in zip(before, own, strict=True)]
        )
        self._counts[form] = self._counts.get(form, 0) + 1

    def of(self, batch: Batch) -> list[Tensor]:
        """Per block (n, T, head, d_head), zero at padding."""
        found: list[Tensor] = []
        width = batch.clean.shape[1]
        for block in range(len(self._sums[_form(batch.rows[0])])):
            own = [self._sums[_form(row)][block] / self._counts[_form(row)] for row in batch.rows]
            padded = [
                torch.nn.functional.pad(means, (0, 0, 0, 0, 0, width - len(means))) for means in own
            ]
            found.append(torch.stack(padded))
        return found


def _form(row: Row) -> tuple[str, int]:
    return row.pair.form, len(row.clean)


@contextlib.contextmanager
def _keeping(
    model: Model, ids: Tensor, kept: Sequence[frozenset[HeadId]], means: Sequence[Tensor]
) -> Generator[None]:
    """While the context lasts, heads that are not `kept` in a prompt give `means` (n, T, head, d_head per block)."""

    def edit(block: int) -> Callable[[Tensor], Tensor]:
        heads = torch.tensor(
            [[(block, h) in own for h in range(means[block].shape[2])] for own in kept],
            device=means[block].device,
        )

        def act(z: Tensor) -> Tensor:
            return torch.where(heads[:, None, :, None], z, means[block].to(z.dtype))

        return act

    with contextlib.ExitStack() as stack:
        for block in range(model.n_layers):
            stack.enter_context(edit_tokens(model, Place("z", block), ids, edit(block)))
        yield


@dataclass(frozen=True, eq=False)
class Curve:
    """Logit difference (n, points) with so many heads kept of a ranking; the last point is the whole model."""

    ranking: str
    kept: tuple[int, ...]
    values: Array

    def faithfulness(self, weights: Array) -> Array:
        """(m(kept) − m(none)) / (m(all) − m(none)) for mean differences m by `weights` (draws, n): (draws, points)."""
        means = weights @ self.values
        none, whole = means[:, :1], means[:, -1:]
        return (means - none) / (whole - none)

    def rows(self, draws: Draws) -> list[dict[str, Any]]:
        drawn, own = self.faithfulness(draws.weights), self.faithfulness(_even(draws.n))[0]
        return [
            {
                "ranking": self.ranking, "heads_kept": kept, "share": kept / self.kept[-1],
                **draws.of(float(own[i]), drawn[:, i]),
            }
            for i, kept in enumerate(self.kept)
        ]  # fmt: skip

    def areas(self, draws: Draws) -> dict[str, dict[str, Any]]:
        """`cpr`: area under the curve over the share of heads; `cmd`: area between it and 1 (trapezoids).

        As in MIB, `cpr` is that of a ranking by signed score (what helps comes first), `cmd` that of one by size (what
        matters comes first, whatever its sign). Random orders have both.
        """
        share = np.asarray(self.kept) / self.kept[-1]
        heights: dict[str, Callable[[Array], Array]] = {
            "cpr": lambda f: f,
            "cmd": lambda f: np.abs(1 - f),
        }
        if self.ranking != RANDOM:
            del heights["cpr" if self.ranking.endswith(ABSOLUTE) else "cmd"]
        found: dict[str, dict[str, Any]] = {}
        for name, height in heights.items():
            weights = np.concatenate([_even(draws.n), draws.weights])
            drawn = np.asarray(np.trapezoid(height(self.faithfulness(weights)), share, axis=1))
            found[name] = draws.of(float(drawn[0]), drawn[1:])
        return found


def _even(n: int) -> Array:
    return np.full((1, n), 1 / n)


def faithfulness_curves(
    model: Model,
    task: Task,
    scores: Mapping[str, Mapping[HeadId, float]],
    *,
    means_from: Task | None = None,
    seed: int = 0,
    report: Report = lambda done, total: None,
) -> list[Curve]:
    """The logit difference on clean prompts with the first heads of a ranking kept, for several rankings.

    Every one of `scores` gives two: by signed score, the heads that help first, under its own name, and by size of the
    score with ":absolute" behind the name. Heads that are not kept give their mean over the corrupted prompts of the
    same form (of `means_from`, `task` by default), token by token; MLPs stay intact. The control "random" has another
    order for each pair (ten orders at least, the mean of several where there are fewer pairs), so that intervals over
    pairs are over orders too. Rank the heads on other pairs than these, or the curve flatters its ranking.

    Raises `DoesNotApply` where the model without its heads does the task as well as with them. Paper: Mueller et al.
    2025 (MIB, arXiv 2504.13151), there over edges or heads and MLPs.
    """
    heads = head_ids(model)
    counts = kept_counts(len(heads))
    orders: dict[str, list[Orders]] = {}
    for name, own in scores.items():
        orders[name] = [[sorted(heads, key=lambda h: -own[h])] * len(task)]
        orders[name + ABSOLUTE] = [[sorted(heads, key=lambda h: -abs(own[h]))] * len(task)]
    rng = np.random.default_rng(seed)
    orders[RANDOM] = [
        [[heads[int(i)] for i in rng.permutation(len(heads))] for _ in task.rows]
        for _ in range(-(-FEWEST_ORDERS // len(task)))
    ]
    means = HeadMeans(model, means_from or task)
    parts = [(rows, batch, means.of(batch)) for rows, batch in split(model, task)]
    total = len(parts) * (2 + (len(counts) - 2) * sum(map(len, orders.values())))
    done = 0

    def run(order: Orders, k: int) -> Array:
        nonlocal done
        found = np.zeros(len(task))
        for rows, batch, own in parts:
            report(done, total)
            done += 1
            kept = [frozenset(order[i][:k]) for i in rows]
            with torch.no_grad(), _keeping(model, batch.clean, kept, own):
                logits = last_logits(model, batch.clean, batch.last)[:, 0]
            found[list(rows)] = numbers(batch.difference(logits))
        return found

    ends = run([heads] * len(task), 0), run([heads] * len(task), len(heads))
    what = "the logit difference with all heads and with their means only"
    require_gap(ends[1] - ends[0], Draws.make(len(task), 1000, seed), what)
    curves: list[Curve] = []
    for name, some in orders.items():
        inner = [np.mean([run(order, k) for order in some], axis=0) for k in counts[1:-1]]
        curves.append(Curve(name, tuple(counts), np.stack([ends[0], *inner, ends[1]], axis=1)))
    return curves
