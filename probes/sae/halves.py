"""Labelled rows in two halves, features picked on one and judged on the other; AUROC with intervals on the latter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import DataError, EstimatorInputError
from probes.linalg import check_matrix
from probes.probing.folds import stratified_folds
from probes.probing.scores import Resamples, Terms, placements
from probes.sae.metrics import Coder
from probes.stats import Estimate
from probes.types import LabelledTexts

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]
Labels = Mapping[str, Any]
_COLUMNS = 256  # judged at a time


def concept_labels(dataset: LabelledTexts, least: int = 20) -> dict[str, NDArray[np.bool_]]:
    """One concept per class, the class against the rest, and only the second one of two: name → (n,) bool.

    Classes with fewer than `least` rows, or fewer rows beside them, are left out.

    >>> data = LabelledTexts.make("moods", ["a", "b", "c"], ["sad", "glad", "sad"])
    >>> {name: y.tolist() for name, y in concept_labels(data, least=1).items()}
    {'sad': [True, False, True]}
    """
    names = list(enumerate(dataset.label_names))
    found: dict[str, NDArray[np.bool_]] = {}
    for code, name in names[1:] if len(names) == 2 else names:
        own = np.asarray(dataset.labels == code)
        if min(int(own.sum()), int((~own).sum())) >= least:
            found[name] = own
    return found


@dataclass(frozen=True)
class Halves:
    """Rows to `fit` and to `judge`; no group in both. `labels` (n, concepts) bool under `names`."""

    names: tuple[str, ...]
    labels: NDArray[np.bool_]
    groups: NDArray[Any] | None
    fit: IntArray
    judge: IntArray
    resamples: Resamples
    seed: int

    @classmethod
    def make(cls, labels: Labels, groups: Any, resamples: int, seed: int) -> Halves:
        """Stratified by the classes of all concepts together; `DataError` where a half lacks one side of a concept."""
        names = tuple(str(name) for name in labels)
        columns = [_binary(name, y) for name, y in labels.items()]
        if not columns or len({len(column) for column in columns}) != 1:
            raise EstimatorInputError(
                "labels: one or more concepts of equally many rows are needed"
            )
        table = np.stack(columns, axis=1)
        own = None if groups is None else np.asarray(groups)
        if own is not None and own.shape != (len(table),):
            raise EstimatorInputError(f"groups have shape {own.shape}, ({len(table)},) is needed")
        code = None if own is None else np.unique(own, return_inverse=True)[1].astype(np.int64)
        strata = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
        fit, judge = stratified_folds(strata, code, 2, seed)[0]
        for half, rows in (("fit", fit), ("other", judge)):
            for name, column in zip(names, table[rows].T, strict=True):
                if column.all() or not column.any():
                    raise DataError(
                        f"concept {name!r} has one class in the {half} half: more rows or finer groups are needed"
                    )
        rng = np.random.default_rng((seed, 5))
        judged = None if code is None else code[judge]
        draws = Resamples(len(judge), judged, resamples, 0.95, rng)
        return cls(names, table, code, fit, judge, draws, seed)

    def codes(self, coder: Coder | Any, X: Any) -> Any:
        """Codes of all rows, (n, m) CSR: by the coder from X (n, d), or `coder` itself where it is a matrix."""
        made = coder.transform(X) if hasattr(coder, "transform") else coder
        table: Any = sparse.csr_array(made)
        if table.ndim != 2 or table.shape[0] != len(self.labels):
            raise EstimatorInputError(
                f"codes have shape {table.shape}, the labels {len(self.labels)} rows: both must agree"
            )
        return table

    def states(self, X: Any) -> FloatArray:
        """X itself, checked."""
        states = check_matrix(X)
        if len(states) != len(self.labels):
            raise EstimatorInputError(
                f"X has {len(states)} rows, the labels {len(self.labels)}: both must agree"
            )
        return states

    def judged(self, scores: FloatArray, concepts: Sequence[int]) -> list[Estimate]:
        """AUROC on the judged half of score columns (judge, c), each for its concept, all on the same resamples.

        The interval is the percentile bootstrap over rows or groups of the linearised AUROC (DeLong et al. 1988).
        """
        fold = np.zeros(len(self.judge), np.int64)
        found: list[Estimate] = []
        for lo in range(0, len(concepts), _COLUMNS):
            terms: list[Terms] = []
            for column, concept in enumerate(concepts[lo : lo + _COLUMNS], lo):
                placed = placements(self.labels[self.judge, concept], scores[:, column], fold)
                assert placed is not None  # both classes are there
                terms.append(Terms("auroc", placed[0], placed[1], 1.0, -placed[2], 1.0))
            found += [estimate for _, estimate in self.resamples.estimates(terms, self.seed)]
        return found


def _binary(name: str, y: Any) -> NDArray[np.bool_]:
    values = np.asarray(y)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise EstimatorInputError(
            f"labels of {name!r}: one of 0 and 1 (False, True) per row is needed; "
            "`concept_labels` makes them from classes"
        )
    return values.astype(bool)
