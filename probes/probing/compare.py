"""Is one concept readable only at a deeper layer than another?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from probes.errors import InputError
from probes.probing.base import FloatArray
from probes.probing.curves import Curve
from probes.probing.resampled import Resampled

TAIL_DRAWS = 5  # beyond the smallest tail that a pair may have to show
COLUMNS = (
    "a", "b", "depth_a", "depth_b", "difference", "low", "high", "p", "p_holm", "deeper",
)  # fmt: skip


def compare_depths(
    curves: Mapping[str, Curve] | Sequence[Curve],
    *,
    n_layers: int | None = None,
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Differences of robust depth between all pairs of concepts, with intervals and p-values.

    Parameters
    ----------
    curves : name -> curve, or curves of different concepts.
    n_layers : L, for depths as k/L; otherwise they are layers.
    draws : resamples, raised to what the correction for all pairs needs: with 1,000 draws no p is
    below 0.002, and times 66 pairs that says nothing.

    Returns
    -------
    One row per pair: `a`, `b`, `depth_a`, `depth_b`, `difference` = depth_a − depth_b with `low` and
    `high`, two-sided `p` ("equally deep"), `p_holm` corrected for all pairs (Holm 1979), and
    `deeper`, the name of the deeper concept where p_holm < 1 − confidence, else null. Concepts that
    are nowhere above chance have no depth and are left out; `attrs["notes"]` names them.

    Both concepts of a pair are judged at the coarser of their two resolutions (half-width of the
    interval of the peak over the peak's height above chance), a gain below it counts for neither:
    robust depth grows with the number of examples and with the strength of a concept, and that is
    not what is asked. `depth_a` may therefore be shallower than in the table of `depth_numbers`.

    Curves with the same rows and groups share their bootstrap draws, so that their difference is
    paired. (For different data that happen to be of one shape this is harmless: what draws have in
    common is weighed by the covariance of the scores.) p = 2 · min(P(d ≤ 0), P(d ≥ 0)) over draws.

    Raises `InputError` for repeated names.

    >>> from probes.probing import RidgeProbe, cross_validate
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 2
    >>> def planted(k):
    ...     states = {l: rng.normal(size=(200, 4)) + 3 * (l >= k) * y[:, None] for l in range(6)}
    ...     return cross_validate(RidgeProbe(), states, y).curve()
    >>> found = compare_depths({"early": planted(1), "late": planted(4)}, draws=2000)
    >>> found.loc[0, ["depth_a", "depth_b", "deeper"]].to_dict()
    {'depth_a': 1.0, 'depth_b': 4.0, 'deeper': 'late'}
    """
    named = _named(curves)
    possible = len(named) * (len(named) - 1) // 2
    draws = max(draws, int(np.ceil(TAIL_DRAWS * possible / (1 - confidence))))
    samples = {name: Resampled.of(c, draws, confidence, seed) for name, c in named.items()}
    deep = {name: sample for name, sample in samples.items() if sample.rises()}
    pairs = list(combinations(deep, 2))
    unit = 1.0 if n_layers is None else 1.0 / n_layers
    rows = [_compared(a, b, deep[a], deep[b], unit, confidence) for a, b in pairs]
    p_holm = holm(np.asarray([row["p"] for row in rows]))
    for row, p in zip(rows, p_holm, strict=True):
        deeper = row["a"] if row["difference"] > 0 else row["b"]
        row["p_holm"] = float(p)
        row["deeper"] = deeper if p < 1 - confidence and row["difference"] != 0 else None
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.attrs["notes"] = [
        f"{name!r} is nowhere significantly above chance and has no depth to compare"
        for name in samples
        if name not in deep
    ]
    return frame


def _named(curves: Mapping[str, Curve] | Sequence[Curve]) -> dict[str, Curve]:
    if isinstance(curves, Mapping):
        return dict(curves)
    named = {str(curve.concept): curve for curve in curves}
    if len(named) < len(curves):
        raise InputError("curves of one concept came twice: give a mapping from name to curve")
    return named


def _compared(
    a: str, b: str, first: Resampled, second: Resampled, unit: float, confidence: float
) -> dict[str, Any]:
    coarser = max(first.resolution(), second.resolution())
    (depth_a, drawn_a), (depth_b, drawn_b) = (_depths(s, coarser, unit) for s in (first, second))
    drawn = drawn_a - drawn_b
    difference = depth_a - depth_b
    tail = (1 - confidence) / 2
    low = float(np.quantile(drawn, tail, method="lower"))
    high = float(np.quantile(drawn, 1 - tail, method="higher"))
    # the sample itself counts as one more draw (Davison & Hinkley 1997), so p is never 0
    sides = [(1 + np.count_nonzero(side)) / (1 + len(drawn)) for side in (drawn <= 0, drawn >= 0)]
    return {
        "a": a,
        "b": b,
        "depth_a": depth_a,
        "depth_b": depth_b,
        "difference": difference,
        "low": min(low, difference),
        "high": max(high, difference),
        "p": float(min(1.0, 2 * min(sides))),
    }


def _depths(sample: Resampled, resolution: float, unit: float) -> tuple[float, FloatArray]:
    """Robust depth of the curve and of its draws at that resolution."""
    margin = resolution * sample.height()
    layers = np.asarray(sample.curve.layers) * unit
    here = sample.robust(sample.curve.values[None], margin)[0]
    # a draw has the noise of the sample and its own: differences of equal layers vary twice as much
    return float(layers[here]), layers[sample.robust(sample.draws, margin, np.sqrt(2))]


def holm(p: FloatArray) -> FloatArray:
    """p-values corrected for all of them together: step-down Bonferroni (Holm 1979), in the order given.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(stepped)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
