"""What features do in a live model: ablated and steered, beside what random features of the same size do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.capture.batching import Batch
from probes.capture.observe import Reading
from probes.capture.progress import Report
from probes.errors import InputError, unknown_name
from probes.layers.measure import interval
from probes.models.completions import require_language_model
from probes.registry import Measure
from probes.sae.edits import ablate_feature, check_feature, steer_feature
from probes.sae.estimator import SparseAutoencoder
from probes.sae.live import LiveAutoencoder
from probes.sae.matched import Activity, feature_activity, matched_features
from probes.sae.passes import Passes
from probes.sae.splice import Where
from probes.sae.tokens import Seen
from probes.stats import check_confidence
from probes.tables import typed

if TYPE_CHECKING:
    from probes.models import Model

__all__ = [
    "COLUMNS",
    "EffectOptions",
    "ablate_feature",
    "feature_effects",
    "steer_feature",
]
Array = NDArray[np.float64]
MEASURES = {"ablate": "logprob_change", "steer": "up_tokens_logit"}
COLUMNS = (
    "feature", "mode", "strength", "measure", "value", "low", "high", "control_value", "control_low", "control_high",
    "difference", "difference_low", "difference_high", "n", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class EffectOptions:
    """How effects are measured.

    Attributes:
        strengths: of steering, in multiples of what the feature adds where it is active, on average.
        controls: random features beside each, whose mean is the control.
        steer_texts: steering changes every token, so this many texts are enough for it.
        keep_first, longest: which states are left alone, see `spliced`.
        max_length, batch_tokens: as `capture` has them.
    """

    strengths: tuple[float, ...] = (2.0,)
    controls: int = 3
    steer_texts: int = 32
    keep_first: bool = True
    longest: float | None = None
    max_length: int | None = None
    batch_tokens: int | None = None
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.controls < 1 or self.steer_texts < 1:
            raise InputError(
                f"{self.controls} controls and {self.steer_texts} texts: at least 1 of each is needed"
            )


def feature_effects(
    model: Model,
    sae: SparseAutoencoder,
    texts: Sequence[str],
    site: str,
    layer: int,
    features: Sequence[int],
    *,
    modes: Sequence[str] = ("ablate", "steer"),
    promoted: Mapping[int, Sequence[int]] | None = None,
    options: EffectOptions | None = None,
    progress: bool | Report = False,
) -> pd.DataFrame:
    """What ablating and steering each of `features` does to the model's predictions, beside random features.

    Rows of mode "ablate", measure `logprob_change`: the change in nats of the log-probability of the next token, after
    tokens where the feature is active and is taken away (null strength; negative: the feature helps to predict). Mode
    "steer", `up_tokens_logit`: how much the mean logit of the feature's promoted tokens rises over the mean of all
    logits, when the feature is added to every token with a strength of `options.strengths`.

    The control is a random living feature of about equal density and activation (see `matched_features`), the mean of
    `options.controls` of them: the same lengths, in units of the states, are taken away or added at the same tokens
    along its direction in place of the feature's. `difference` is value − control_value, paired by token.

    Parameters
    ----------
    texts : ones that the autoencoder was not trained on. layer : a block for the sites of a block.
    promoted : feature -> token ids that steering is judged by; None: the ten of `logit_weights`.
    progress : a bar, or called with (texts done, texts).

    Returns a DataFrame with the columns `COLUMNS`. Intervals: mean ± t · standard error over texts (tokens of a text
    are one draw), for these controls; null for fewer than three texts. n is the number of tokens; with 0 there is no
    value. Passes begin at the layer, and ablation runs only the texts in which the feature is active.

    Raises what `loss_recovered` raises, `InputError` for features and modes that do not exist and where too few others
    are alive, and without `promoted` what `logit_weights` raises.
    """
    require_language_model(model)
    o = options or EffectOptions()
    chosen = [check_feature(sae, one) for one in dict.fromkeys(features)]
    if not chosen:
        raise InputError("no feature was asked for: name at least one")
    for mode in modes:
        if mode not in MEASURES:
            raise unknown_name("mode", mode, MEASURES)
    reading = Reading.of(
        model, texts, max_length=o.max_length, special_tokens=False, batch_tokens=o.batch_tokens
    )
    place = Where(model, site, layer, o.keep_first)
    activity = feature_activity(replace(place, longest=o.longest), sae, reading)
    trials = _trials(model, sae, place, activity, chosen, modes, promoted, o)
    coder = LiveAutoencoder.of(sae, model.device)
    reading.run(
        lambda batch: _Tried(place, coder, batch, chosen, o.longest).all(trials, o), progress
    )
    return typed(
        pd.DataFrame([t.row(o) for t in trials], columns=list(COLUMNS), dtype=object),
        integers=("feature", "n", "seed"),
        words=("mode", "measure"),
    )


@dataclass(eq=False)
class _Trial:
    """One feature under one edit. `found`: text -> changes (1 + controls, tokens), the feature's own first."""

    feature: int
    mode: str
    strength: float | None
    length: float  # added when steering, in units of the states
    directions: NDArray[np.int64]  # (1 + controls,) features
    promoted: Sequence[int] = ()
    found: dict[int, Array] = field(default_factory=dict[int, Array])

    def row(self, o: EffectOptions) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"feature": self.feature, "mode": self.mode, "strength": self.strength}
        row |= {"measure": MEASURES[self.mode], "n": 0, "seed": o.seed}
        if not self.found:
            return row
        texts = sorted(self.found)
        changes = np.concatenate([self.found[text] for text in texts], axis=1)
        owner = np.repeat(texts, [self.found[text].shape[1] for text in texts])
        control = changes[1:].mean(0)
        for name, values in (
            ("", changes[0]),
            ("control_", control),
            ("difference_", changes[0] - control),
        ):
            value = float(values.mean())
            ends = interval(value, (values - value) / len(values), owner, _ANY, o.confidence)
            row["difference" if name == "difference_" else f"{name}value"] = value
            row[f"{name}low"], row[f"{name}high"] = ends
        return {**row, "n": changes.shape[1]}


_ANY = Measure("change", "Change", "", None, None, "none", "A change of any size.")


def _trials(
    model: Model,
    sae: SparseAutoencoder,
    place: Where,
    activity: Activity,
    features: Sequence[int],
    modes: Sequence[str],
    promoted: Mapping[int, Sequence[int]] | None,
    o: EffectOptions,
) -> list[_Trial]:
    """Every trial, with its controls: the same ones for all trials of a feature."""
    if "steer" in modes and promoted is None:
        from probes.sae.logit_weights import logit_weights

        up = logit_weights(model, sae.decoder_[features], place.site, place.number).up
        promoted = dict(zip(features, up.tolist(), strict=True))
    trials: list[_Trial] = []
    for feature in features:
        if not activity.density[feature] > 0:
            directions = np.zeros(0, np.int64)  # never active here: there is nothing to try
        else:
            rng = np.random.default_rng((o.seed, 6, feature))
            others = matched_features(activity, sae.decoder_, feature, o.controls, rng)
            directions = np.concatenate([[feature], others])
        if "ablate" in modes:
            trials.append(_Trial(feature, "ablate", None, 0.0, directions))
        if "steer" in modes and promoted is not None:
            tokens = promoted.get(feature, ())
            if not len(tokens):
                raise InputError(f"feature {feature} has no promoted tokens: give one at least")
            for strength in o.strengths:
                length = strength * float(activity.mean_active[feature])
                trials.append(_Trial(feature, "steer", strength, length, directions, tokens))
    return trials


class _Tried:
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

    def all(self, trials: Sequence[_Trial], o: EffectOptions) -> None:
        few = torch.from_numpy(self.passes.batch.rows < o.steer_texts).nonzero()[:, 0]
        steered = [t for t in trials if t.mode == "steer" and len(t.directions)]
        if len(few) and steered:
            few_here = few.to(self.edited.device)
            part, edited = self.passes.rows(few), self.edited[few_here]
            plain = _promoted(part, part.clean, [t.promoted for t in steered])
            for i, trial in enumerate(steered):
                amounts = trial.length * self.ordinary[few_here]
                self._try(trial, part, edited, amounts, plain[i])
        for trial in trials:
            if trial.mode == "ablate" and len(trial.directions):
                amounts = -self.lengths[..., self.column[trial.feature]]
                rows = (amounts != 0).any(1).nonzero()[:, 0]
                if len(rows):
                    part = self.passes.rows(rows.cpu())
                    self._try(trial, part, self.edited[rows], amounts[rows], None)

    def _try(
        self, trial: _Trial, passes: Passes, edited: Tensor, amounts: Tensor, plain: Tensor | None
    ) -> None:
        """All directions of a trial, with `amounts` (batch, token) added at each token that is `edited`."""
        scored = passes.scored
        at = (scored.row.to(amounts.device), scored.token.to(amounts.device) - 1)
        counted = ((amounts[at] != 0) & edited[at]).cpu()  # what is predicted right after an edit
        if not bool(counted.any()):
            return
        before = plain[counted] if plain is not None else passes.logprobs(passes.clean, counted)
        flat = amounts[edited][:, None]
        changes: list[Tensor] = []
        for direction in trial.directions.tolist():
            row = self.coder.weights["decoder"][direction]
            last = passes.under(self.place.editing(lambda states, row=row: states + flat * row))
            if plain is None:
                after = passes.logprobs(last, counted)
            else:
                after = _promoted(passes, last, [trial.promoted], counted)[0]
            changes.append(after - before)
        found, owner = torch.stack(changes).double().numpy(), scored.row[counted].numpy()
        for i in np.unique(owner).tolist():
            trial.found[int(passes.batch.rows[i])] = found[:, owner == i]


def _edited(place: Where, batch: Batch) -> Tensor:
    """Which tokens of a batch an edit changes, (batch, token) on the model's device."""
    mask = batch.inputs["attention_mask"]
    seen = Seen(mask=mask)
    return seen.chosen((mask.shape[0], mask.shape[1]), place.keep_first).to(place.model.device)


def _promoted(
    passes: Passes, last: Tensor, tokens: Sequence[Sequence[int]], chosen: Tensor | None = None
) -> Tensor:
    """Mean logit of each of the sets of `tokens` less the mean of all logits: (sets, m) float64."""

    def read(logits: Tensor, _which: slice) -> Tensor:
        everything = logits.mean(1)
        found = [logits[:, list(one)].mean(1) - everything for one in tokens]
        return torch.stack(found, 1).double()

    return passes.read(last, read, chosen).T
