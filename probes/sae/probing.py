"""k-sparse probing: how well a concept is told from the k features that differ most, beside a dense probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import EstimatorInputError
from probes.probing import LinearProbe
from probes.sae.halves import Halves, Labels
from probes.sae.metrics import Coder

FloatArray = NDArray[np.floating[Any]]
KS = (1, 2, 5, 10, 20, 50)
COLUMNS = (
    "dataset", "concept", "coder", "features", "measure", "value", "low", "high", "n", "seed",
)  # fmt: skip


def sparse_probing(
    coders: Mapping[str, Coder | Any],
    X: Any,
    labels: Labels,
    groups: Any = None,
    ks: Sequence[int] = KS,
    *,
    dataset: str | None = None,
    dense: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """AUROC of a logistic probe on the k best features of each coder, for every concept and k.

    Half of the rows (`seed`, stratified, groups on one side) ranks the features by |mean where the concept is − mean
    where it is not| over their standard deviation (plain differences would favour the longest coordinates), and fits
    a `LinearProbe` on the first k; the AUROC is that of the other half, with 95 % percentile intervals over rows or
    groups, resamples shared by all. k beyond the features that differ at all are left out. "dense" is the same probe on
    all of X (features null).

    Arguments as for `feature_concepts`, to whose single features k = 1 comes near. Returns columns dataset, concept,
    coder, features, measure ("auroc"), value, low, high, n (rows judged), seed. Raises what `feature_concepts` raises,
    and `EstimatorInputError` for k below 1. Papers: Gurnee et al. 2023 (arXiv 2305.01610), Gao et al. 2024
    (arXiv 2406.04093).

    >>> rng = np.random.default_rng(0)
    >>> y = rng.random(200) < 0.5
    >>> codes = rng.random((200, 5)) * (rng.random((200, 5)) < 0.3)
    >>> codes[:, 3] += y
    >>> found = sparse_probing({"sae": codes}, codes, {"told": y}, ks=(1, 2), resamples=100)
    >>> found["features"].tolist(), bool((found["value"] > 0.9).all())
    ([1, 2, <NA>], True)
    """
    if not len(ks) or min(ks) < 1:
        raise EstimatorInputError(f"ks is {tuple(ks)}: numbers of features, 1 or more, are needed")
    halves = Halves.make(labels, groups, resamples, seed)
    rows: list[dict[str, Any]] = []
    for name, coder in coders.items():
        codes = halves.codes(coder, X).tocsc()
        codes.sum_duplicates()
        fit, judge = codes[halves.fit], codes[halves.judge]
        different = _differences(fit, halves.labels[halves.fit])
        for concept, size in enumerate(different):
            order = np.argsort(-size, kind="stable")[: int((size > 0).sum())]
            wanted = [k for k in sorted(set(ks)) if k <= len(order)]
            scores = [
                _scores(halves, concept, fit[:, order[:k]].toarray(), judge[:, order[:k]].toarray())
                for k in wanted
            ]
            rows += _rows(halves, dataset, concept, name, wanted, scores)
    if dense:
        states = halves.states(X)
        for concept in range(len(halves.names)):
            scores = [_scores(halves, concept, states[halves.fit], states[halves.judge])]
            rows += _rows(halves, dataset, concept, "dense", [None], scores)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"features": "Int64", "low": "Float64", "high": "Float64"})


def _differences(fit: Any, labels: NDArray[np.bool_]) -> FloatArray:
    """|mean with − mean without| over the standard deviation, of every feature for every concept: (concepts, m)."""
    inside = labels / labels.sum(0)
    outside = ~labels / (~labels).sum(0)
    apart = np.abs(np.asarray(fit.T @ (inside - outside)).T)
    mean = np.asarray(fit.mean(axis=0))
    spread = np.sqrt(np.maximum(np.asarray(fit.power(2).mean(axis=0)) - mean**2, 0))
    return np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 1e-6 * np.abs(mean))


def _scores(halves: Halves, concept: int, fit: FloatArray, judge: FloatArray) -> FloatArray:
    groups = None if halves.groups is None else halves.groups[halves.fit]
    probe = LinearProbe(random_state=halves.seed)
    probe.fit(fit, halves.labels[halves.fit, concept], groups)
    return probe.decision_function(judge)


def _rows(
    halves: Halves,
    dataset: str | None,
    concept: int,
    coder: str,
    features: Sequence[int | None],
    scores: Sequence[FloatArray],
) -> list[dict[str, Any]]:
    if not scores:
        return []
    estimates = halves.judged(np.stack(scores, 1), [concept] * len(scores))
    shared = {"dataset": dataset, "concept": halves.names[concept], "coder": coder}
    return [
        {**shared, "features": k, "measure": "auroc", **estimate.row()}
        for k, estimate in zip(features, estimates, strict=True)
    ]
