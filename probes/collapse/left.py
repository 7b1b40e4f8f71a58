"""How much collapse a condition leaves, and the change against none, paired over the texts that both have read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.collapse.cosines import drawn_cosine, fit_slope
from probes.errors import DoesNotApply
from probes.exits.resample import Resamples
from probes.stats import percentile_interval

if TYPE_CHECKING:
    from probes.collapse.remedies import Change
    from probes.collapse.study import Study

Array = NDArray[np.floating[Any]]

SLOPE_DOCUMENTS = 64  # enough for a slope that only compares


@dataclass(frozen=True)
class Drawn:
    """A number and what it is under every resample (draws,)."""

    value: float
    draws: Array

    def against(self, plain: Drawn) -> tuple[float, float, float]:
        """This less `plain`, drawn alike, with the paired 95 % interval.

        >>> Drawn(3.0, np.array([2.0, 4.0])).against(Drawn(1.0, np.array([0.0, 2.0])))
        (2.0, 2.0, 2.0)
        """
        low, high = percentile_interval(self.draws - plain.draws)
        return self.value - plain.value, float(low), float(high)


@dataclass(frozen=True)
class Left:
    """Mean cosine of texts and collapse slope of cut documents under one condition; None where undefined."""

    anisotropy: Drawn | None
    slope: Drawn | None

    def row(self, plain: Left) -> dict[str, float | None]:
        """anisotropy and collapse_slope, each with difference (to `plain`), difference_low and difference_high."""
        found: dict[str, float | None] = {}
        pairs = {
            "anisotropy": (self.anisotropy, plain.anisotropy),
            "collapse_slope": (self.slope, plain.slope),
        }
        for name, (own, base) in pairs.items():
            found[name] = None if own is None else own.value
            change = (None, None, None) if own is None or base is None else own.against(base)
            ends = ("difference", "difference_low", "difference_high")
            found.update({f"{name}_{end}": v for end, v in zip(ends, change, strict=True)})
        return found


@dataclass(frozen=True)
class Meter:
    """Measures what is left, always on the same resamples of the same texts, so that conditions are paired."""

    draws: int
    seed: int

    def read(self, X: Array, cuts: Cuts | None, layer: int, change: Change | None = None) -> Left:
        """What is left of the collapse in states X (n, d) of all texts, and in `cuts` at a layer.

        `change` is what a remedy makes of the states of cuts; X is changed already.
        """
        slope = None if cuts is None else defined(lambda: self.slope(cuts, layer, change))
        return Left(defined(lambda: self.cosine(X)), slope)

    def cosine(self, X: Array) -> Drawn:
        """Mean cosine between different rows of X (n, d)."""
        return Drawn(*drawn_cosine(X, Resamples.make(len(X), self.draws, self.seed)))

    def slope(self, cuts: Cuts, layer: int, change: Change | None = None) -> Drawn:
        """Change of the mean cosine per doubling of length."""
        found = [
            self.cosine(states[layer] if change is None else change(states[layer]))
            for states in cuts.states.values()
        ]
        values = np.asarray([one.value for one in found])
        drawn = np.asarray([one.draws for one in found])
        tokens = list(cuts.states)
        return Drawn(float(fit_slope(tokens, values)), fit_slope(tokens, drawn))


def defined(measure: Callable[[], Drawn]) -> Drawn | None:
    """What `measure` gives; None where a row has no direction, or there are too few."""
    try:
        return measure()
    except DoesNotApply:
        return None


@dataclass(frozen=True)
class Cuts:
    """The same documents at a few lengths: tokens -> layer -> (n, d), through the maker's head."""

    states: Mapping[int, Mapping[int, Array]]


def few_cuts(study: Study) -> tuple[tuple[str, ...], list[int]] | None:
    """A few documents, and the shortest, the middle and the longest cut; None where there are no long documents."""
    try:
        documents, cuts = study.cut_documents
    except DoesNotApply:
        return None
    return documents[:SLOPE_DOCUMENTS], sorted({cuts[0], cuts[len(cuts) // 2], cuts[-1]})


def read_cuts(study: Study, told: str, **more: Any) -> Cuts | None:
    """The states of a few documents at a few cuts; None where there are no long documents."""
    if (chosen := few_cuts(study)) is None:
        return None
    documents, cuts = chosen
    read: dict[int, dict[int, Array]] = {}
    for cut in cuts:
        store = study.states(documents, told, max_length=cut, **more)
        read[cut] = {layer: study.embedded(store, layer) for layer in study.layers}
    return Cuts(read)
