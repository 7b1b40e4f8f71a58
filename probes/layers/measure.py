"""All label-free metrics of every layer, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from probes.errors import DataError, DoesNotApply, InputError
from probes.layers.spectra import check_layers
from probes.layers.states import States, sample_rows
from probes.layers.views import same_shape
from probes.linalg import check_matrix
from probes.registry import LAYER_METRICS, PAIR_METRICS, LayerMetric, Measure, PairMetric, Registry
from probes.stats import Estimate, check_confidence
from probes.tables import tidy

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]


def measure_layers(
    states: Mapping[int, Any],
    metrics: Sequence[str] | None = None,
    *,
    groups: Any = None,
    confidence: float | None = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    pooling: str | None = None,
    variant: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Registered layer metrics on every layer, as a tidy table with the columns of `probes.tables`.

    Parameters
    ----------
    states : layer -> (n, d), read one layer at a time; each decomposition is made once per layer,
    however many metrics use it. metrics : registered names, all when None.
    groups : (n,) rows that belong together count as one draw in the intervals.
    confidence : of the intervals; None leaves them out (half the work).
    seed : draws the rows of metrics whose work grows with n² (their `limit`); `n` says how many.

    The interval is value ± t · √Σ I_g², I_g the summed influence of group g on the value
    (infinitesimal jackknife, Jaeckel 1972), cut to the measure's range. It speaks of other texts in
    the same number; a bootstrap would be biased, for repeated rows lower the rank. Where a metric
    does not apply the value is null, with the reason in `attrs["notes"]`.

    Raises `InputError` for unknown metrics, `NonFiniteError` for NaN in the states. See also
    `measure_views`.

    >>> table = measure_layers({0: np.eye(4), 1: np.ones((4, 2))}, ["anisotropy"])
    >>> table[["layer", "value"]].round(6).values.tolist()
    [[0, 0.0], [1, 1.0]]
    """
    place = {"site": site, "dataset": dataset, "pooling": pooling, "variant": variant}
    table = _Table(place, _checked(confidence), seed)
    chosen = _chosen(LAYER_METRICS, metrics)
    for layer in sorted(check_layers(states)):
        X = check_matrix(states[layer], f"layer {layer}")
        owner = _owners(groups, len(X))
        shared: dict[int, States] = {}  # by number of rows
        for metric in chosen:
            rows = sample_rows(len(X), metric.limit, seed)
            if len(rows) not in shared:
                shared[len(rows)] = States(X if len(rows) == len(X) else X[rows])
            table.add(layer, metric, (shared[len(rows)],), owner[rows])
        for used in shared.values():
            used.release()
    return table.frame()


def measure_views(
    views: Mapping[int, tuple[Any, Any]],
    metrics: Sequence[str] | None = None,
    *,
    groups: Any = None,
    confidence: float | None = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    pooling: str | None = None,
    variant: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Registered pair metrics on every layer; `views` maps a layer to the two views (n, d) of its texts.

    Everything else as in `measure_layers`.

    >>> A = np.vstack([np.eye(3), -np.eye(3)])
    >>> table = measure_views({0: (A, 2 * A), 1: (A, -A)}, ["alignment"])
    >>> table[["layer", "value", "n"]].values.tolist()
    [[0, 0.0, 6], [1, 4.0, 6]]
    """
    place = {"site": site, "dataset": dataset, "pooling": pooling, "variant": variant}
    table = _Table(place, _checked(confidence), seed)
    chosen = _chosen(PAIR_METRICS, metrics)
    for layer in sorted(check_layers(views)):
        A, B = same_shape(*_pair(views[layer], layer))
        owner = _owners(groups, len(A))
        for metric in chosen:
            rows = sample_rows(len(A), metric.limit, seed)
            pair = (A, B) if len(rows) == len(A) else (A[rows], B[rows])
            table.add(layer, metric, pair, owner[rows])
    return table.frame()


def _pair(found: Any, layer: int) -> tuple[Any, Any]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise InputError(f"layer {layer} holds no pair: two arrays (n, d) are needed")
    return found[0], found[1]


def _checked(confidence: float | None) -> float | None:
    return None if confidence is None else check_confidence(confidence)


def _chosen(registry: Registry[Any], names: Sequence[str] | None) -> list[Any]:
    return [registry[name] for name in (registry if names is None else names)]


def _owners(groups: Any, n: int) -> IntArray:
    if groups is None:
        return np.arange(n)
    values = np.asarray(groups)
    if values.shape != (n,):
        raise DataError(
            f"groups have shape {values.shape}, ({n},) is needed: one per row of the states"
        )
    return np.unique(values, return_inverse=True)[1]


@dataclass
class _Table:
    """Collects one row per layer and metric, and the reasons of those that do not apply."""

    place: dict[str, Any]
    confidence: float | None
    seed: int

    def __post_init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def add(
        self, layer: int, metric: LayerMetric | PairMetric, data: tuple[Any, ...], owner: IntArray
    ) -> None:
        """`metric` of `data`: the states, or the two views; owner (n,) numbers the rows' groups."""
        try:
            found = self._estimate(metric, data, owner).row()
        except DoesNotApply as reason:
            found = {"value": None, "n": len(owner), "seed": self.seed}
            self.notes.append(f"layer {layer}: {reason}")
        name = metric.measure.name
        self.rows.append({"measure": name, "layer": int(layer), **self.place, **found})

    def _estimate(
        self, metric: LayerMetric | PairMetric, data: tuple[Any, ...], owner: IntArray
    ) -> Estimate:
        value, n = metric.compute(*data), len(owner)
        if self.confidence is None or metric.influence is None:
            return Estimate(value, None, None, n, self.seed)
        low, high = interval(value, metric.influence(*data), owner, metric.measure, self.confidence)
        return Estimate(value, low, high, n, self.seed)

    def frame(self) -> pd.DataFrame:
        frame = tidy(self.rows)
        frame.attrs.update(notes=self.notes, interval="infinitesimal jackknife")
        return frame


def interval(
    value: float, influence: FloatArray, owner: IntArray, measure: Measure, confidence: float
) -> tuple[float | None, float | None]:
    """value ± t · √Σ I_g², cut to the measure's range; none for fewer than three groups."""
    shares = np.bincount(np.unique(owner, return_inverse=True)[1], weights=influence)
    size = len(shares)
    if size < 3:
        return None, None
    quantile = stats.t.ppf(0.5 + confidence / 2, size - 1)
    half = float(quantile * np.sqrt(size / (size - 1) * (shares @ shares)))
    low, high = measure.low, measure.high
    return (
        value - half if low is None else max(low, value - half),
        value + half if high is None else min(high, value + half),
    )
