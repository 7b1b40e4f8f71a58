"""Retrieval among classes that a contrastive probe has never seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from probes.errors import DataError, InputError, unknown_name
from probes.linalg import check_matrix, normalise_rows
from probes.probing.base import FloatArray, IntArray
from probes.probing.contrastive import ContrastiveProbe
from probes.probing.contrastive_fit import found_first
from probes.probing.questions import group_codes
from probes.probing.rows import Place, read_layer, shared_layers
from probes.probing.scores import Resamples, Terms
from probes.tables import tidy

CONTROLS = ("shuffled", "raw")
INTERVAL = "percentile bootstrap over classes of out-of-fold retrieval, widened by Student's t"


def unseen_retrieval(
    A: Any,
    B: Any,
    classes: Any = None,
    *,
    probe: ContrastiveProbe | None = None,
    cv: int = 5,
    controls: Sequence[str] = ("shuffled",),
    seed: int = 0,
    confidence: float = 0.95,
    draws: int = 1000,
    site: str = "exit",
    dataset: str | None = None,
    concept: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
) -> pd.DataFrame:
    """Recall@1 between two views among classes that the probe was not trained on.

    Classes are dealt into `cv` folds. The probe is fitted on the pairs of the other folds; then each row
    of a fold seeks its partner, or another row of its class, among the fold's rows of the other view.

    Parameters
    ----------
    A, B : (n, d) and (n, d') states of two views, or mappings from layer to them. classes : (n,) names;
    None: every pair is its own class.
    controls : "shuffled" fits the probe on pairs whose partners are exchanged, and seeks the true ones:
    what is found without knowing the pairs (about chance for two maps; for a `shared` map, or views
    that share a basis, what their likeness gives by itself). "raw" seeks by the cosine of the states
    themselves, less the training rows' mean; for views of one width.
    probe : `ContrastiveProbe()` if None.

    Returns
    -------
    Tidy rows of `recall_at_1` in [0, 1], up is better, mean of both directions, per layer (null for
    plain arrays); n counts pairs. `attrs["chance"]` is the mean share of candidates of the right class.

    Raises `InputError` or `DataError` for views or classes that do not fit. Paper: Radford et al. 2021.

    >>> rng = np.random.default_rng(0)
    >>> thing = rng.normal(size=(60, 3))
    >>> A, B = thing @ rng.normal(size=(3, 6)), thing @ rng.normal(size=(3, 8))
    >>> table = unseen_retrieval(A, B, probe=ContrastiveProbe(dim=3, epochs=2), cv=3)
    >>> table.variant.tolist(), (table.value > 0.6).tolist(), round(table.attrs["chance"], 3)
    ([<NA>, 'shuffled'], [True, False], 0.05)
    """
    for name in controls:
        if name not in CONTROLS:
            raise unknown_name("control", name, CONTROLS)
    layers: list[int | None] = [None]
    if isinstance(A, Mapping) and isinstance(B, Mapping):
        layers = [*shared_layers({"A": A, "B": B})]
        n = len(A[layers[0]])
    elif isinstance(A, Mapping) or isinstance(B, Mapping):
        raise InputError("one view is a mapping of layers, the other is not: give two of a kind")
    else:
        n = len(np.asarray(A))
    code = group_codes(classes, n)
    code = np.arange(n) if code is None else code.astype(np.int64)
    rng = np.random.default_rng(seed)
    fold = _folds(code, cv, rng)
    fitted = ContrastiveProbe() if probe is None else probe
    place, resamples = (
        Place(site, dataset, concept, pooling, split),
        Resamples(n, code, draws, confidence, rng),
    )
    rows: list[dict[str, Any]] = []
    for layer in layers:
        if layer is None:
            views = check_matrix(A, "A"), check_matrix(B, "B")
            if len(views[1]) != n:
                raise DataError(f"view A has {n} rows, view B {len(views[1])}: the same are needed")
        else:
            views = read_layer(A, layer, "A", n), read_layer(B, layer, "B", n)
        for variant in (None, *controls):
            found = _found(fitted, views, code, fold, variant, np.random.default_rng(seed))
            term = Terms("recall_at_1", found[:, None], np.ones((n, 1)), 1.0, 0.0, 1.0)
            ((measure, estimate),) = resamples.estimates([term], seed)
            rows.append(place.row(measure, layer, variant, estimate))
    table = tidy(rows)
    table.attrs.update(interval=INTERVAL, chance=_chance(code, fold), classes=len(np.unique(code)))
    return table


def _folds(code: IntArray, cv: int, rng: np.random.Generator) -> IntArray:
    """(n,) the fold that tests a row; whole classes, at least two to a fold."""
    classes = int(code.max()) + 1
    if not 2 <= cv <= classes // 2:
        raise InputError(f"cv={cv} for {classes} classes: 2 to {classes // 2} folds are possible")
    fold = np.empty(classes, dtype=np.int64)
    fold[rng.permutation(classes)] = np.arange(classes) % cv
    return fold[code]


def _found(
    probe: ContrastiveProbe,
    views: tuple[FloatArray, FloatArray],
    code: IntArray,
    fold: IntArray,
    variant: str | None,
    rng: np.random.Generator,
) -> FloatArray:
    """(n,) share of right answers of each pair's two queries."""
    right = np.empty(len(code))
    if variant == "raw" and views[0].shape[1] != views[1].shape[1]:
        raise InputError(
            f"views of {views[0].shape[1]} and {views[1].shape[1]} dimensions have no raw cosine"
        )
    for number in range(int(fold.max()) + 1):
        test = fold == number
        first, second = (view[~test] for view in views)
        if variant == "raw":
            means = first.mean(axis=0), second.mean(axis=0)
            sought = [normalise_rows(v[test] - m) for v, m in zip(views, means, strict=True)]
        else:
            own, fitted = code[~test], _new(probe)
            if variant == "shuffled":  # exchanged partners share no class
                second, own = second[rng.permutation(len(second))], np.arange(len(second))
            fitted.fit(first, second, own)
            sought = [fitted.transform(v[test], view=at) for at, v in enumerate(views)]
        right[test] = found_first(sought[0], sought[1], code[test])
    return right


def _new(probe: ContrastiveProbe) -> ContrastiveProbe:
    copy: Any = clone(probe)
    return copy


def _chance(code: IntArray, fold: IntArray) -> float:
    """Mean over rows of the share of their class among the rows of their fold."""
    size, among = np.bincount(code)[code], np.bincount(fold)[fold]
    return float((size / among).mean())
