"""At which layer a concept becomes readable: numbers of a depth curve, with intervals.

The curve's bootstrap, and what "within the interval of its peak" means, is in `probes.probing.resampled`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from probes.errors import DataError, InputError
from probes.probing.base import FloatArray, IntArray, checked_groups
from probes.probing.curves import Curve
from probes.probing.layerwise import SweepOptions
from probes.probing.resampled import Resampled
from probes.tables import tidy

JUMP = 1.1
CONVERGED = 0.03


def depth_numbers(
    curve: Curve,
    n_layers: int,
    *,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    site: str = "exit",
    dataset: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
) -> pd.DataFrame:
    """Peak, robust depth, jumping and converging point and area of a curve, as tidy rows with intervals.

    * `peak_layer`: the layer with the highest mean score, the first of equals.
    * `robust_depth`: first layer from which on the curve stays within the interval of its peak, see
      `probes.probing.resampled`.
    * `jumping_point`: smallest k/L with accuracy_k / accuracy_{k−1} ≥ 1.1; `converging_point`:
      largest k/L with |accuracy_k / accuracy_{k−1} − 1| < 0.03, where k−1 is the layer before in
      the curve. Accuracy only.
    * `area_under_curve`: mean over relative depth of (score − chance) / (1 − chance), trapezoids.

    `n_layers` is L, the number of blocks. Intervals are percentiles over resampled examples (whole
    groups), stretched to hold the value; null where too few resamples have the number at all. A
    number that does not exist has no row; `attrs["notes"]` says why. A curve no layer of which is
    significantly above chance has no depth: its area is the only row.

    Raises `InputError` or `DataError` for layers that do not fit L, or too few draws or examples.
    See also `compare_depths`, `mdl_depth`. Paper: arXiv 2404.07066.

    >>> from probes.probing import RidgeProbe, cross_validate
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 2
    >>> states = {k: rng.normal(size=(200, 4)) + 3 * (k >= 2) * y[:, None] for k in range(5)}
    >>> curve = cross_validate(RidgeProbe(), states, y).curve()
    >>> table = depth_numbers(curve, n_layers=4).set_index("measure")
    >>> int(table.value["robust_depth"]), float(table.value["jumping_point"])
    (2, 0.5)
    """
    layers = np.asarray(curve.layers)
    if (np.diff(layers) <= 0).any() or layers[0] < 0 or layers[-1] > n_layers:
        raise InputError(f"layers {curve.layers} do not ascend from 0 to {n_layers} at most")
    options = SweepOptions(site, dataset, pooling, split, confidence, draws, seed)
    numbers = _Numbers.of(curve, options)
    sample, notes = numbers.sample, numbers.notes
    if sample.rises():
        relative = layers / n_layers
        numbers.add("peak_layer", lambda v: layers[v.argmax(axis=1)])
        numbers.add("robust_depth", lambda v: layers[sample.robust(v)])
        if curve.measure == "accuracy" and len(layers) > 1:
            numbers.add("jumping_point", lambda v: _jumping(v, relative))
            numbers.add("converging_point", lambda v: _converging(v, relative))
        elif len(layers) > 1:
            notes.append(
                f"jumping and converging point are ratios of accuracies, not of {curve.measure}"
            )
        _note_fall(sample, notes)
    else:
        notes.append(f"no layer is significantly above chance ({curve.chance:.3g}): no depth")
    if len(layers) > 1:
        numbers.add("area_under_curve", lambda v: _area(v, layers, curve.chance), whole=False)
    return numbers.table()


def mdl_depth(
    bits: Any,
    layers: Any,
    *,
    guess_bits: float | None = None,
    groups: Any = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    concept: str | None = None,
    variant: str | None = None,
    site: str = "exit",
    dataset: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
) -> pd.DataFrame:
    """The layer with the shortest online code, as a tidy row `mdl_depth` with its interval over examples.

    `bits` (layer, n) are the bits of every example, `layers` the layers they belong to. `guess_bits`
    are the bits per example of a code that knows nothing, log₂ K: where no layer's code is
    significantly shorter there is no row, and `attrs["notes"]` says so.

    >>> bits = np.array([[1.0, 1.0, 1.0, 1.0], [0.2, 0.1, 0.2, 0.3]]).repeat(20, axis=1)
    >>> int(mdl_depth(bits, [0, 3], guess_bits=1.0).value[0])
    3
    """
    saved = -np.asarray(bits, dtype=np.float64)
    if saved.ndim != 2 or not np.isfinite(saved).all():
        raise DataError(f"bits have shape {saved.shape}: finite numbers (layer, n) are needed")
    n = saved.shape[1]
    owners = checked_groups(groups, n)
    code = None if owners is None else np.unique(owners, return_inverse=True)[1].astype(np.int64)
    order = np.argsort(layers)
    chance = -np.inf if guess_bits is None else -float(guess_bits)
    places = tuple(int(layer) for layer in np.asarray(layers)[order])
    curve = Curve(concept, variant, "mdl", places, saved[order], np.arange(n), code, chance)
    options = SweepOptions(site, dataset, pooling, split, confidence, draws, seed)
    numbers = _Numbers.of(curve, options)
    if numbers.sample.rises():
        numbers.add("mdl_depth", lambda v: np.asarray(places)[v.argmax(axis=1)])
    else:
        numbers.notes.append(
            f"no layer's code is significantly shorter than a guess ({-chance:.3g} bits per example)"
        )
    return numbers.table()


@dataclass(frozen=True)
class Rise:
    """The layer that exceeds a level most: by `gain`, at least `low` with the given confidence."""

    layer: int
    gain: float
    low: float

    @property
    def significant(self) -> bool:
        return self.low > 0


def rise_above(
    curve: Curve,
    level: float | Curve,
    *,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Rise:
    """Does any layer exceed `level`: a number, or a curve of one layer on the same rows such as the bag of words.

    The difference is paired by example; the bound holds for all layers at once, so that the best one
    may be looked for.
    """
    if isinstance(level, Curve):
        if len(level.layers) != 1 or not np.array_equal(level.rows, curve.rows):
            raise InputError("the level must be a curve of one layer on the same rows")
        beyond = replace(curve, scores=curve.scores - level.scores, chance=0.0)
    else:
        beyond = replace(curve, scores=curve.scores - level, chance=0.0)
    low = Resampled.of(beyond, draws, confidence, seed).lower_bounds()
    best = int(low.argmax())
    return Rise(curve.layers[best], float(beyond.values[best]), float(low[best]))


@dataclass
class _Numbers:
    """Rows of one curve: numbers of the curve itself, with percentiles of those of its resamples."""

    sample: Resampled
    options: SweepOptions
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, curve: Curve, options: SweepOptions) -> _Numbers:
        o = options
        return cls(Resampled.of(curve, o.draws, o.confidence, o.seed), o)

    def add(
        self, measure: str, number: Callable[[FloatArray], FloatArray], whole: bool = True
    ) -> None:
        """`number` (draw, layer) -> (draw,), NaN where there is none; `whole` ones are not interpolated."""
        value = float(number(self.sample.curve.values[None])[0])
        if np.isnan(value):
            self.notes.append(f"no layer is a {measure.replace('_', ' ')}")
            return
        drawn = np.asarray(number(self.sample.draws), dtype=np.float64)
        drawn = drawn[~np.isnan(drawn)]
        low = high = None
        if len(drawn) >= self.options.confidence * len(self.sample.draws):
            low, high = _interval(drawn, value, self.options.confidence, whole)
            if not whole:
                low = value - self.sample.widen * (value - low)
                high = value + self.sample.widen * (high - value)
        self.rows.append({"measure": measure, "value": value, "low": low, "high": high})

    def table(self) -> pd.DataFrame:
        curve = self.sample.curve
        common = {**self.options.columns(), "seed": self.options.seed, "n": len(curve.rows)}
        common |= {"concept": curve.concept, "variant": curve.variant}
        frame = tidy({**common, **row} for row in self.rows)
        frame.attrs["notes"] = self.notes
        return frame


def _interval(
    drawn: FloatArray, value: float, confidence: float, whole: bool
) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    below, above = ("lower", "higher") if whole else ("linear", "linear")
    low = float(np.quantile(drawn, tail, method=below))
    high = float(np.quantile(drawn, 1 - tail, method=above))
    return min(low, value), max(high, value)


def _ratios(values: FloatArray) -> FloatArray:
    """(draw, layer − 1) each layer over the one before; from zero upwards is infinite, zero to zero is 1."""
    before, now = values[:, :-1], values[:, 1:]
    undefined = np.where(now > 0, np.inf, 1.0)
    return np.divide(now, before, out=undefined, where=before > 0)


def _jumping(values: FloatArray, relative: FloatArray) -> FloatArray:
    jumps = _ratios(values) >= JUMP
    return np.where(jumps.any(axis=1), relative[1:][jumps.argmax(axis=1)], np.nan)


def _converging(values: FloatArray, relative: FloatArray) -> FloatArray:
    calm = np.abs(_ratios(values) - 1) < CONVERGED
    return np.where(calm.any(axis=1), relative[::-1][calm[:, ::-1].argmax(axis=1)], np.nan)


def _area(values: FloatArray, layers: IntArray, chance: float) -> FloatArray:
    height = (values - chance) / (1 - chance)
    return np.asarray(trapezoid(height, layers, axis=1)) / (layers[-1] - layers[0])


def _note_fall(sample: Resampled, notes: list[str]) -> None:
    values = sample.curve.values[None]
    peak = int(values.argmax())
    fallen = np.flatnonzero(~sample.within(values)[0, peak:])
    if len(fallen):
        layer = sample.curve.layers[peak + int(fallen[0])]
        notes.append(f"the curve falls below the interval of its peak again at layer {layer}")
