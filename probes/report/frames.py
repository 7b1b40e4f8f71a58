"""Typed access to small plain tables: rows as points, columns as arrays, rows by equality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Point:
    """One number of a grid or a layer curve; what is absent is NaN (`dim` 0 where no width is meant)."""

    variant: str
    layer: int
    dim: int
    value: float
    low: float
    high: float
    n: float


def points(frame: pd.DataFrame) -> list[Point]:
    """The rows of a plain table (columns as the fields of `Point`)."""
    dims = np.nan_to_num(column(frame, "dim")) if "dim" in frame.columns else np.zeros(len(frame))
    numbers = zip(
        names(frame, "variant"),
        column(frame, "layer"),
        dims,
        *(column(frame, name) for name in ("value", "low", "high", "n")),
        strict=True,
    )
    return [
        Point(variant, int(layer), int(dim), float(value), float(low), float(high), float(n))
        for variant, layer, dim, value, low, high, n in numbers
    ]


def column(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A column as floats; missing values are NaN."""
    series = cast("pd.Series", frame[name])
    return np.asarray(series.to_numpy(dtype=float, na_value=np.nan), dtype=np.float64)


def names(frame: pd.DataFrame, name: str) -> list[str]:
    """A column as text."""
    return [str(value) for value in list(frame[name])]


def only(frame: pd.DataFrame, **equal: Any) -> pd.DataFrame:
    """The rows in which every named column has the given value; missing values equal nothing.

    >>> only(pd.DataFrame({"layer": [1, 2], "dim": [8, 8]}), layer=2, dim=8).index.tolist()
    [1]
    """
    keep = np.ones(len(frame), dtype=bool)
    for name, value in equal.items():
        held = list(frame[name])
        keep &= np.array([item is not pd.NA and item == value for item in held], dtype=bool)
    return where(frame, keep)


def where(frame: pd.DataFrame, keep: NDArray[np.bool_]) -> pd.DataFrame:
    """The rows for which `keep` is true."""
    return frame.iloc[np.flatnonzero(keep)]
