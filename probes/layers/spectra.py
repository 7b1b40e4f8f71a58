"""Singular values of layers, for curves of the spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError
from probes.layers.states import States, sample_rows
from probes.linalg import check_matrix

FloatArray = NDArray[np.floating[Any]]


def spectrum(X: Any, center: bool = True) -> FloatArray:
    """Singular values of X (n, d), largest first, (min(n, d),) float64; of the centred X by default.

    In the unit of the states. Raises `DoesNotApply` where there is no direction at all. See also
    `effective_rank`, `top_share`, which are numbers of it.

    >>> import numpy as np
    >>> spectrum(np.diag([3.0, 2.0, 1.0]), center=False).round(6).tolist()
    [3.0, 2.0, 1.0]
    """
    states = States.of(X)
    found = states.centred("spectrum") if center else states.uncentred("spectrum")
    return found.sigma * states.scale


def spectra(
    states: Mapping[int, Any], center: bool = True, limit: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Singular values of every layer: one row for each layer and rank.

    Columns layer, rank (from 1), singular_value, share (of the variance: σ² / Σ σ²), n, seed. `limit`
    takes so many rows, drawn by `seed`. Layers without any direction are left out, with the
    reason in `attrs["notes"]`.

    >>> import numpy as np
    >>> spectra({0: np.diag([2.0, 1.0])}, center=False)["share"].round(6).tolist()
    [0.8, 0.2]
    """
    tables: list[pd.DataFrame] = []
    notes: list[str] = []
    for layer in sorted(check_layers(states)):
        X = check_matrix(states[layer], f"layer {layer}")
        rows = sample_rows(len(X), limit, seed)
        try:
            sigma = spectrum(X[rows] if len(rows) < len(X) else X, center)
        except DoesNotApply as reason:
            notes.append(f"layer {layer}: {reason}")
            continue
        squares = np.square(sigma / sigma[0])
        columns = {
            "layer": int(layer),
            "rank": np.arange(1, len(sigma) + 1),
            "singular_value": sigma,
            "share": squares / squares.sum(),
            "n": len(rows),
            "seed": seed,
        }
        tables.append(pd.DataFrame(columns))
    names = ["layer", "rank", "singular_value", "share", "n", "seed"]
    frame = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=names)
    frame.attrs["notes"] = notes
    return frame


def check_layers(states: Any) -> Mapping[int, Any]:
    """`states` itself where it maps layers to something."""
    if not isinstance(states, Mapping) or not len(states):
        raise InputError(
            "states must map layer numbers to (n, d) arrays and hold at least one layer"
        )
    return states
