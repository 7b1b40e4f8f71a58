"""Length collapse on arrays: how close texts lie to each other at every length and layer, and how fast that grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.collapse.cosines import cosine_quantiles, drawn_cosine, fit_slope
from probes.errors import DataError, DoesNotApply
from probes.exits.resample import Resamples
from probes.layers import measure_layers
from probes.layers.centroid import centroid_distance
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Rise = tuple[float, float, float]  # a difference with its interval

FEWEST_TEXTS = 30  # of one length: fewer would make every other length as small
METRICS = ("anisotropy", centroid_distance.__name__, "effective_rank")
DIFFERENCE = ("difference", "difference_low", "difference_high")
_KEPT = ("layer", "measure", "value", "low", "high", "n", "seed")
QUANTILES = {"cosine_p10": 0.1, "cosine_p50": 0.5, "cosine_p90": 0.9}


@dataclass(frozen=True)
class Bin:
    """Texts of about one length: median, shortest and longest number of tokens, and their rows."""

    tokens: float
    low: int
    high: int
    rows: IntArray


@dataclass(frozen=True)
class Length:
    """States of texts of about one length: layer -> (n, d)."""

    tokens: float
    low: int
    high: int
    states: Mapping[int, Array]


@dataclass(frozen=True)
class LengthResult:
    """`table` has one row per length, layer and measure; `slopes` and `onsets` one per layer."""

    table: pd.DataFrame
    slopes: list[dict[str, Any]]
    onsets: list[dict[str, Any]]
    notes: list[str]


def token_bins(
    tokens: Sequence[int], seed: int, most: int, fewest: int = FEWEST_TEXTS
) -> list[Bin]:
    """Bins of texts between powers of two of their number of tokens, all of the same size.

    Bins of fewer than `fewest` texts are left out; of the others as many texts are drawn as the smallest holds, at
    most `most`, because the effective rank grows with the number of texts. `DoesNotApply` where fewer than two are
    left.

    >>> [(bin.low, bin.high, len(bin.rows)) for bin in token_bins([8, 9, 15, 16, 17, 40], 0, 2, fewest=2)]
    [(8, 15, 2), (16, 17, 2)]
    """
    lengths = np.asarray(tokens, dtype=np.int64)
    octave = np.frexp(lengths)[1]  # 2^(e−1) ≤ length < 2^e
    members = [np.flatnonzero(octave == value) for value in np.unique(octave)]
    members = [rows for rows in members if len(rows) >= fewest]
    if len(members) < 2:
        raise DoesNotApply(
            f"{len(lengths)} texts fall into {len(members)} bins of length with at least {fewest} of them: "
            "two are needed"
        )
    size = min(most, *(len(rows) for rows in members))
    rng = np.random.default_rng(seed)
    found: list[Bin] = []
    for rows in members:
        drawn = np.sort(rng.choice(rows, size=size, replace=False))
        own = lengths[rows]
        found.append(Bin(float(np.median(lengths[drawn])), int(own.min()), int(own.max()), drawn))
    return found


def study_lengths(
    lengths: Sequence[Length], *, paired: bool, draws: int = 1000, seed: int = 0
) -> LengthResult:
    """Cosines, distances and rank at every length, their slope over log₂ length, and where collapse sets in.

    Parameters
    ----------
    lengths : states of the same number n of texts at every length, shortest first. paired : row i is the same document
    at every length (cuts), so that documents are resampled once for all; otherwise every length is resampled alone.

    The table has layer, tokens, tokens_low, tokens_high, measure, value, low, high, n, seed, and difference,
    difference_low, difference_high: the mean cosine less that of the first length, with its paired 95 % interval
    (null for other measures, for the first length, and unless `paired`). Measures are anisotropy (mean cosine),
    centroid_distance and effective_rank with jackknife intervals, and quantiles of the cosine. Slopes have percentile
    bootstrap intervals. An onset is the shortest length such that there and at all longer ones the difference lies
    above zero by its interval; null where there is none, and computed only when `paired`. What does not apply is null,
    with its reason in `notes`. Paper: Zhou et al. 2024 (arXiv 2410.24200).

    >>> rng = np.random.default_rng(0)
    >>> X, common = rng.normal(size=(40, 8)), np.ones(8)
    >>> states = [Length(t, t, t, {0: X + a * common}) for t, a in ((8, 0.0), (16, 1.0), (32, 2.0))]
    >>> found = study_lengths(states, paired=True, draws=200)
    >>> found.slopes[0]["low"] > 0.2, found.onsets[0]["value"]
    (True, 16.0)
    """
    if len(lengths) < 2:
        raise DoesNotApply(f"length collapse from {len(lengths)} lengths: two are needed")
    tables: list[pd.DataFrame] = []
    notes: list[str] = []
    for length in lengths:
        tables.append(_measured(length, seed, notes))
    slopes: list[dict[str, Any]] = []
    onsets: list[dict[str, Any]] = []
    rises: dict[tuple[int, float], Rise] = {}
    for layer in sorted(lengths[0].states):
        try:
            cosines = cosine_draws([one.states[layer] for one in lengths], paired, draws, seed)
        except DoesNotApply as reason:
            notes.append(f"layer {layer}: {reason}")
            continue
        tokens = [one.tokens for one in lengths]
        slopes.append({"layer": layer, **cosines.slope(tokens), "seed": seed})
        if paired:
            own = cosines.rises()
            rises.update({(layer, at): rise for at, rise in zip(tokens[1:], own, strict=True)})
            onset = cosines.onset(tokens)
            onsets.append({"layer": layer, "value": onset, "n": cosines.n, "seed": seed})
            if onset is None:
                notes.append(
                    f"layer {layer}: the longest cuts do not lie above the shortest: no onset"
                )
    return LengthResult(
        _with_rises(pd.concat(tables, ignore_index=True), rises), slopes, onsets, notes
    )


def _with_rises(table: pd.DataFrame, rises: Mapping[tuple[int, float], Rise]) -> pd.DataFrame:
    """The table with the differences to the first length beside mean cosines."""
    none = (None, None, None)
    cells = zip(table["measure"], table["layer"], table["tokens"], strict=True)
    found = [rises.get((k, at), none) if name == METRICS[0] else none for name, k, at in cells]
    return table.assign(**{
        name: pd.Series([rise[step] for rise in found], dtype=object)
        for step, name in enumerate(DIFFERENCE)
    })  # fmt: skip


@dataclass(frozen=True)
class CosineDraws:
    """Mean cosines of n texts at every length: `values` (lengths,), `draws` (lengths, draws)."""

    values: Array
    draws: Array
    n: int

    def slope(self, tokens: Sequence[float]) -> dict[str, Any]:
        """Change per doubling with its 95 % interval: value, low, high, n."""
        low, high = percentile_interval(fit_slope(tokens, self.draws))
        value = float(fit_slope(tokens, self.values))
        return {"value": value, "low": float(low), "high": float(high), "n": self.n}

    def rises(self) -> list[Rise]:
        """Per length after the first its mean cosine less that of the first, paired: value, low, high."""
        found: list[Rise] = []
        for value, drawn in zip(self.values[1:], self.draws[1:], strict=True):
            low, high = percentile_interval(drawn - self.draws[0])
            found.append((float(value - self.values[0]), float(low), float(high)))
        return found

    def onset(self, tokens: Sequence[float]) -> float | None:
        """The shortest length that, as all longer ones, lies above the first by its interval; None if there is none."""
        found: float | None = None
        for at, (_, low, _) in zip(reversed(tokens), reversed(self.rises()), strict=False):
            if low <= 0:
                break
            found = float(at)
        return found


def cosine_draws(states: Sequence[Array], paired: bool, draws: int, seed: int) -> CosineDraws:
    """Mean cosine at every length and under every resample of documents; `states` are (n, d) per length."""
    sizes = {len(X) for X in states}
    if len(sizes) != 1:
        raise DataError(f"lengths hold {sorted(sizes)} texts: the same number is needed")
    (n,) = sizes
    values: list[float] = []
    drawn: list[Array] = []
    for step, X in enumerate(states):
        own = seed if paired else int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
        value, under = drawn_cosine(X, Resamples.make(n, draws, own))
        values.append(value)
        drawn.append(under)
    return CosineDraws(np.asarray(values), np.asarray(drawn), n)


def _measured(length: Length, seed: int, notes: list[str]) -> pd.DataFrame:
    """Rows of one length: the registered metrics, then quantiles of the cosine."""
    found = measure_layers(length.states, METRICS, seed=seed)
    notes += [f"{length.tokens:g} tokens, {note}" for note in found.attrs["notes"]]
    rows: list[dict[str, Any]] = found.to_dict("records")
    rows = [{name: row[name] for name in _KEPT} for row in rows]
    for layer in sorted(length.states):
        X = length.states[layer]
        try:
            quantiles = cosine_quantiles(X, tuple(QUANTILES.values()))
        except DoesNotApply as reason:
            notes.append(f"{length.tokens:g} tokens, layer {layer}: {reason}")
            continue
        for name, estimate in zip(QUANTILES, quantiles, strict=True):
            rows.append({"layer": layer, "measure": name, **estimate.row(), "seed": seed})
    place = {"tokens": length.tokens, "tokens_low": length.low, "tokens_high": length.high}
    # dtype object, or pandas would turn a missing number into NaN
    return pd.DataFrame([{**place, **row} for row in rows], dtype=object)
