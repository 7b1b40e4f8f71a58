"""Accuracy against the number of labels: probes trained on few examples, tested on a fixed part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from probes.errors import InputError
from probes.probing.base import Concept, FloatArray, IntArray, fitted
from probes.probing.crossed import INTERVAL, crossed_mean
from probes.probing.folds import stratified_folds
from probes.probing.questions import concept as codes_of
from probes.probing.questions import group_codes
from probes.probing.ridge import RidgeProbe
from probes.probing.rows import Place, read_layer, shared_layers
from probes.tables import tidy

SIZES = (4, 8, 16, 32, 64)


def few_shot(
    states: Mapping[int, Any],
    labels: Any,
    sizes: Sequence[int] = SIZES,
    draws: int = 5,
    probe: BaseEstimator | None = None,
    *,
    layers: Sequence[int] | None = None,
    groups: Any = None,
    seed: int = 0,
    confidence: float = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    concept: str | None = None,
    pooling: str | None = None,
) -> pd.DataFrame:
    """Accuracy of a probe that was shown `size` labels, for several sizes, on every layer.

    Half of the rows (stratified, whole groups) are set aside as the test part, the same for all sizes, draws and
    layers. From the other half, `draws` times, the rows shown are drawn at random, as many of each class as of any
    other, to one; a draw of a larger size holds that of the smaller. Accuracy of the draws is averaged.

    Parameters
    ----------
    states : layer -> (n, d) states; `layers` picks some. labels : (n,) classes. groups : (n,), never on both sides.
    sizes : numbers of labels in all, not of each class. Sizes below two of each class, or for which some class has
    too few rows, are left out with a note. draws : two at least.
    probe : any scikit-learn classifier, `RidgeProbe()` if None.
    concept, dataset, site, pooling : written into the rows.

    Returns
    -------
    Tidy table with `accuracy` in [0, 1], up is better, and `balanced_accuracy` (chance: 1/K), variant `shots=16` and
    so on, the interval over draws and test examples (see `probes.probing.crossed`), n the number of test examples.
    `attrs["notes"]` says which sizes were left out, `attrs["chance"]` the share of the largest class in the test part.

    Raises `InputError` where no size is possible, and what `sweep` raises for data that do not fit. See also
    `mdl_sweep`, which sums up such a curve in one number. Paper: FEET (Lee et al. 2024, arXiv 2411.01322).

    >>> rng = np.random.default_rng(0)
    >>> y = rng.permutation(np.arange(200) % 2)
    >>> X = rng.normal(size=(200, 4)); X[:, 0] += 3 * y
    >>> table = few_shot({0: X}, y, sizes=(4, 32))
    >>> few, many = table[table.measure == "accuracy"].value
    >>> bool(0.5 < few < many), table.variant.unique().tolist()
    (True, ['shots=4', 'shots=32'])
    """
    if draws < 2:
        raise InputError(f"draws is {draws}: two or more are needed, for an interval over draws")
    own = codes_of(concept, labels)
    n = len(own.y)
    grouped = group_codes(groups, n)
    pool, test = stratified_folds(own.y, grouped, 2, seed)[0]
    shown, notes = _all_draws(own, pool, sizes, draws, seed)
    tested = None if grouped is None else grouped[test]
    place = Place(site, dataset, concept, pooling, None)
    judge = RidgeProbe() if probe is None else probe  # an unfitted ensemble has no truth value
    rows: list[dict[str, Any]] = []
    for layer in shared_layers({"the concept": states}, layers):
        X = read_layer(states, layer, "the states", n)
        for size, picks in shown.items():
            right = _right(judge, X, own.y, picks, test)
            for measure, scores in {
                "accuracy": right,
                "balanced_accuracy": _balanced(right, own.y[test]),
            }.items():
                found = crossed_mean(scores, tested, confidence=confidence, seed=seed)
                rows.append(place.row(measure, layer, f"shots={size}", found))
    table = tidy(rows)
    majority = float(np.bincount(own.y[test]).max() / len(test))
    chance = {"concept": own.name, "accuracy": majority, "balanced_accuracy": 1 / own.n_classes}
    table.attrs.update(
        interval=INTERVAL.format(draw="draw of the examples shown"), notes=notes, chance=[chance]
    )
    return table


def _all_draws(
    concept: Concept, pool: IntArray, sizes: Sequence[int], draws: int, seed: int
) -> tuple[dict[int, list[IntArray]], list[str]]:
    """Rows shown, per size and draw; and which sizes are impossible, and why."""
    K = concept.n_classes
    wanted = sorted({int(size) for size in sizes})
    fewest = np.bincount(concept.y[pool], minlength=K).min()
    possible = [size for size in wanted if size >= 2 * K and -(-size // K) <= fewest]
    if not possible:
        raise InputError(
            f"no size of {list(sizes)} is possible: {K} classes need {2 * K} labels at least, and the rarest has "
            f"{fewest} rows to draw from"
        )
    notes = [
        f"shots={size} is left out: {K} classes need {2 * K} labels at least"
        if size < 2 * K
        else f"shots={size} is left out: the rarest class has {fewest} rows to draw from"
        for size in wanted
        if size not in possible
    ]
    rng = np.random.default_rng(seed)
    queues = [_dealt(concept, pool, rng) for _ in range(draws)]
    return {size: [queue[:size] for queue in queues] for size in possible}, notes


def _dealt(concept: Concept, pool: IntArray, rng: np.random.Generator) -> IntArray:
    """Rows of `pool` class by class in turn, so that every prefix is balanced to one while no class runs out."""
    shuffled = rng.permutation(pool)
    y = concept.y[shuffled]
    turn = np.empty(len(y), dtype=np.int64)
    for k in range(concept.n_classes):
        own = y == k
        turn[own] = np.arange(own.sum())
    first = rng.permutation(concept.n_classes)  # which class gets the odd row
    return shuffled[np.lexsort([first[y], turn])]


def _right(
    probe: BaseEstimator, X: FloatArray, y: IntArray, picks: Sequence[IntArray], test: IntArray
) -> FloatArray:
    """Whether each test example was classified rightly, (draw, example) of 0 and 1."""
    right = np.empty((len(picks), len(test)))
    rows = X[test]
    for draw, shown in enumerate(picks):
        right[draw] = fitted(probe, X[shown], y[shown]).predict(rows) == y[test]
    return right


def _balanced(right: FloatArray, y: NDArray[np.int64]) -> FloatArray:
    """Scores whose mean over examples is the mean over classes of the share classified rightly.

    Their spread is that of balanced accuracy too: an example counts by its distance from its class's mean.
    """
    value = np.mean([right[:, y == k].mean() for k in np.unique(y)])
    scores = np.empty_like(right)
    for k in np.unique(y):
        own = y == k
        level = right[:, own].mean()
        weight = len(y) / (own.sum() * len(np.unique(y)))
        scores[:, own] = value + weight * (right[:, own] - level)
    return scores
