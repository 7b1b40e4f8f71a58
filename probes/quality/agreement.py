"""Which label-free metric ranks the layers as labels do: on this model and these data, and how sure that is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from probes.errors import InputError
from probes.registry import Measure, register_measure
from probes.stats import percentile_interval, spearman

Array = NDArray[np.floating[Any]]

DEPTH = "layer number"  # a "metric" that knows nothing but the depth: what the others have to beat
FEWEST = 4  # layers below which a rank correlation says nothing
WALKS = 2000  # random curves behind a p-value

register_measure(
    Measure(
        "label_agreement",
        "Agreement with labels",
        "Spearman’s ρ",
        -1.0,
        1.0,
        "up",
        "Rank correlation over layers between a label-free metric and quality measured on labels; negative where "
        "smaller is better by its direction or the metric misleads.",
        "Skean et al. 2025 (Layer by Layer, arXiv 2502.02013)",
        0.0,
    )
)


def label_agreement(
    metrics: pd.DataFrame,
    quality: Array,
    draws: Array,
    *,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Rank correlation over layers of every metric with measured quality.

    Parameters
    ----------
    metrics : columns name, layer, value, low, high; a metric without a value at some layer is left out there.
    quality : (L + 1,) by layer 0…L. draws : (L + 1, draws), the same under resamples of the examples.

    Returns columns name, value, low, high, p, n (layers), seed, sorted by value. Two different questions:

    * low, high: would other examples and texts give the same at these very layers? Quality is redrawn over examples,
      each metric within its own interval (normal, independent over layers, which widens it). It says nothing about
      chance: two smooth curves that have nothing to do with each other agree or disagree strongly, and stably.
    * p: how often does a curve with the metric's own steps from layer to layer, in random order and direction, agree
      or disagree as strongly? Small only where the shape matters beyond its smoothness; with few layers it never is
      (see `walk_p`).

    Where a metric rises or falls with depth alone, "layer number" does as well. Metrics whose values are all the same,
    or known at fewer than four layers, have no rank correlation and are left out.

    >>> table = pd.DataFrame({"name": "m", "layer": range(5), "value": [1.0, 2, 3, 4, 5], "low": None, "high": None})
    >>> found = label_agreement(table, np.arange(5.0), np.tile(np.arange(5.0)[:, None], 100))
    >>> found[["name", "value"]].values.tolist()
    [['layer number', 1.0], ['m', 1.0]]
    """
    if quality.ndim != 1 or draws.ndim != 2 or len(draws) != len(quality):
        raise InputError(
            f"quality has shape {quality.shape} and its draws {draws.shape}: (layers,) and (layers, draws) are needed"
        )
    rng = np.random.default_rng(seed)
    rows = [
        _row(
            DEPTH,
            np.arange(len(quality)),
            np.arange(float(len(quality))),
            None,
            quality,
            draws,
            rng,
        )
    ]
    for name, held in metrics.groupby("name", sort=True):
        known: pd.DataFrame = held.loc[
            held["value"].notna() & held["layer"].between(0, len(quality) - 1)
        ]
        layers = known["layer"].to_numpy(dtype=np.int64)
        values = known["value"].to_numpy(dtype=np.float64)
        if len(np.unique(layers)) < FEWEST or len(layers) != len(np.unique(layers)):
            continue
        if len(np.unique(values)) == 1 or len(np.unique(quality[layers])) == 1:
            continue
        rows.append(
            _row(str(name), layers, values, _errors(known, confidence), quality, draws, rng)
        )
    frame = pd.DataFrame(rows).assign(seed=seed)
    return frame.sort_values(["value", "name"], ascending=[False, True], ignore_index=True)


def _errors(known: pd.DataFrame, confidence: float) -> Array:
    """Standard errors out of intervals; 0 where there is none."""
    z = float(special.ndtri(0.5 + confidence / 2))
    width = (known["high"].astype("Float64") - known["low"].astype("Float64")).fillna(0)
    return width.to_numpy(dtype=np.float64) / (2 * z)


def _row(
    name: str,
    layers: NDArray[np.int64],
    values: Array,
    errors: Array | None,
    quality: Array,
    draws: Array,
    rng: np.random.Generator,
) -> dict[str, Any]:
    drawn = draws[layers].T  # (draw, layer)
    moved = np.broadcast_to(values, drawn.shape)
    if errors is not None:
        moved = values + rng.normal(size=drawn.shape) * errors
    low, high = percentile_interval(spearman(moved, drawn))
    value = float(spearman(values, quality[layers]))
    p = walk_p(values, quality[layers], rng)
    # A bootstrap of ranks pulls towards 0: the estimate itself always belongs to its interval.
    return {
        "name": name,
        "value": value,
        "low": min(float(low), value),
        "high": max(float(high), value),
        "p": p,
        "n": len(layers),
    }


def walk_p(values: Array, quality: Array, rng: np.random.Generator, walks: int = WALKS) -> float:
    """How often a random curve agrees (or disagrees) with `quality` (L + 1,) at least as strongly as `values` does.

    The random curves are walks with the steps of `values` in random order and with random signs, so that they are as
    smooth as the metric. Exact (up to the number of walks) for metrics whose steps are exchangeable and as likely up
    as down; in (0, 1].

    >>> rng = np.random.default_rng(0)
    >>> up = np.arange(31.0)
    >>> walk_p(up, up, rng) < 0.2, walk_p(rng.permutation(up), up, rng) > 0.05
    (True, True)
    """
    steps = rng.permuted(np.tile(np.diff(values), (walks, 1)), axis=1)
    steps *= rng.choice((-1.0, 1.0), size=steps.shape)
    curves = np.concatenate([np.zeros((walks, 1)), steps.cumsum(axis=1)], axis=1)
    own = abs(float(spearman(values, quality)))
    as_strong = np.abs(spearman(curves, quality)) >= own - 1e-12
    return float((1 + as_strong.sum()) / (1 + walks))


def metric_names(frame: pd.DataFrame) -> list[str]:
    """How rows of the tidy table are called here: the measure, and its variant where it has one."""
    variants = frame["variant"].astype("string").fillna("")
    return [
        f"{measure}, {variant.removeprefix('view=')}" if variant else str(measure)
        for measure, variant in zip(frame["measure"], variants, strict=True)
    ]
