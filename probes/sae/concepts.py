"""Which feature tells a concept: AUROC of every feature, the best one picked on one half and judged on the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.probing import LinearProbe
from probes.sae.auroc import feature_aurocs
from probes.sae.halves import Halves, Labels
from probes.sae.metrics import Coder

FloatArray = NDArray[np.floating[Any]]
COLUMNS = (
    "dataset", "concept", "coder", "feature", "auroc", "low", "high", "n", "fit_auroc", "seed",
)  # fmt: skip


def feature_concepts(
    coders: Mapping[str, Coder | Any],
    X: Any,
    labels: Labels,
    groups: Any = None,
    *,
    dataset: str | None = None,
    dense: bool = True,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The best single feature of every coder for every concept, and a dense probe beside.

    Half of the rows (`seed`, stratified, groups on one side) picks the feature with the largest max(AUROC, 1 − AUROC)
    and says which way round it is read, for all coders alike; `auroc`, `low`, `high` are of the other half, where a
    feature without the concept has 0.5. 95 % percentile bootstrap over rows or groups, shared by all.

    coders: name → a coder, or its codes (n, m) where they are known, such as those of `text_codes` or X itself
    ("neurons"). X: (n, d) states, for coders and for the dense probe (`LinearProbe`, fitted on the fit half; row
    "dense"); may be None where neither needs it. labels: concept → (n,) of 0 and 1. groups: (n,), rows that belong
    together; `probes.datasets.splits.components` finds those of a dataset.

    Returns columns dataset, concept, coder, feature (null for "dense"), auroc, low, high, n (rows judged), fit_auroc,
    seed. Raises `EstimatorInputError` for shapes that differ, `DataError` for concepts too rare to be halved.
    See also `concepts_of_features`, `sparse_probing`.

    >>> rng = np.random.default_rng(0)
    >>> y = rng.random(200) < 0.5
    >>> codes = rng.random((200, 5)) * (rng.random((200, 5)) < 0.3)
    >>> codes[:, 3] += y
    >>> feature_concepts({"sae": codes}, None, {"told": y}, dense=False, resamples=100)["feature"].tolist()
    [3]
    """
    halves = Halves.make(labels, groups, resamples, seed)
    concepts = np.arange(len(halves.names))
    rows: list[dict[str, Any]] = []

    def add(coder: str, scores: FloatArray, features: Any, fit: Any) -> None:
        for concept, estimate in enumerate(halves.judged(scores, concepts.tolist())):
            row = {"dataset": dataset, "concept": halves.names[concept], "coder": coder}
            found = estimate.row()
            ends = {name: found[name] for name in ("low", "high", "n", "seed")}
            feature = None if features is None else int(features[concept])
            own = {"feature": feature, "auroc": found["value"], "fit_auroc": float(fit[concept])}
            rows.append({**row, **own, **ends})

    for name, coder in coders.items():
        codes = halves.codes(coder, X)
        known = feature_aurocs(codes[halves.fit], halves.labels[halves.fit])
        best = np.abs(known - 0.5).argmax(1)
        chosen = known[concepts, best]
        sign = np.where(chosen < 0.5, -1.0, 1.0)
        scores = codes[halves.judge][:, best].toarray() * sign
        add(name, scores, best, np.maximum(chosen, 1 - chosen))
    if dense:
        states = halves.states(X)
        probes = [_probe(halves, states, concept) for concept in concepts.tolist()]
        fit = [
            feature_aurocs(p.decision_function(states[halves.fit])[:, None], y)[0, 0]
            for p, y in zip(probes, halves.labels[halves.fit].T, strict=True)
        ]
        scores = np.stack([p.decision_function(states[halves.judge]) for p in probes], 1)
        add("dense", scores, None, fit)
    return _typed(pd.DataFrame(rows, columns=list(COLUMNS)))


def _probe(halves: Halves, states: FloatArray, concept: int) -> LinearProbe:
    groups = None if halves.groups is None else halves.groups[halves.fit]
    probe = LinearProbe(random_state=halves.seed)
    return probe.fit(states[halves.fit], halves.labels[halves.fit, concept], groups)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"feature": "Int64", "low": "Float64", "high": "Float64"})


def concepts_of_features(
    coder: Coder | Any,
    X: Any,
    labels: Labels,
    groups: Any = None,
    *,
    dataset: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The concept that each feature tells best by being active, picked on one half of the rows, judged on the other.

    Arguments as for `feature_concepts`, with one coder or its codes (n, m). One row per feature that is active in the
    fit half and in the other: feature, dataset, concept, auroc, auroc_low, auroc_high (on the other half), fit_auroc,
    n, seed.

    >>> rng = np.random.default_rng(0)
    >>> y = rng.random(200) < 0.5
    >>> codes = np.stack([y * 1.0, ~y * rng.random(200), 0 * y], 1)
    >>> concepts_of_features(codes, None, {"yes": y, "no": ~y}, resamples=100)[["feature", "concept"]].values.tolist()
    [[0, 'yes'], [1, 'no']]
    """
    halves = Halves.make(labels, groups, resamples, seed)
    codes = halves.codes(coder, X).tocsc()
    fit, judge = codes[halves.fit], codes[halves.judge]
    known = feature_aurocs(fit, halves.labels[halves.fit])
    features = np.flatnonzero((np.diff(fit.indptr) > 0) & (np.diff(judge.indptr) > 0))
    best = known[:, features].argmax(0)
    rows: list[dict[str, Any]] = []
    for lo in range(0, len(features), 512):  # dense for a moment
        part, own = features[lo : lo + 512], best[lo : lo + 512]
        estimates = halves.judged(judge[:, part].toarray(), own.tolist())
        for feature, concept, found in zip(part.tolist(), own.tolist(), estimates, strict=True):
            rows.append(
                {
                    "feature": feature,
                    "dataset": dataset,
                    "concept": halves.names[concept],
                    "auroc": found.value,
                    "auroc_low": found.low,
                    "auroc_high": found.high,
                    "fit_auroc": float(known[concept, feature]),
                    "n": found.n,
                    "seed": seed,
                }
            )
    names = [
        "feature",
        "dataset",
        "concept",
        "auroc",
        "auroc_low",
        "auroc_high",
        "fit_auroc",
        "n",
        "seed",
    ]
    return pd.DataFrame(rows, columns=names)
