"""Does the model use what a probe reads? Its preference for true completions, with the concept erased or added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from probes.erasure.eraser import Eraser, FloatArray, random_eraser
from probes.erasure.hook import Positions, erase, steer
from probes.erasure.leace import LeaceFitter
from probes.erasure.resume import Edit, Resumed
from probes.erasure.statements import CompletionPairs
from probes.errors import InputError
from probes.linalg import check_matrix
from probes.stats import check_confidence, percentile_interval

if TYPE_CHECKING:
    from probes.models import Model

COLUMNS = (
    "layer",
    "treatment",
    "strength",
    "rank",
    "value",
    "low",
    "high",
    "n",
    "draws",
    "concept",
    "against",
    "effect",
    "effect_low",
    "effect_high",
    "over_random",
    "over_random_low",
    "over_random_high",
)


@dataclass(frozen=True)
class CausalOptions:
    """How preferences are read and intervals drawn; `draws` random controls each, `resamples` bootstrap samples.

    `positions`: "all" edits every token of prompt and completion, "last" the prompt's last token only.
    """

    draws: int = 10
    seed: int = 0
    positions: Positions = "all"
    confidence: float = 0.95
    resamples: int = 1000
    per_token: bool = False
    batch_tokens: int = 2048


@dataclass(frozen=True)
class _Treatment:
    """Edits under one name: one of them, or the draws of a random control."""

    layer: int
    name: str
    edits: Sequence[Edit]
    strength: float | None = None
    rank: int | None = None
    against: str | None = None  # whose control it is


def causal_effect(
    model: Model,
    pairs: CompletionPairs,
    *,
    erasers: Mapping[int, Eraser | Sequence[Eraser]] | None = None,
    directions: Mapping[int, Any] | None = None,
    states: Mapping[int, Any] | None = None,
    strengths: Sequence[float] = (1.0,),
    concept: str | None = None,
    options: CausalOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Mean log-probability of true minus false completions under each edit of the residual stream.

    Parameters
    ----------
    pairs : see `statement_pairs`. Fit erasers and directions on other rows than these.
    erasers : layer -> the erasers to try there. Each gets `draws` random erasers of the same rank as its control:
    orthogonal ones about the same mean, or, for LEACE with `states` (layer -> the (n, d) states it was fitted on),
    oblique ones of the same kind (`LeaceFitter.random_eraser`).
    directions : layer -> (d,) added with each of `strengths`; its control are random directions of the same norm.
    progress : called with (passes done, passes).

    Returns a DataFrame with one row per layer, treatment and strength. treatment : none, leace, inlp, random, steer,
    steer-random. value : the mean preference in nats, with its interval (bootstrap over pairs, whole groups, the
    same resamples for every row; random controls also over draws). effect : value minus that of `none`, paired;
    negative: the edit weakens the model's preference for the truth. against : what a random row is the control of.
    over_random : the treatment's value minus that of its own control, paired by pair (null for `none` and controls).

    An effect counts only beyond that of its control: erasing anything does some harm, so judge by `over_random`.
    Raises `DoesNotApply` for models without a language-model head, `InputError` where nothing is to be done. Papers:
    Elazar et al. 2021 (amnesic probing, arXiv 2006.00995); Marks & Tegmark 2023 (arXiv 2310.06824).
    """
    from probes.models.completions import require_language_model

    o = options or CausalOptions()
    check_confidence(o.confidence)
    require_language_model(model)
    if o.draws < 1 or o.resamples < 100:
        raise InputError(
            f"{o.draws} draws and {o.resamples} resamples: at least 1 and 100 are needed"
        )
    rng = np.random.default_rng(o.seed)
    treatments = _eraser_treatments(model, erasers or {}, states, o, rng)
    treatments += _steer_treatments(model, directions or {}, strengths, o, rng)
    if not treatments:
        raise InputError("nothing to try: give erasers or directions for at least one layer")
    layers = sorted({treatment.layer for treatment, _ in treatments})
    passes = len(layers) + sum(1 + len(control.edits) for _, control in treatments)
    done = 0

    def measure(edit: Edit) -> FloatArray:
        nonlocal done
        found = preferences(model, pairs, o, edit)
        done += 1
        if progress is not None:
            progress(done, passes)
        return found

    resampled = _Resampled(pairs, o)
    rows: list[dict[str, Any]] = []
    for layer in layers:
        resumed = Resumed(model, layer)
        untouched = measure(resumed.recorded)[None]
        rows.append(resampled.row(_Treatment(layer, "none", ()), untouched, untouched))
        for treatment, control in (both for both in treatments if both[0].layer == layer):
            found = measure(resumed.under(treatment.edits[0]))[None]  # (1, pair)
            random = np.stack([measure(resumed.under(e)) for e in control.edits])  # (draw, pair)
            rows.append(resampled.row(treatment, found, untouched, random))
            rows.append(resampled.row(control, random, untouched))
    frame = pd.DataFrame([{**row, "concept": concept} for row in rows], columns=list(COLUMNS))
    types = {"strength": "Float64", "rank": "Int64", "against": "string", "concept": "string"}
    return frame.astype(types)


def preferences(
    model: Model, pairs: CompletionPairs, options: CausalOptions, edit: Edit | None = None
) -> FloatArray:
    """Log-probability of the true minus the false completion of every pair, (n,), under an edit."""
    from probes.models.completions import completion_logprobs

    found = completion_logprobs(
        model,
        pairs.prompts + pairs.prompts,
        pairs.true + pairs.false,
        batch_tokens=options.batch_tokens,
        per_token=options.per_token,
        edit=edit,
    )
    return found[: len(pairs)] - found[len(pairs) :]


class _Resampled:
    """Bootstrap weights of the pairs, the same for every treatment."""

    def __init__(self, pairs: CompletionPairs, options: CausalOptions) -> None:
        rng = np.random.default_rng([options.seed, 1])
        groups = np.arange(len(pairs)) if pairs.groups is None else pairs.groups
        code = np.unique(groups, return_inverse=True)[1]
        size = int(code.max()) + 1
        counts = rng.multinomial(size, np.full(size, 1 / size), size=options.resamples)
        weights = counts[:, code].astype(np.float64)
        self.weights = weights / weights.sum(axis=1, keepdims=True)  # (resample, pair)
        self.rng, self.confidence, self.units = rng, options.confidence, size

    def row(
        self,
        t: _Treatment,
        found: FloatArray,
        untouched: FloatArray,
        random: FloatArray | None = None,
    ) -> dict[str, Any]:
        """Of preferences `found` (draw, pair); `random` (draw, pair) are those under the treatment's control."""
        picks = self._picks(len(found))
        low, high = self._interval(found, picks)
        change_low, change_high = self._interval(found - untouched, picks)
        over_low, over_high = None, None
        if random is not None:
            over_low, over_high = self._interval(found - random, self._picks(len(random)))
        return {
            "layer": t.layer,
            "treatment": t.name,
            "strength": t.strength,
            "rank": t.rank,
            "value": float(found.mean()),
            "low": low,
            "high": high,
            "n": found.shape[1],
            "draws": len(found),
            "against": t.against,
            "effect": float((found - untouched).mean()),
            "effect_low": change_low,
            "effect_high": change_high,
            "over_random": None if random is None else float((found - random).mean()),
            "over_random_low": over_low,
            "over_random_high": over_high,
        }

    def _picks(self, draws: int) -> FloatArray:
        """Weights of the draws of a control in every resample, (resample, draw)."""
        even = np.full(draws, 1 / draws)
        return self.rng.multinomial(draws, even, size=len(self.weights)) / draws

    def _interval(self, values: FloatArray, picks: FloatArray) -> tuple[float | None, float | None]:
        """Of the mean of values (draw, pair), over resamples of pairs and of draws."""
        if self.units < 3:
            return None, None
        means = ((self.weights @ values.T) * picks).sum(axis=1)
        low, high = percentile_interval(means, self.confidence)
        return float(low), float(high)


def _eraser_treatments(
    model: Model,
    erasers: Mapping[int, Eraser | Sequence[Eraser]],
    states: Mapping[int, Any] | None,
    o: CausalOptions,
    rng: np.random.Generator,
) -> list[tuple[_Treatment, _Treatment]]:
    """Each eraser with its control."""
    found: list[tuple[_Treatment, _Treatment]] = []
    for layer in sorted(erasers):
        given = erasers[layer]
        for eraser in [given] if isinstance(given, Eraser) else given:
            controls = _controls(
                eraser, None if states is None else states.get(layer), o.draws, rng
            )
            edits = [_erasing(model, control, layer, o) for control in controls]
            own = _erasing(model, eraser, layer, o)
            found.append(
                (
                    _Treatment(layer, eraser.method, [own], rank=eraser.rank),
                    _Treatment(layer, "random", edits, rank=eraser.rank, against=eraser.method),
                )
            )
    return found


def _erasing(model: Model, eraser: Eraser, layer: int, o: CausalOptions) -> Edit:
    return lambda ends: erase(model, eraser, layer, "all" if o.positions == "all" else ends)


def _controls(eraser: Eraser, states: Any, draws: int, rng: np.random.Generator) -> list[Eraser]:
    seeds = rng.integers(0, 2**31, size=draws).tolist()
    if eraser.method == "leace" and states is not None:
        X = check_matrix(states, "states")
        fitter = LeaceFitter(eraser.d, 1).update(X, np.zeros(len(X)))
        return [fitter.random_eraser(eraser.rank, seed) for seed in seeds]
    return [random_eraser(eraser.d, eraser.rank, seed, mean=eraser.mean) for seed in seeds]


def _steer_treatments(
    model: Model,
    directions: Mapping[int, Any],
    strengths: Sequence[float],
    o: CausalOptions,
    rng: np.random.Generator,
) -> list[tuple[_Treatment, _Treatment]]:
    """Each direction and strength with its control."""
    found: list[tuple[_Treatment, _Treatment]] = []
    for layer in sorted(directions):
        direction = np.asarray(directions[layer], dtype=np.float64).reshape(-1)
        noise = rng.normal(size=(o.draws, len(direction)))
        noise *= np.linalg.norm(direction) / np.linalg.norm(noise, axis=1, keepdims=True)
        for strength in strengths:
            own = _steering(model, direction, layer, strength, o)
            edits = [_steering(model, vector, layer, strength, o) for vector in noise]
            found.append(
                (
                    _Treatment(layer, "steer", [own], float(strength)),
                    _Treatment(layer, "steer-random", edits, float(strength), None, "steer"),
                )
            )
    return found


def _steering(
    model: Model, vector: FloatArray, layer: int, strength: float, o: CausalOptions
) -> Edit:
    return lambda ends: steer(
        model, vector, layer, strength, "all" if o.positions == "all" else ends
    )
