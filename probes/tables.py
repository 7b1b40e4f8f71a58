"""The tidy table: one row per number, one validated schema, Parquet.

`Rows` collects numbers; `validate` holds a frame to the schema; `write_table` and `read_table` keep it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.errors import DataError, InputError, NonFiniteError
from probes.files import replace_file
from probes.registry import MEASURES

COLUMNS: dict[str, str] = {
    "measure": "string",
    "site": "string",
    "layer": "Int64",
    "block": "Int64",
    "head": "Int64",
    "dim": "Int64",
    "pooling": "string",
    "dataset": "string",
    "split": "string",
    "concept": "string",
    "variant": "string",
    "value": "Float64",
    "low": "Float64",
    "high": "Float64",
    "n": "Int64",
    "seed": "Int64",
}


def tidy(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A validated table from dictionaries; absent keys are null.

    >>> tidy([{"measure": "accuracy", "layer": 3, "value": 0.9, "n": 100}])[["measure", "layer", "value"]]
        measure  layer  value
    0  accuracy      3    0.9
    """
    collected = list(rows)
    for row in collected:
        unknown = set(row) - set(COLUMNS)
        if unknown:
            raise InputError(
                f"unknown column {sorted(unknown)[0]!r} in a tidy row. Allowed: {', '.join(COLUMNS)}"
            )
    # dtype object, or pandas would turn a missing number into NaN, which is another thing
    columns = {name: [row.get(name) for row in collected] for name in COLUMNS}
    frame = pd.DataFrame(columns, dtype=object)
    return validate(frame)


def typed(
    frame: pd.DataFrame,
    *,
    integers: Iterable[str],
    words: Iterable[str],
    truths: Iterable[str] = (),
) -> pd.DataFrame:
    """A table of a run folder with nullable columns: the rest of the columns are finite numbers.

    Raises `NonFiniteError` for NaN and infinity.

    >>> frame = pd.DataFrame({"layer": [0, 1], "value": [0.5, None]}, dtype=object)
    >>> typed(frame, integers=["layer"], words=())["value"].isna().tolist()
    [False, True]
    """
    kinds = dict.fromkeys(integers, "Int64") | dict.fromkeys(words, "string")
    kinds |= dict.fromkeys(truths, "bool")
    types = {name: kinds.get(name, "Float64") for name in map(str, frame.columns)}
    for name in (name for name, kind in types.items() if kind == "Float64"):
        values = [v for v in frame[name] if v is not None and v is not pd.NA]
        if not np.isfinite(np.asarray(values, dtype=np.float64)).all():
            raise NonFiniteError(
                f"column {name!r} holds NaN or infinity: a table takes finite numbers or null"
            )
    made: Any = frame.astype(types)
    made.attrs.clear()
    return made


def validate(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with the fixed columns and types.

    Refuses NaN, unregistered measures, and rows that name both a layer and a block.
    """
    missing = set(COLUMNS) - set(frame.columns)
    extra = set(frame.columns) - set(COLUMNS)
    if missing or extra:
        raise DataError(
            f"not a tidy table: missing columns {sorted(missing)}, extra columns {sorted(extra)}"
        )
    for name in ("value", "low", "high"):
        _refuse_non_finite(frame, name)
    typed: Any = frame[list(COLUMNS)].astype(COLUMNS)  # pandas' own types are too wide to help here
    if typed["measure"].isna().any():
        raise DataError("a tidy row without a measure")
    unknown = [name for name in typed["measure"].unique() if name not in MEASURES]
    if unknown:
        raise DataError(f"measure {unknown[0]!r} is not registered: add it with register_measure")
    both = np.flatnonzero((typed["layer"].notna() & typed["block"].notna()).to_numpy())
    if len(both):
        raise DataError(f"row {int(both[0])} names both a layer and a block; never both")
    return typed.reset_index(drop=True)


def _refuse_non_finite(frame: pd.DataFrame, name: str) -> None:
    """NaN and infinity are refused; null (None or NA) is how a missing number is written."""
    for row, value in enumerate(frame[name]):
        if value is None or value is pd.NA or np.isfinite(value):
            continue
        where = frame.iloc[row]
        raise NonFiniteError(
            f"{name} of measure {where['measure']!r} (layer {where['layer']}, variant {where['variant']}) "
            f"is {value}: a tidy table holds finite numbers or null"
        )


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Replace `path` atomically with Parquet (page checksums on, so that a flipped bit is noticed)."""
    replace_file(
        path, lambda handle: frame.to_parquet(handle, index=False, write_page_checksum=True)
    )


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet table; `DataError` when it is missing or damaged."""
    if not path.is_file():
        raise DataError(f"{path} is missing")
    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def measures_json(frame: pd.DataFrame) -> dict[str, Any]:
    """The registry entries of the measures in `frame`, for `measures.json`."""
    return {name: MEASURES[name].as_json() for name in sorted(frame["measure"].unique())}
