"""All label-free metrics of every layer, one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from probes.errors import DataError, DoesNotApply, InputError
from probes.linalg import check_matrix
from probes.registry import LAYER_METRICS, LayerMetric
from probes.stats import Estimate, check_confidence
from probes.tables import tidy

FloatArray = NDArray[np.floating[Any]]


def measure_layers(
    states: Mapping[int, Any],
    metrics: Sequence[str] | None = None,
    *,
    groups: Any = None,
    confidence: float | None = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    pooling: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Registered layer metrics on every layer, as a tidy table with the columns of `probes.tables`.

    Parameters
    ----------
    states : layer -> (n, d), read one layer at a time. metrics : registered names, all when None.
    groups : (n,) rows that belong together count as one draw in the intervals.
    confidence : of the intervals; None leaves them out (the effective rank's needs singular
    vectors, about 4 times the work).

    The interval is value ± t · √Σ I_g², I_g the summed influence of group g on the value
    (infinitesimal jackknife, Jaeckel 1972), cut to the measure's range. It speaks of other texts in
    the same number; a bootstrap would be biased, for repeated rows lower the rank. Where a metric
    does not apply the value is null, with the reason in `attrs["notes"]`.

    Raises `InputError` for unknown metrics, `NonFiniteError` for NaN in the states.

    >>> table = measure_layers({0: np.eye(4), 1: np.ones((4, 2))}, ["anisotropy"])
    >>> table[["layer", "value"]].round(6).values.tolist()
    [[0, 0.0], [1, 1.0]]
    """
    if not isinstance(states, Mapping) or not len(states):
        raise InputError(
            "states must map layer numbers to (n, d) arrays and hold at least one layer"
        )
    chosen = [LAYER_METRICS[name] for name in (LAYER_METRICS if metrics is None else metrics)]
    if confidence is not None:
        check_confidence(confidence)
    place = {"site": site, "dataset": dataset, "pooling": pooling}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for layer in sorted(states):
        X = check_matrix(states[layer], f"layer {layer}")
        owner = _owners(groups, len(X))
        for metric in chosen:
            try:
                found = _estimate(metric, X, owner, confidence, seed).row()
            except DoesNotApply as reason:
                found = {"value": None, "n": len(X), "seed": seed}
                notes.append(f"layer {layer}: {reason}")
            rows.append({"measure": metric.measure.name, "layer": int(layer), **place, **found})
    frame = tidy(rows)
    frame.attrs.update(notes=notes, interval="infinitesimal jackknife")
    return frame


def _owners(groups: Any, n: int) -> NDArray[np.int64]:
    if groups is None:
        return np.arange(n)
    values = np.asarray(groups)
    if values.shape != (n,):
        raise DataError(
            f"groups have shape {values.shape}, ({n},) is needed: one per row of the states"
        )
    return np.unique(values, return_inverse=True)[1]


def _estimate(
    metric: LayerMetric,
    X: FloatArray,
    owner: NDArray[np.int64],
    confidence: float | None,
    seed: int,
) -> Estimate:
    value = metric.compute(X)
    size = int(owner.max()) + 1
    if confidence is None or metric.influence is None or size < 3:
        return Estimate(value, None, None, len(X), seed)
    shares = np.bincount(owner, weights=metric.influence(X))
    half = float(
        stats.t.ppf(0.5 + confidence / 2, size - 1) * np.sqrt(size / (size - 1) * (shares @ shares))
    )
    low, high = metric.measure.low, metric.measure.high
    return Estimate(
        value,
        value - half if low is None else max(low, value - half),
        value + half if high is None else min(high, value + half),
        len(X),
        seed,
    )
