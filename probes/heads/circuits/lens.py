"""The logit lens on a task: at which layer the answer appears, and whether the last ones take it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from probes.capture.sites import Place
from probes.heads.circuits.draws import Draws
from probes.heads.circuits.passes import Batch, last_logits, numbers, places_of, read, split

if TYPE_CHECKING:
    from probes.heads.circuits.tasks import Task
    from probes.models import Model

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Lens:
    """Per pair and layer, all (n, layers + 1): log-probability of the answer (natural), its rank (1 = top), the logit
    difference, and whether the top token is an answer. Of several answers the probabilities add up, and the best rank
    counts; a tie counts against the answer.
    """

    logprob: Array
    rank: Array
    difference: Array
    top: Array

    def rows(self, draws: Draws) -> list[dict[str, Any]]:
        """One row per layer; `rank` is the median over pairs."""
        found: list[dict[str, Any]] = []
        own = {"logprob": self.logprob, "logit_difference": self.difference, "top1": self.top}
        columns = {name: draws.mean(values) for name, values in own.items()}
        for layer, rank in enumerate(np.median(self.rank, axis=0)):
            row: dict[str, Any] = {"layer": layer, "rank": float(rank)}
            for name, made in columns.items():
                row[name] = made[layer]["value"]
                row[f"{name}_low"], row[f"{name}_high"] = made[layer]["low"], made[layer]["high"]
            found.append({**row, "n": draws.n, "seed": draws.seed})
        return found

    def suppression(self, seed: int) -> dict[str, Any]:
        """Mean log-probability at the best earlier layer less that at the last, in nats; below 0 where that is best.

        Cross-fitted: the layer is the best one on half of the pairs, drawn by `seed`, and the difference is taken on
        the other half, both ways round, so that a layer that is highest by chance gains nothing. Interval: mean ± t ·
        standard error over pairs, 95 %. Paper: Lv et al. 2024 (arXiv 2403.19521).
        """
        n = len(self.logprob)
        order = np.random.default_rng(seed).permutation(n)
        lost = np.zeros(n)
        for chosen, judged in ((order[::2], order[1::2]), (order[1::2], order[::2])):
            layer = int(self.logprob[chosen, :-1].mean(axis=0).argmax())
            lost[judged] = self.logprob[judged, layer] - self.logprob[judged, -1]
        half = stats.t.ppf(0.975, n - 1) * lost.std(ddof=1) / np.sqrt(n)
        value = float(lost.mean())
        ends = {"low": value - float(half), "high": value + float(half)}
        return {"value": value, **ends, "n": n, "seed": seed}


def read_lens(model: Model, task: Task) -> Lens:
    """The residual stream of every layer through the final norm and the model's own head, on the clean prompts.

    Layer L is the model itself. Paper: nostalgebraist 2020. See also `probes.models.sentence_logprobs`.
    """
    n, layers = len(task), model.n_layers + 1
    lens = Lens(*(np.zeros((n, layers)) for _ in range(4)))
    places = places_of(model, ["resid_post"])
    for rows, batch in split(model, task):
        found = _layers(model, batch, places)
        kept = (lens.logprob, lens.rank, lens.difference, lens.top)
        for own, values in zip(kept, found, strict=True):
            own[list(rows)] = values
    return lens


def _layers(model: Model, batch: Batch, places: list[Place]) -> tuple[Array, ...]:
    states = read(model, batch, batch.clean, places).states
    number = torch.arange(len(batch.rows), device=model.device)
    stream = torch.stack([states[place][number, batch.last] for place in places], dim=1)

    def all_layers(final: Tensor) -> Tensor:
        early = model.structure.apply_tail(stream[:, :-1])
        return torch.cat([early, final], dim=1)

    with torch.no_grad():
        logits = last_logits(model, batch.clean, batch.last, all_layers)  # (n, layers + 1, V)
    difference = batch.difference(logits)
    normed = logits - logits.logsumexp(-1, keepdim=True)
    logprob, rank, top = (torch.zeros_like(difference) for _ in range(3))
    for i, row in enumerate(batch.rows):
        own = normed[i][:, list(row.answers)]  # (layers + 1, answers)
        logprob[i] = own.logsumexp(-1)
        best = own.amax(-1, keepdim=True)
        rivals = normed[i].clone()
        rivals[:, list(row.answers)] = -torch.inf
        rank[i] = 1 + (rivals >= best).sum(-1)
        top[i] = (rank[i] == 1).float()
    return tuple(numbers(found) for found in (logprob, rank, difference, top))
