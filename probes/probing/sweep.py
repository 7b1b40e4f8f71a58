"""All layers, folds and regularisation strengths of a probe in one call: a table, and scores of every example."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sklearn.base import BaseEstimator

from probes.errors import InputError
from probes.probing.curves import Curve
from probes.probing.layerwise import Layerwise, SweepOptions, out_of_fold
from probes.probing.questions import CONTROLS, ask, concepts_of

__all__ = ["CONTROLS", "BelowChanceWarning", "Swept", "cross_validate", "out_of_fold", "sweep"]


class BelowChanceWarning(UserWarning):
    """A probe is significantly worse than guessing: nearly always related examples on both sides of a split."""


@dataclass(frozen=True)
class Swept:
    """What `cross_validate` found.

    `table` is the tidy table of `sweep`. `curves` holds one `Curve` of accuracy per concept and variant, probe and
    controls alike. `levels` holds the bag of words, if asked for: a curve of one layer, 0, which means nothing, as it
    knows no layers. All curves share rows and groups.
    """

    table: pd.DataFrame
    curves: list[Curve]
    levels: list[Curve]

    @property
    def attrs(self) -> dict[Any, Any]:
        """Those of the table: `chosen`, `chance`, `notes`, `interval`."""
        return self.table.attrs

    @property
    def notes(self) -> list[str]:
        """What a reader must know."""
        return self.table.attrs["notes"]

    def curve(self, concept: str | None = None, variant: str | None = None) -> Curve:
        """The curve of that concept and variant."""
        for curve in (*self.curves, *self.levels):
            if (curve.concept, curve.variant) == (concept, variant):
                return curve
        had = ", ".join(f"({c.concept}, {c.variant})" for c in (*self.curves, *self.levels))
        raise InputError(f"no curve of concept {concept!r}, variant {variant!r}; there are {had}")


def cross_validate(
    probe: BaseEstimator,
    states: Mapping[int, Any],
    labels: Any,
    cv: int | Sequence[tuple[Any, Any]] = 5,
    *,
    groups: Any = None,
    controls: Sequence[str] = (),
    texts: Sequence[str | tuple[str, str]] | None = None,
    types: Any = None,
    variant: str | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    concept: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
    draws: int = 1000,
) -> Swept:
    """Cross-validate a probe on every layer, beside its controls; keep every example's score.

    Parameters
    ----------
    probe : any scikit-learn classifier; `LinearProbe` and `RidgeProbe` solve all folds and
    strengths of a layer at once.
    states : layer -> (n, d) states; read one layer at a time, so a store's lazy mapping keeps
    memory at one layer.
    labels : (n,) classes, or a mapping from concept to labels: concepts share folds and, with
    `RidgeProbe`, the factorisation.
    cv : number of folds (stratified, `groups` never straddle them), or a list of (train, test) row
    numbers.
    controls : each adds rows with its name as `variant`.
        "shuffled": labels permuted within folds.
        "control-task": every word type has one random class, drawn with the shares of the real
        labels (Hewitt & Liang 2019); adds `selectivity` too, accuracy minus that on the control
        task, paired by example. A row's type is the last word of its text, or given by `types`.
        Left out with a note where types cannot tell classes apart (all texts end alike).
        "bag-of-words": TF-IDF of words and word pairs of the texts, logistic regression; rows
        without a layer.
    texts : (n,) strings or pairs of strings, for the two last. types : (n,) word types.
    variant : written into all rows: the states of an untrained model, of noisy texts, …
    concept, dataset, site, pooling, split : written into the rows.

    Returns
    -------
    `Swept`, whose table is described at `sweep`.

    Raises `InputError` or `DataError` for labels, groups, folds, texts or states that do not fit,
    `NonFiniteError` for NaN in states. Warns `BelowChanceWarning` where balanced accuracy, of the
    probe or the bag of words, is significantly below chance. See also `depth_numbers`.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(80) % 2
    >>> noise, signal = rng.normal(size=(2, 80, 4))
    >>> signal[:, 0] += 4 * y
    >>> from probes.probing import RidgeProbe
    >>> swept = cross_validate(RidgeProbe(), {0: noise, 1: signal}, y, cv=4)
    >>> (swept.curve().values > 0.8).tolist(), swept.curve().scores.shape
    ([False, True], (2, 80))
    """
    if not isinstance(states, Mapping) or not len(states):
        raise InputError(
            "states must map layer numbers to (n, d) arrays and hold at least one layer"
        )
    questions = ask(
        concepts_of(labels, concept, variant),
        cv,
        groups=groups,
        controls=controls,
        texts=texts,
        types=types,
        seed=seed,
    )
    options = SweepOptions(site, dataset, pooling, split, confidence, draws, seed)
    run = Layerwise(probe, questions, options)
    run.words()
    for layer in sorted(states):
        run.layer(layer, states[layer])
    for note in run.below_chance:
        warnings.warn(note, BelowChanceWarning, stacklevel=_level_of_caller())
    return Swept(run.table(), run.curves(), run.levels)


def sweep(
    probe: BaseEstimator,
    states: Mapping[int, Any],
    labels: Any,
    cv: int | Sequence[tuple[Any, Any]] = 5,
    **options: Any,
) -> pd.DataFrame:
    """Cross-validate a probe on every layer: the table of `cross_validate`, which lists the `options`.

    Returns
    -------
    Tidy DataFrame with `accuracy`, `balanced_accuracy` and `auroc` (macro one-vs-rest for more than
    two classes, absent above 100 classes; pairs of the same fold only), each in [0, 1], up is
    better, with interval (see `probes.probing.scores`), n and seed; `selectivity` with the control
    task. `attrs["chosen"]` lists the regularisation of every layer, concept and fold,
    `attrs["chance"]` the chance level of every concept, `attrs["notes"]` what a reader must know,
    `attrs["interval"]` what the interval is.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(80) % 2
    >>> noise, signal = rng.normal(size=(2, 80, 4))
    >>> signal[:, 0] += 4 * y
    >>> from probes.probing import RidgeProbe
    >>> table = sweep(RidgeProbe(), {0: noise, 1: signal}, y, cv=4)
    >>> table[table.measure == "accuracy"].set_index("layer").value > 0.8
    layer
    0    False
    1     True
    Name: value, dtype: boolean
    """
    return cross_validate(probe, states, labels, cv, **options).table


def _level_of_caller() -> int:
    """The `stacklevel` at which a warning of the function that asks names the first line outside this file."""
    level, frame = 1, inspect.currentframe()
    frame = frame.f_back if frame else None
    while frame is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    return level
