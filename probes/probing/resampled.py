"""A depth curve and its bootstrap: what lies within the interval of the peak, what is above chance.

**Robust depth.** The peak is the layer with the highest mean score. A layer is *within the interval
of the peak* when peak − layer, paired by example, is no larger than the half-width of its interval.
The intervals hold for all pairs of layers at once (the largest studentised difference over all
pairs, by the bootstrap), for the peak is picked after looking, and among many equally good layers
the luckiest and the unluckiest differ by far more than a single interval. The robust depth is the
first layer of the unbroken run of such layers that ends at the peak: where the curve stays within
the interval up to its end, this is the first layer from which on it does; where it falls again
later, a note says so.

It depends on the resolution: with more examples, or a stronger concept, smaller shares of the rise
count. `compare_depths` judges two concepts at the coarser of their two resolutions.

**Widths.** As in `probes.probing.scores`, they are widened by Student's t and for the dependence
between folds.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError, InputError
from probes.probing.base import FloatArray, IntArray
from probes.probing.curves import Curve
from probes.probing.scores import Resamples, sign_inflation

BLOCK_DRAWS = 1000  # the first block also sets the widths, so that more draws do not move a depth
MIN_DRAWS = 100
INFLATION = {"accuracy": sign_inflation(2)}  # of the variance, by the dependence between folds
OTHER_INFLATION = 2.0  # of a margin


@dataclass(frozen=True)
class Resampled:
    """A curve and its bootstrap: the same draws for all curves with the same rows and groups."""

    curve: Curve
    draws: FloatArray  # (draw, layer)
    deviation: FloatArray  # (layer, layer) standard deviation of the difference of two layers
    reach: float  # half-width of the simultaneous intervals of differences, in deviations
    own_deviation: FloatArray  # (layer,)
    own_reach: float  # the same for the layers' own one-sided bounds
    units: int  # examples, or groups of them
    widen: float  # what percentile intervals lack

    @classmethod
    def of(cls, curve: Curve, draws: int, confidence: float, seed: int) -> Resampled:
        """`draws` resamples of the curve's examples or groups."""
        drawn, sample = _draw(curve, draws, confidence, seed)
        widen = sample.student() * INFLATION.get(curve.measure, OTHER_INFLATION) ** 0.5
        moved = drawn[:BLOCK_DRAWS] - curve.values
        covariance = np.atleast_2d(np.cov(moved.T))
        own = np.diag(covariance)
        # as if one example more disagreed (Agresti & Min 2005), lest agreement pass for certainty
        smooth = 1 / sample.size**2
        pair = np.maximum(own[:, None] + own - 2 * covariance, 0)
        deviation, own_deviation = np.sqrt(pair + smooth), np.sqrt(own + smooth)
        largest = np.zeros(len(moved))
        for layer, scale in enumerate(deviation):
            apart = np.abs(moved - moved[:, [layer]]) / scale
            np.maximum(largest, apart.max(axis=1), out=largest)
        highest = (moved / own_deviation).max(axis=1)
        reach, own_reach = (
            float(np.quantile(found, confidence)) * widen for found in (largest, highest)
        )
        return cls(curve, drawn, deviation, reach, own_deviation, own_reach, sample.size, widen)

    def lower_bounds(self) -> FloatArray:
        """(layer,) one-sided lower bounds that hold for all layers at once."""
        return self.curve.values - self.own_reach * self.own_deviation

    def rises(self) -> bool:
        """Is some layer significantly above chance?"""
        return bool((self.lower_bounds() > self.curve.chance).any())

    def height(self) -> float:
        """Of the peak above chance."""
        return float(self.curve.values.max() - self.curve.chance)

    def resolution(self) -> float:
        """Half-width of the interval of the peak (the median over the other layers), as a share of its height."""
        peak = int(self.curve.values.argmax())
        others = np.delete(self.deviation[peak], peak)
        return self.reach * float(np.median(others)) / self.height() if len(others) else 0.0

    def within(
        self, values: FloatArray, margin: float = 0.0, scale: float = 1.0
    ) -> NDArray[np.bool_]:
        """Which layers of curves (draw, layer) are within the interval of their peak.

        Its half-width is `margin` at least; both times `scale`.
        """
        peak = values.argmax(axis=1)
        gap = values.max(axis=1)[:, None] - values
        return gap <= scale * np.maximum(self.reach * self.deviation[peak], margin)

    def robust(self, values: FloatArray, margin: float = 0.0, scale: float = 1.0) -> IntArray:
        """Positions of the robust depth of curves (draw, layer); the rest as for `within`."""
        place = np.arange(values.shape[1])
        before = place < values.argmax(axis=1)[:, None]
        outside = ~self.within(values, margin, scale) & before
        return np.where(outside, place, -1).max(axis=1) + 1


def _draw(curve: Curve, draws: int, confidence: float, seed: int) -> tuple[FloatArray, Resamples]:
    """Resampled curves (draw, layer), a block of draws at a time; and the last block's resamples."""
    if draws < MIN_DRAWS:
        raise InputError(f"draws is {draws}: at least {MIN_DRAWS} are needed for an interval")
    frame = curve.rows.tobytes() + (b"" if curve.groups is None else curve.groups.tobytes())
    rng = np.random.default_rng([seed, crc32(frame)])  # one frame, one set of draws
    found: list[FloatArray] = []
    while True:
        part = min(BLOCK_DRAWS, draws - BLOCK_DRAWS * len(found))
        sample = Resamples(len(curve.rows), curve.groups, part, confidence, rng)
        if sample.size < 3:
            raise DataError(f"a depth needs 3 independent examples or groups; {sample.size} came")
        found.append(sample.means(curve.scores.T))
        if BLOCK_DRAWS * len(found) >= draws:
            return np.concatenate(found), sample
