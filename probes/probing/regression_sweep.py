"""Numbers read from every layer: cross-validated ridge regression as a tidy table and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DataError, InputError, unknown_name
from probes.probing.base import Concept, FloatArray, IntArray
from probes.probing.curves import Curve
from probes.probing.folds import FoldPlan, Folds
from probes.probing.layerwise import INTERVAL
from probes.probing.questions import cv_folds, group_codes
from probes.probing.regression import RidgeRegressionProbe
from probes.probing.regression_scores import as_terms, r2_scores, spearman_scores
from probes.probing.rows import Place, read_layer, shared_layers
from probes.probing.scores import Resamples
from probes.tables import tidy

CONTROLS = ("shuffled",)
STRATA = 10  # quantiles of the first target that every fold holds alike


@dataclass(frozen=True)
class Numbers:
    """What is asked: targets Y (t, n) of one concept, under which condition."""

    name: str | None
    Y: FloatArray
    variant: str | None = None


def regression_sweep(
    states: Mapping[int, Any],
    targets: Any,
    cv: int | Sequence[tuple[Any, Any]] = 5,
    *,
    probe: RidgeRegressionProbe | None = None,
    groups: Any = None,
    controls: Sequence[str] = (),
    seed: int = 0,
    confidence: float = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    concept: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
    variant: str | None = None,
    draws: int = 1000,
) -> tuple[pd.DataFrame, list[Curve]]:
    """Cross-validate a `RidgeRegressionProbe` on every layer.

    Parameters
    ----------
    states : layer -> (n, d) states, read one layer at a time.
    targets : finite numbers (n,) or (n, t), such as years or latitude and longitude, or a mapping from concept to
    such: concepts share folds and factorisations. Every target has its own λ.
    cv : number of folds (deciles of the first target spread evenly, `groups` never straddle them), or a list of
    (train, test) row numbers. controls : "shuffled" adds rows with that variant, targets permuted within folds.
    concept, dataset, site, pooling, split, variant : written into the rows.

    Returns
    -------
    Tidy table with `r2` (at most 1; 0: no better than the mean of the training rows) and `spearman` (−1…1, within
    folds), several targets averaged, with interval (see `probes.probing.regression_scores`), n and seed; and a `Curve`
    of R² per concept and variant. `attrs` hold `chosen` (λ per layer, concept, fold and target), `chance`,
    `notes` and `interval`.

    Raises `DataError` or `InputError` for targets, groups, folds or states that do not fit, `NonFiniteError` for NaN
    in states. See also `sweep` for classes. Paper: Gurnee & Tegmark 2023 (arXiv 2310.02207).

    >>> rng = np.random.default_rng(0)
    >>> place = rng.normal(size=(120, 2))
    >>> noise, signal = rng.normal(size=(2, 120, 6))
    >>> signal[:, :2] += 5 * place
    >>> table, curves = regression_sweep({0: noise, 1: signal}, place)
    >>> (table[table.measure == "r2"].value > 0.5).tolist(), curves[0].scores.shape
    ([False, True], (2, 120))
    """
    for name in controls:
        if name not in CONTROLS:
            raise unknown_name("control", name, CONTROLS)
    asked = numbers_of(targets, concept, variant)
    n = asked[0].Y.shape[1]
    grouped = group_codes(groups, n)
    folds = number_folds(cv, asked, grouped, seed)
    rng = np.random.default_rng(seed)
    if "shuffled" in controls:
        asked += [_shuffled(numbers, folds, rng) for numbers in asked]
    _check_training(asked, folds)
    run = _Run(probe or RidgeRegressionProbe(), asked, folds, grouped)
    resamples = Resamples(len(run.tested), run.groups, draws, confidence, rng)
    place = Place(site, dataset, None, pooling, split)
    rows: list[dict[str, Any]] = []
    layers = shared_layers({"the targets": states})
    for layer in layers:
        for numbers, found in zip(
            asked, run.layer(layer, read_layer(states, layer, "the states", n)), strict=True
        ):
            for measure, estimate in resamples.estimates(
                [as_terms(m, s) for m, s in found.items()], seed
            ):
                row = place.row(measure, layer, numbers.variant, estimate)
                rows.append(row | {"concept": numbers.name})
    table = tidy(rows)
    chance = [
        {"concept": a.name, "r2": 0.0, "spearman": 0.0} for a in asked if a.variant == variant
    ]
    table.attrs.update(interval=INTERVAL, chosen=run.chosen, notes=[], chance=chance)
    return table, run.curves(layers)


class _Run:
    """Everything about rows and folds once; then the scores of each layer."""

    def __init__(
        self,
        probe: RidgeRegressionProbe,
        asked: list[Numbers],
        folds: Folds,
        groups: NDArray[Any] | None,
    ) -> None:
        n = asked[0].Y.shape[1]
        self.probe, self.asked, self.folds, self.all_groups = probe, asked, folds, groups
        self.plan = FoldPlan.make([train for train, _ in folds], n)
        self.Y = np.concatenate([numbers.Y for numbers in asked])  # (all targets, n)
        self.owner = np.repeat(np.arange(len(asked)), [len(numbers.Y) for numbers in asked])
        self.fold_of = np.full(n, -1)
        self.baseline = np.zeros_like(self.Y)
        for number, (train, test) in enumerate(folds):
            self.fold_of[test] = number
            self.baseline[:, test] = self.Y[:, train].mean(axis=1, keepdims=True)
        self.tested = np.flatnonzero(self.fold_of >= 0)
        self.groups = None if groups is None else groups[self.tested]
        self.r2: list[list[FloatArray]] = [[] for _ in asked]
        self.chosen: list[dict[str, Any]] = []

    def layer(self, layer: int, X: FloatArray) -> list[dict[str, FloatArray]]:
        """Scores (tested,) by measure, one dictionary per concept."""
        predicted, alphas = self.probe.out_of_fold(
            X, self.Y, self.folds, self.plan, self.all_groups
        )
        results: list[dict[str, FloatArray]] = []
        for number, numbers in enumerate(self.asked):
            own = np.ix_(self.owner == number, self.tested)
            Y, guess = self.Y[own], predicted[own]
            found = {
                "r2": r2_scores(Y, guess, self.baseline[own]),
                "spearman": spearman_scores(Y, guess, self.fold_of[self.tested]),
            }
            self.r2[number].append(found["r2"])
            results.append(found)
            place = {"layer": layer, "concept": numbers.name, "variant": numbers.variant}
            for fold, row in enumerate(alphas[:, self.owner == number]):
                self.chosen += [
                    {**place, "fold": fold, "target": t, "value": float(value)}
                    for t, value in enumerate(row)
                ]
        return results

    def curves(self, layers: Sequence[int]) -> list[Curve]:
        return [
            Curve(
                numbers.name,
                numbers.variant,
                "r2",
                tuple(layers),
                np.stack(scores),
                self.tested,
                self.groups,
                0.0,
            )
            for numbers, scores in zip(self.asked, self.r2, strict=True)
        ]


def numbers_of(targets: Any, name: str | None, variant: str | None = None) -> list[Numbers]:
    """Targets as finite numbers, one entry per concept."""
    if isinstance(targets, Mapping):
        if not targets:
            raise InputError("targets hold no concept: at least one is needed")
        found = [_numbers(str(key), values, variant) for key, values in targets.items()]
    else:
        found = [_numbers(name, targets, variant)]
    lengths = {numbers.Y.shape[1] for numbers in found}
    if len(lengths) > 1:
        raise DataError(
            f"targets of different lengths ({sorted(lengths)}): all belong to the same rows"
        )
    return found


def _numbers(name: str | None, targets: Any, variant: str | None) -> Numbers:
    of = f" of {name!r}" if name else ""
    values = np.asarray(targets)
    if values.ndim not in (1, 2) or values.dtype.kind not in "fiu" or not values.size:
        raise DataError(
            f"targets{of} have shape {values.shape} and type {values.dtype}: numbers (n,) or (n, t) are needed"
        )
    Y = np.atleast_2d(values.astype(np.float64).T)
    finite = np.isfinite(Y).all(axis=0)
    if not finite.all():
        raise DataError(
            f"targets{of} hold NaN or infinity in row {int(np.flatnonzero(~finite)[0])}: remove the row"
        )
    return Numbers(name, Y, variant)


def number_folds(
    cv: Any, asked: Sequence[Numbers], groups: NDArray[Any] | None, seed: int
) -> Folds:
    """Folds in which the deciles of the first target are spread evenly."""
    first = asked[0].Y[0]
    place = np.argsort(np.argsort(first, kind="stable"), kind="stable")
    strata = min(STRATA, max(1, len(first) // (cv if isinstance(cv, int) and cv > 0 else 1)))
    codes = (place * strata // len(first)).astype(np.int64)
    return cv_folds(cv, [Concept(None, codes, strata)], groups, seed)


def _shuffled(numbers: Numbers, folds: Folds, rng: np.random.Generator) -> Numbers:
    """Rows of the targets permuted within each test part; the targets of a row stay together."""
    Y = numbers.Y.copy()
    for _, test in folds:
        Y[:, test] = Y[:, rng.permutation(test)]
    return Numbers(numbers.name, Y, "shuffled")


def _check_training(asked: Sequence[Numbers], folds: Folds) -> None:
    for numbers in asked:
        of = f" of {numbers.name!r}" if numbers.name else ""
        for fold, (train, _) in enumerate(folds):
            _refuse_constant(numbers.Y[:, train], f"fold {fold} trains on one value{of} only")
            if len(train) < 3:
                raise DataError(f"fold {fold} trains on {len(train)} rows: three are needed")
        tested: IntArray = np.concatenate([test for _, test in folds])
        _refuse_constant(numbers.Y[:, tested], f"all targets{of} tested are equal")


def _refuse_constant(Y: FloatArray, what: str) -> None:
    constant = np.flatnonzero(np.ptp(Y, axis=1) == 0)
    if len(constant):
        raise DataError(
            f"{what} (target {int(constant[0])}): nothing can be explained; leave that target out"
        )
