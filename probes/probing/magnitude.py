"""How a layer lays out numbers: by their differences, or by the differences of their logarithms?

A rank correlation with the *values* could not tell: the logarithm is monotone, so x and log x have the
same ranks. Differences do not: |a − b| puts 1 and 10 as near as 991 and 1000, |log a − log b| puts 1 and
10 as near as 100 and 1000. So distances between states are compared with both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DataError, InputError, NonFiniteError, unknown_name
from probes.linalg import normalise_rows
from probes.probing.base import FloatArray, IntArray
from probes.probing.questions import group_codes
from probes.probing.rows import Place, States, read_layer, shared_layers
from probes.stats import Estimate, check_confidence, percentile_interval, ranks
from probes.tables import tidy

Distance = Literal["cosine", "euclidean"]
INTERVAL = (
    "percentile bootstrap over items (whole groups where given), ranks anew in every draw; for shuffled "
    "numbers: the central band of draws"
)


def magnitude_correlation(
    states: States,
    numbers: Any,
    *,
    groups: Any = None,
    reference: float | None = None,
    distance: Distance = "cosine",
    max_items: int = 300,
    draws: int = 300,
    seed: int = 0,
    confidence: float = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    concept: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
) -> pd.DataFrame:
    """Spearman correlation, over pairs of items, of state distances with differences of their numbers.

    Parameters
    ----------
    states : layer -> (n, d); numbers : (n,) what the items stand for, finite.
    groups : (n,) items that share more than their number (one template, one entity): pairs within a
    group are left out, and whole groups are drawn.
    reference : a number from which magnitude is felt, such as the present year: `log` then compares
    sign(x − reference) · log(1 + |x − reference|). Without it numbers must be positive for `log`.
    distance : "cosine" (1 − cosine of states less the layer's mean state; not ruled by few large
    dimensions' common offset, nor by the states' norm) or "euclidean".
    max_items : a seeded sample of so many items is compared when there are more (pairs grow with the
    square). draws : bootstrap draws, and shuffles.

    Returns
    -------
    Tidy rows of `magnitude_correlation` in [−1, 1], up means ordered by magnitude, per layer and
    variant: "linear" |a − b|; "log" |log a − log b|; "shuffled" linear with numbers permuted (between
    groups, where all items of a group have one number): mean and central band. n counts items.
    `attrs["log_minus_linear"]` lists layer, value, low and high of the paired difference: where the
    interval holds 0 the data do not tell the codes apart. `attrs["between"]` is the Spearman
    correlation of the two differences themselves: near 1 they cannot be told apart by any layer.
    `attrs["notes"]` says why rows are absent.

    Raises `InputError`, `DataError` or `NonFiniteError` for numbers, groups or states that do not fit.
    Paper: arXiv 2507.15851 (Weber–Fechner in language models). See also `RidgeRegressionProbe`.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.uniform(1, 1000, 80)
    >>> coded = {0: np.stack([np.cos(np.log(x) / 3), np.sin(np.log(x) / 3)], axis=1)}
    >>> table = magnitude_correlation(coded, x, distance="euclidean", draws=50)
    >>> dict(zip(table.variant, table.value.astype(float).round(2)))["log"]
    1.0
    """
    check_confidence(confidence)
    if distance not in get_args(Distance):
        raise unknown_name("distance", distance, get_args(Distance))
    if draws < 2 or max_items < 4:
        raise InputError(f"draws={draws}, max_items={max_items}: at least 2 and 4 are needed")
    layers = shared_layers({"items": states})
    values = _checked(numbers)
    code = group_codes(groups, len(values))
    unit = np.arange(len(values)) if code is None else code.astype(np.int64)
    rng = np.random.default_rng(seed)
    picked = _sample(len(values), max_items, rng)
    felt, notes = _felt(values[picked], reference)
    items = _Items.of(np.unique(unit[picked], return_inverse=True)[1])
    targets = {name: items.differences(x) for name, x in felt.items()}
    shuffles = [items.differences(items.permuted(felt["linear"], rng)) for _ in range(draws)]
    apart = [
        items.distances(read_layer(states, layer, "states", len(values))[picked], distance)
        for layer in layers
    ]
    weights = (items.weights(rng) for _ in range(draws))
    found = {name: _spearman(apart, target) for name, target in targets.items()}
    drawn = _bootstrap(apart, targets, weights)
    random = _correlations(apart, shuffles)  # (layer, draws)
    place = Place(site, dataset, concept, pooling, split)
    rows: list[dict[str, Any]] = []
    paired: list[dict[str, Any]] = []
    for at, layer in enumerate(layers):
        for name in targets:
            low, high = _central(drawn[name][:, at], confidence, items.groups)
            estimate = Estimate(float(found[name][at]), low, high, len(picked), seed)
            rows.append(place.row("magnitude_correlation", layer, name, estimate))
        low, high = _central(random[at], confidence, items.groups)
        estimate = Estimate(float(random[at].mean()), low, high, len(picked), seed)
        rows.append(place.row("magnitude_correlation", layer, "shuffled", estimate))
        if "log" in targets:
            low, high = _central((drawn["log"] - drawn["linear"])[:, at], confidence, items.groups)
            value = float(found["log"][at] - found["linear"][at])
            paired.append({"layer": layer, "value": value, "low": low, "high": high})
    table = tidy(rows)
    between = float(_spearman([targets["linear"]], targets["log"])[0]) if "log" in targets else None
    table.attrs.update(
        interval=INTERVAL, notes=notes, distance=distance, between=between, log_minus_linear=paired
    )
    return table


def _checked(numbers: Any) -> FloatArray:
    values = np.asarray(numbers)
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise InputError(
            f"numbers have shape {values.shape} and type {values.dtype}: (n,) numbers are needed"
        )
    values = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise NonFiniteError(f"number of row {int(bad[0])} is {values[bad[0]]}: remove the row")
    if len(np.unique(values)) < 3:
        raise DataError(f"{len(np.unique(values))} different numbers: at least three are needed")
    return values


def _sample(n: int, most: int, rng: np.random.Generator) -> IntArray:
    return np.sort(rng.permutation(n)[:most]).astype(np.int64)


def _felt(x: FloatArray, reference: float | None) -> tuple[dict[str, FloatArray], list[str]]:
    """The numbers as they are and as logarithms; a note where they have none."""
    if reference is not None:
        away = x - float(reference)
        return {"linear": x, "log": np.sign(away) * np.log1p(np.abs(away))}, []
    if x.min() > 0:
        return {"linear": x, "log": np.log(x)}, []
    note = f"no log variant: the least number is {x.min():g}, not positive; give reference=…"
    return {"linear": x}, [note]


@dataclass(frozen=True)
class _Items:
    """The pairs (i, j) of items of different groups, and the group codes (n,)."""

    unit: IntArray
    first: IntArray  # (pairs,)
    second: IntArray  # (pairs,)

    @classmethod
    def of(cls, unit: NDArray[Any]) -> _Items:
        first, second = np.triu_indices(len(unit), 1)
        across = unit[first] != unit[second]
        if across.sum() < 3:
            raise DataError(
                f"{len(unit)} items in {len(np.unique(unit))} groups make {int(across.sum())} pairs across groups: "
                "more items or groups are needed"
            )
        return cls(unit, first[across], second[across])

    @property
    def groups(self) -> int:
        return int(self.unit.max()) + 1

    def differences(self, x: FloatArray) -> _Ranked:
        return _Ranked.of(np.abs(x[self.first] - x[self.second]))

    def distances(self, X: FloatArray, kind: Distance) -> _Ranked:
        wide = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
        if kind == "cosine":
            wide = normalise_rows(wide)
        square = np.square(wide).sum(axis=1)
        gram = wide @ wide.T
        apart = square[self.first] + square[self.second] - 2 * gram[self.first, self.second]
        # equal states differ by rounding only: they are ties
        apart[apart < 1e-12 * square.max()] = 0
        return _Ranked.of(apart)

    def permuted(self, x: FloatArray, rng: np.random.Generator) -> FloatArray:
        """x with its numbers exchanged, between groups where a group has one number."""
        one = np.zeros(self.groups)
        one[self.unit] = x
        if np.array_equal(one[self.unit], x):
            return rng.permutation(one)[self.unit]
        return rng.permutation(x)

    def weights(self, rng: np.random.Generator) -> FloatArray:
        """How often each pair (pairs,) occurs when whole groups are drawn with replacement."""
        m = self.groups
        count = np.bincount(rng.integers(0, m, m), minlength=m)[self.unit]
        return (count[self.first] * count[self.second]).astype(np.float64)


@dataclass(frozen=True)
class _Ranked:
    """Values of all pairs by rank: `code` (pairs,) numbers the distinct values in ascending order."""

    code: IntArray

    @classmethod
    def of(cls, values: FloatArray) -> _Ranked:
        return cls(np.unique(values, return_inverse=True)[1].astype(np.int64))

    def weighted(self, weights: FloatArray) -> FloatArray:
        """Average ranks (pairs,) when each value occurs `weights` times, less one half."""
        total = np.bincount(self.code, weights=weights)
        return (np.cumsum(total) - total / 2)[self.code]


def _spearman(apart: Sequence[_Ranked], target: _Ranked) -> FloatArray:
    """(layer,) correlations over all pairs."""
    return _correlations(apart, [target])[:, 0]


def _correlations(apart: Sequence[_Ranked], targets: Sequence[_Ranked]) -> FloatArray:
    """(layer, target) Spearman correlations."""
    left = np.stack([_unit(ranks(r.code.astype(np.float64))) for r in apart])
    return np.stack([left @ _unit(ranks(t.code.astype(np.float64))) for t in targets], axis=1)


def _unit(values: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Centred, with length one (weighted, the weights' roots taken in); zeros where constant."""
    if weights is None:
        centred = values - values.mean()
    else:
        centred = (values - np.average(values, weights=weights)) * np.sqrt(weights)
    size = np.linalg.norm(centred)
    return centred / size if size > 1e-9 * np.abs(values).max() else np.zeros_like(values)


def _bootstrap(
    apart: Sequence[_Ranked], targets: dict[str, _Ranked], draws: Iterable[FloatArray]
) -> dict[str, FloatArray]:
    """Per target (draws, layer) Spearman correlations, as if the drawn pairs were written out and ranked."""
    found: dict[str, list[FloatArray]] = {name: [] for name in targets}
    for weights in draws:
        alive = np.flatnonzero(weights)
        if not len(alive):  # one group drawn over and over: no pairs
            continue
        own = weights[alive]
        left = np.stack([_unit(r.weighted(weights)[alive], own) for r in apart])
        for name, target in targets.items():
            found[name].append(left @ _unit(target.weighted(weights)[alive], own))
    return {name: np.stack(rows) for name, rows in found.items()}


def _central(
    draws: FloatArray, confidence: float, groups: int
) -> tuple[float | None, float | None]:
    if groups < 3:
        return None, None
    low, high = percentile_interval(draws, confidence)
    return float(low), float(high)
