"""What is tried on a feature, beside random features, and the row of the table that comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from probes.errors import DoesNotApply, InputError
from probes.layers.measure import interval
from probes.registry import Measure
from probes.sae.estimator import SparseAutoencoder
from probes.sae.matched import Activity, matched_features
from probes.sae.splice import Where
from probes.stats import check_confidence

Array = NDArray[np.float64]
Tokens = Sequence[int]
MEASURES = {"ablate": "logprob_change", "steer": "up_tokens_logit"}
COLUMNS = (
    "feature", "mode", "strength", "measure", "value", "low", "high", "control_value", "control_low", "control_high",
    "difference", "difference_low", "difference_high", "n", "seed", "controls", "why",
)  # fmt: skip
PROMOTED = 10  # tokens by which steering is judged
_ANY = Measure("change", "Change", "", None, None, "none", "A change of any size.")


@dataclass(frozen=True)
class EffectOptions:
    """How effects are measured.

    Attributes:
        strengths: of steering, in multiples of what the feature adds where it is active, on average.
        controls: random features beside each; fewer make every interval of a difference wider, and cost less.
        steer_texts: steering changes every token, so this many texts are enough for it.
        keep_first, longest: which states are left alone, see `spliced`.
        max_length, batch_tokens: as `capture` has them.
    """

    strengths: tuple[float, ...] = (2.0,)
    controls: int = 8
    steer_texts: int = 32
    keep_first: bool = True
    longest: float | None = None
    max_length: int | None = None
    batch_tokens: int | None = None
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if self.controls < 2:
            raise InputError(
                f"{self.controls} controls: at least 2 are needed, to see how much random features differ"
            )
        if self.steer_texts < 1:
            raise InputError(f"{self.steer_texts} texts to steer: at least 1 is needed")


@dataclass(eq=False)
class Trial:
    """One feature under one edit.

    `directions` (1 + controls,): features, the own one first; `tokens`: what steering along each is judged by;
    `length`: added when steering, in units of the states; `found`: text -> changes (1 + controls, tokens).
    """

    feature: int
    mode: str
    strength: float | None
    length: float
    directions: NDArray[np.int64]
    tokens: Sequence[Tokens] = ()
    why: str | None = None
    found: dict[int, Array] = field(default_factory=dict[int, Array])

    def row(self, o: EffectOptions) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"feature": self.feature, "mode": self.mode, "strength": self.strength}
        row |= {"measure": MEASURES[self.mode], "n": 0, "seed": o.seed, "why": self.why}
        row["controls"] = max(0, len(self.directions) - 1)
        if not self.found:
            return row
        texts = sorted(self.found)
        changes = np.concatenate([self.found[text] for text in texts], axis=1)
        owner = np.repeat(texts, [self.found[text].shape[1] for text in texts])
        return {**row, **compared(changes, owner, o.confidence), "n": changes.shape[1]}


def compared(changes: Array, owner: NDArray[np.int64], confidence: float = 0.95) -> dict[str, Any]:
    """A feature's changes beside those of its controls: the columns value … difference_high of a row.

    changes (1 + controls, tokens): the own first; owner (tokens,): the text of each token. With c controls whose means
    spread by s, 95 % of random features lie within t · s · √(1 + 1/c) of the controls' mean, t of c − 1 degrees: that
    is control_low to control_high, and how far the difference may be off for a feature that is one of them. Where the
    feature's own mean is less sure over texts than theirs, what it is less sure by is added, in squares. So a feature
    drawn as the controls are is found different in 5 % of cases, however many tokens there are.

    >>> rng = np.random.default_rng(0)
    >>> own_means = rng.normal(size=(200, 9, 1))  # nine features alike, each measured without noise to speak of
    >>> owner = np.repeat(np.arange(10), 2)
    >>> rows = [compared(means + 0.01 * rng.normal(size=(9, 20)), owner) for means in own_means]
    >>> 2 <= sum(row["difference_low"] > 0 or row["difference_high"] < 0 for row in rows) <= 20
    True
    """
    means = changes.mean(1)
    ends = [
        interval(float(mean), (one - mean) / len(one), owner, _ANY, confidence)
        for one, mean in zip(changes, means, strict=True)
    ]
    found: dict[str, Any] = {"value": float(means[0]), "low": ends[0][0], "high": ends[0][1]}
    c = len(changes) - 1
    if c < 1:
        return found
    control = float(means[1:].mean())
    found |= {"control_value": control, "difference": found["value"] - control}
    halves = [(high - low) / 2 for low, high in ends if low is not None and high is not None]
    if c < 2 or len(halves) < len(ends):
        return found
    spread = float(stats.t.ppf(0.5 + confidence / 2, c - 1) * means[1:].std(ddof=1))
    spread *= float(np.sqrt(1 + 1 / c))
    unsure = float(max(0.0, halves[0] ** 2 - np.square(halves[1:]).mean()))
    half = float(np.sqrt(spread**2 + unsure))
    for name, middle, side in (
        ("control", control, spread),
        ("difference", found["difference"], half),
    ):
        found |= {f"{name}_low": middle - side, f"{name}_high": middle + side}
    return found


def trials_of(
    place: Where,
    sae: SparseAutoencoder,
    activity: Activity,
    features: Sequence[int],
    modes: Sequence[str],
    promoted: Mapping[int, Tokens] | None,
    o: EffectOptions,
) -> list[Trial]:
    """Every trial, with its controls: the same ones for all trials of a feature."""
    drawn = {f: _with_controls(activity, sae, f, o) for f in features}
    steered: dict[int, tuple[list[Tokens], str | None]] = {}
    if "steer" in modes:
        steered = _promoted_by(place, sae, {f: d for f, (d, _) in drawn.items()}, promoted)
    trials: list[Trial] = []
    for f in features:
        directions, why = drawn[f]
        if "ablate" in modes:
            trials.append(Trial(f, "ablate", None, 0.0, directions, (), why))
        if f in steered:
            tokens, none = steered[f]
            for strength in o.strengths:
                length = strength * float(activity.mean_active[f])
                trials.append(
                    Trial(
                        f, "steer", strength, length, directions[: len(tokens)], tokens, why or none
                    )
                )
    return trials


def _with_controls(
    activity: Activity, sae: SparseAutoencoder, feature: int, o: EffectOptions
) -> tuple[NDArray[np.int64], str | None]:
    """(1 + controls,) the feature and its controls, with the reason where there are none."""
    if not activity.density[feature] > 0:
        return np.zeros(0, np.int64), "active at no token of these texts"
    rng = np.random.default_rng((o.seed, 6, feature))
    try:
        others = matched_features(activity, sae.decoder_, feature, o.controls, rng)
    except DoesNotApply as reason:
        return np.asarray([feature]), str(reason)
    return np.concatenate([[feature], others]), None


def _promoted_by(
    place: Where,
    sae: SparseAutoencoder,
    directions: Mapping[int, NDArray[np.int64]],
    promoted: Mapping[int, Tokens] | None,
) -> dict[int, tuple[list[Tokens], str | None]]:
    """For each feature the tokens that its directions are judged by, and why there are none for its controls.

    A control is judged by its own promoted tokens, as many as the feature is judged by: on the feature's tokens, any
    other direction would lose, whatever the feature is.
    """
    from probes.sae.logit_weights import logit_weights

    for f in directions if promoted is not None else ():
        if promoted is not None and not len(promoted.get(f, ())):
            raise InputError(f"feature {f} has no promoted tokens: give one at least")
    wanted = np.unique(np.concatenate([[f, *d] for f, d in directions.items()])).astype(np.int64)
    sizes = {f: PROMOTED if promoted is None else len(promoted[f]) for f in directions}
    try:
        up = logit_weights(
            place.model, sae.decoder_[wanted], place.site, place.number, max(sizes.values())
        ).up
    except DoesNotApply as reason:
        if promoted is None:
            raise
        return {f: ([promoted[f]], f"no promoted tokens of controls: {reason}") for f in directions}
    rows: dict[int, list[int]] = dict(zip(wanted.tolist(), up.tolist(), strict=True))
    found: dict[int, tuple[list[Tokens], str | None]] = {}
    for f, chosen in directions.items():
        own: Tokens = rows[f] if promoted is None else promoted[f]
        found[f] = [own, *(rows[c][: sizes[f]] for c in chosen[1:].tolist())], None
    return found
