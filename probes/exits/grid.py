"""Quality of every layer at every width, in one pass over the layers, with intervals from shared resamples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.resample import Resamples
from probes.exits.tasks import Task
from probes.linalg import check_matrix
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
States = (
    Array | Mapping[int, Array]
)  # one array cut to many widths, or an array of its own for each
Progress = Callable[[int, int, str], None]

SITE = "exit"


def default_dims(d: int) -> list[int]:
    """Powers of two from 8 below d, then d itself.

    >>> default_dims(384)
    [8, 16, 32, 64, 128, 256, 384]
    """
    return [2**p for p in range(3, 64) if 2**p < d] + [d]


@dataclass(frozen=True)
class GridResult:
    """Rows for the tidy table, and the primary measure's scores per candidate and example."""

    rows: list[dict[str, Any]]
    scores: CandidateScores


@dataclass(frozen=True)
class GridPlan:
    """How the grid is measured: widths (None: powers of two from 8, plus d), draws, seed, confidence, pooling."""

    dims: tuple[int, ...] | None = None
    draws: int = 1000
    seed: int = 0
    confidence: float = 0.95
    pooling: str | None = None

    def widths(self, d: int) -> list[int]:
        """The widths to measure on states with d coordinates: sorted, d included."""
        if self.dims is None:
            return default_dims(d)
        bad = [m for m in self.dims if not 1 <= m <= d]
        if bad:
            raise InputError(f"dim {bad[0]}: 1 to {d} coordinates can be kept of this model's {d}")
        return sorted({*self.dims, d})


def layer_dim_grid(
    task: Task,
    variants: Mapping[str | None, Mapping[int, States]],
    splits: Mapping[str, IntArray],
    fit: IntArray,
    plan: GridPlan | None = None,
    progress: Progress | None = None,
) -> GridResult:
    """Every measure of `task` at every layer × width × variant.

    Parameters: `variants` maps a variant's name (None: raw) to its states per layer, (texts, d) each, read once,
    one layer at a time; the raw variant must hold the last layer, which is the full model. A layer may hold a mapping
    instead, from dim to states that are measured whole: sparse codes by their active numbers. `splits` names sets of
    examples to report; `all` is added. `fit` are the examples that probes are fitted on (used by classification
    only).

    Intervals are percentile bootstraps over clusters of examples; one set of resamples per split serves all cells,
    so cells may be compared draw by draw. Raises `NonFiniteError` with layer and variant where states hold NaN.

    Returns rows with measure, site, layer, dim, pooling, dataset, split, variant, value, low, high, n, seed.
    """
    plan = plan or GridPlan()
    if None not in variants or not variants[None]:
        raise InputError(
            "the raw states (variant None) are needed: their last layer is the full model"
        )
    parts = {"all": np.arange(len(task)), **splits}
    resamples = {
        name: Resamples.make(len(rows), plan.draws, plan.seed, task.clusters[rows])
        for name, rows in parts.items()
        if len(rows)
    }
    jobs = [(variant, layer) for variant, layers in variants.items() for layer in sorted(layers)]
    rows: list[dict[str, Any]] = []
    candidates: list[Candidate] = []
    scores: list[Array] = []
    for done, (variant, layer) in enumerate(jobs):
        if progress:
            progress(done, len(jobs), "measuring quality at every layer and width")
        what = f"layer {layer} ({variant or 'raw'})"
        dims, cells = _cells(task, variants[variant][layer], fit, plan, what)
        where = {"layer": layer, "variant": variant, "pooling": plan.pooling}
        for name, drawn in resamples.items():
            rows += _rows(task, cells, dims, parts[name], drawn, {**where, "split": name}, plan)
        candidates += [Candidate(variant, layer, m) for m in dims]
        scores.append(cells[task.primary])
    if progress:
        progress(len(jobs), len(jobs), "measuring quality at every layer and width")
    last = max(variants[None])
    full = max(
        (c for c in candidates if c.variant is None and c.layer == last), key=lambda c: c.dim
    )
    return GridResult(rows, CandidateScores(task, tuple(candidates), np.concatenate(scores), full))


def _cells(
    task: Task, held: States, fit: IntArray, plan: GridPlan, name: str
) -> tuple[list[int], dict[str, Array]]:
    """The dims of one layer and variant, and every measure per dim and example: {measure: (dims, n)}."""
    if not isinstance(held, Mapping):
        states = check_matrix(held, name)
        dims = plan.widths(states.shape[1])
        return dims, task.score(states, dims, fit)
    dims, parts = sorted(held), list[dict[str, Array]]()
    for m in dims:
        states = check_matrix(held[m], name)
        parts.append(task.score(states, [states.shape[1]], fit))
    return dims, {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _rows(
    task: Task,
    cells: Mapping[str, Array],
    dims: Sequence[int],
    rows: IntArray,
    resamples: Resamples,
    where: Mapping[str, Any],
    plan: GridPlan,
) -> list[dict[str, Any]]:
    """Rows of one layer, variant and split for all measures and widths."""
    result: list[dict[str, Any]] = []
    for measure in task.measures:
        values = task.estimate(measure, cells[measure], rows)
        draws = task.draws(measure, cells[measure], rows, resamples)
        low, high = percentile_interval(draws, plan.confidence, axis=1)
        for step, m in enumerate(dims):
            numbers = {
                "value": float(values[step]),
                "low": float(low[step]),
                "high": float(high[step]),
            }
            fixed = {"measure": measure, "site": SITE, "dim": m, "dataset": task.name}
            result.append({**fixed, **where, **numbers, "n": len(rows), "seed": plan.seed})
    return result
