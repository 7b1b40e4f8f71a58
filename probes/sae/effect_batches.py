"""One batch of texts as it is and under each edit of a trial."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from probes.capture.batching import Batch
from probes.sae.effect_trials import EffectOptions, Tokens, Trial
from probes.sae.live import LiveAutoencoder
from probes.sae.passes import Passes
from probes.sae.splice import Where
from probes.sae.tokens import Seen


class Tried:
    """One batch, as it is and under each trial."""

    def __init__(
        self,
        place: Where,
        coder: LiveAutoencoder,
        batch: Batch,
        features: Sequence[int],
        longest: float | None,
    ) -> None:
        self.place, self.coder = place, coder
        self.column = {feature: i for i, feature in enumerate(features)}
        states: list[Tensor] = []

        def look(found: Tensor) -> Tensor:
            states.append(found)
            return found

        self.passes = Passes.of(place.model, batch, place.number, place.editing(look))
        self.edited = _edited(place, batch)  # (batch, token)
        self.lengths = torch.zeros(*self.edited.shape, len(features), device=place.model.device)
        self.ordinary = torch.zeros_like(
            self.lengths[..., 0]
        )  # (batch, token), 0 where nothing is added
        if states:
            ordinary = torch.linalg.vector_norm(states[0], dim=1) <= (longest or math.inf)
            self.ordinary[self.edited] = ordinary.float()
            self.lengths[self.edited] = coder.activations(states[0], features) * ordinary[:, None]

    def all(self, trials: Sequence[Trial], o: EffectOptions) -> None:
        self._steer([t for t in trials if t.mode == "steer" and len(t.directions)], o)
        for trial in trials:
            if trial.mode == "ablate" and len(trial.directions):
                amounts = -self.lengths[..., self.column[trial.feature]]
                rows = (amounts != 0).any(1).nonzero()[:, 0]
                if len(rows):
                    part = self.passes.rows(rows.cpu())
                    self._try(trial, part, self.edited[rows], amounts[rows], None)

    def _steer(self, trials: Sequence[Trial], o: EffectOptions) -> None:
        few = torch.from_numpy(self.passes.batch.rows < o.steer_texts).nonzero()[:, 0]
        if not len(few) or not trials:
            return
        here = few.to(self.edited.device)
        part, edited = self.passes.rows(few), self.edited[here]
        sets = list(dict.fromkeys(tuple(one) for trial in trials for one in trial.tokens))
        plain = dict(zip(sets, _promoted(part, part.clean, sets), strict=True))
        for trial in trials:
            before = torch.stack([plain[tuple(one)] for one in trial.tokens])
            self._try(trial, part, edited, trial.length * self.ordinary[here], before)

    def _try(
        self, trial: Trial, passes: Passes, edited: Tensor, amounts: Tensor, plain: Tensor | None
    ) -> None:
        """All directions of a trial, with `amounts` (batch, token) added at each token that is `edited`.

        `plain` (directions, m): what steering is compared with; None for ablation, judged by log-probabilities.
        """
        scored = passes.scored
        at = (scored.row.to(amounts.device), scored.token.to(amounts.device) - 1)
        counted = ((amounts[at] != 0) & edited[at]).cpu()  # what is predicted right after an edit
        if not bool(counted.any()):
            return
        flat = amounts[edited][:, None]
        before = passes.logprobs(passes.clean, counted) if plain is None else plain[:, counted]
        changes: list[Tensor] = []
        for i, direction in enumerate(trial.directions.tolist()):
            row = self.coder.direction(direction)
            last = passes.under(self.place.editing(lambda states, row=row: states + flat * row))
            if plain is None:
                changes.append(passes.logprobs(last, counted) - before)
            else:
                changes.append(_promoted(passes, last, [trial.tokens[i]], counted)[0] - before[i])
        found, owner = torch.stack(changes).double().numpy(), scored.row[counted].numpy()
        for i in np.unique(owner).tolist():
            trial.found[int(passes.batch.rows[i])] = found[:, owner == i]


def _edited(place: Where, batch: Batch) -> Tensor:
    """Which tokens of a batch an edit changes, (batch, token) on the model's device."""
    mask = batch.inputs["attention_mask"]
    seen = Seen(mask=mask)
    return seen.chosen((mask.shape[0], mask.shape[1]), place.keep_first).to(place.model.device)


def _promoted(
    passes: Passes, last: Tensor, tokens: Sequence[Tokens], chosen: Tensor | None = None
) -> Tensor:
    """Mean logit of each of the sets of `tokens` less the mean of all logits: (sets, m) float64."""

    def read(logits: Tensor, _which: slice) -> Tensor:
        everything = logits.mean(1)
        found = [logits[:, list(one)].mean(1) - everything for one in tokens]
        return torch.stack(found, 1).double()

    return passes.read(last, read, chosen).T
