"""Linear CKA: do two layers hold the texts in the same arrangement?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError
from probes.layers.spectra import check_layers
from probes.layers.states import sample_rows
from probes.linalg import check_matrix, rounding_left

FloatArray = NDArray[np.floating[Any]]
ROWS = 4096
MEMORY = 1 << 30  # bytes of prepared layers held at a time


def cka(X: Any, Y: Any) -> float:
    """Linear centred kernel alignment: ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of the centred X (n, d) and Y (n, e).

    Frobenius norms. In [0, 1]; 1 when Y is X turned, mirrored, stretched alike in all directions or
    moved. Worked out between features when n > d and between rows when not. Unrelated X and Y give more
    than 0 when n is not far above d: compare only at equal n.

    Raises `DoesNotApply` where all rows of one are equal, `InputError` where the numbers of rows
    differ. Paper: Kornblith et al. 2019 (arXiv 1905.00414). See also `cka_matrix`, `block_influence`.

    >>> X = [[1.0, 0], [0, 1], [3, 1]]
    >>> round(cka(X, [[0, 2.0], [-2, 0], [-2, 6]]), 6)  # a quarter turn, twice as large
    1.0
    >>> cka([[1.0], [1], [-1], [-1]], [[1.0], [-1], [1], [-1]])
    0.0
    """
    first, second = check_matrix(X, "X"), check_matrix(Y, "Y")
    if len(first) != len(second):
        raise InputError(
            f"X has {len(first)} rows and Y {len(second)}: row i of both is one text, so they must agree"
        )
    return _alignment(_prepare(first), _prepare(second))


def cka_matrix(
    states: Mapping[int, Any],
    limit: int | None = ROWS,
    seed: int = 0,
    memory: int = MEMORY,
) -> pd.DataFrame:
    """Linear CKA between every two layers: one row for each ordered pair, the diagonal too.

    Columns layer_a, layer_b, value (null where a layer's rows are all equal, with the reason in
    `attrs["notes"]`), n, seed. `limit` takes so many rows, drawn by `seed`; layers are read as often
    as it takes to hold no more than `memory` bytes of them at once.

    Raises `InputError` where layers have different numbers of rows. See also `cka`.

    >>> table = cka_matrix({0: [[1.0], [1], [-1], [-1]], 1: [[1.0], [-1], [1], [-1]]})
    >>> table.pivot(index="layer_a", columns="layer_b", values="value").values.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    layers = sorted(check_layers(states))
    n = len(states[layers[0]])
    reader = _Reader(states, n, sample_rows(n, limit, seed))
    held = max(1, memory // max(1, reader.bytes_of(layers[0])) - 1)
    found: dict[tuple[int, int], float | None] = {}
    for first in range(0, len(layers), held):
        chunk = {layer: reader.read(layer) for layer in layers[first : first + held]}
        for b in layers[first:]:
            B = chunk[b] if b in chunk else reader.read(b)
            for a, A in chunk.items():
                if a <= b:
                    value = None if A is None or B is None else _alignment(A, B)
                    found[a, b] = found[b, a] = value
    rows = sorted(found)
    columns = {
        "layer_a": [int(a) for a, _ in rows],
        "layer_b": [int(b) for _, b in rows],
        "value": pd.array([found[pair] for pair in rows], dtype="Float64"),
        "n": len(reader.rows),
        "seed": seed,
    }
    frame = pd.DataFrame(columns)
    frame.attrs["notes"] = [f"layer {layer}: {why}" for layer, why in reader.refused.items()]
    return frame


class _Reader:
    """Reads the chosen rows of a layer and prepares them; None for a layer that has no direction."""

    def __init__(self, states: Mapping[int, Any], n: int, rows: NDArray[np.int64]) -> None:
        self.states, self.n, self.rows = states, n, rows
        self.refused: dict[int, str] = {}

    def bytes_of(self, layer: int) -> int:
        return 8 * len(self.rows) * min(len(self.rows), np.shape(self.states[layer])[1])

    def read(self, layer: int) -> FloatArray | None:
        X = self.states[layer]
        if len(X) != self.n:
            raise InputError(
                f"layer {layer} has {len(X)} rows, the first layer {self.n}: row i must be the same text in all"
            )
        try:
            return _prepare(check_matrix(X[self.rows] if self._part else X, f"layer {layer}"))
        except DoesNotApply as reason:
            self.refused[int(layer)] = str(reason)
            return None

    @property
    def _part(self) -> bool:
        return len(self.rows) < self.n


def _prepare(X: FloatArray) -> FloatArray:
    """Centred X at ‖XᵀX‖ = 1, (n, min(n, d)); with more columns than rows an n × n matrix of the same Gram matrix."""
    wide = X.astype(np.float64)
    largest = float(np.abs(wide).max()) or 1.0
    wide /= largest
    wide -= wide.mean(axis=0)
    if np.linalg.norm(wide) <= rounding_left(X):
        raise DoesNotApply(f"CKA of {len(wide)} rows: all rows are equal, there is no direction")
    if wide.shape[1] > len(wide):
        wide = np.asarray(np.linalg.qr(wide.T, mode="r")).T
    return wide / np.sqrt(np.linalg.norm(wide.T @ wide))


def _alignment(A: FloatArray, B: FloatArray) -> float:
    return float(min(1.0, np.square(A.T @ B).sum()))
