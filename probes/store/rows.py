"""rows.parquet: which text, label and shard each row of a store belongs to."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import StoreError

if TYPE_CHECKING:
    from probes.store.folder import Plan

ROWS = "rows.parquet"


def rows_bytes(given: pd.DataFrame | None, plan: Plan, offsets: NDArray[np.int64] | None) -> bytes:
    """The table as Parquet: `given` (one row per text) behind the store's own columns."""
    own = {
        "row": np.arange(plan.texts_n, dtype=np.int64),
        "shard": np.repeat(np.arange(len(plan.shards)), [hi - lo for lo, hi in plan.shards]),
    }
    if offsets is not None:
        own["token_offset"] = offsets[:-1]
    frame = pd.DataFrame(own)
    if given is not None:
        if len(given) != plan.texts_n:
            raise StoreError(f"rows has {len(given)} rows, the store has {plan.texts_n} texts")
        for name in given.columns:
            values = given[name].to_numpy()
            if name in own and not np.array_equal(values, own[name]):
                raise StoreError(
                    f"column {name!r} of rows differs from the store's own: leave it out"
                )
            frame[str(name)] = values
    buffer = io.BytesIO()
    try:
        frame.to_parquet(buffer, index=False, write_page_checksum=True)
    except (ValueError, TypeError) as error:  # pyarrow's ArrowInvalid is a ValueError
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"rows cannot be kept as Parquet: {reason}. Give each column one type"
        ) from error
    return buffer.getvalue()


def load_rows(root: Path, sha256: str) -> bytes:
    """The bytes of the table, checked against the hash in the manifest."""
    try:
        data = (root / ROWS).read_bytes()
    except FileNotFoundError:
        raise StoreError(
            f"{root / ROWS} is missing: capture again, finished shards are kept"
        ) from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StoreError(f"{root / ROWS} differs from the manifest: call redo() and capture again")
    return data


def read_rows(root: Path, sha256: str) -> pd.DataFrame:
    """The table, its bytes checked against the manifest."""
    return pd.read_parquet(io.BytesIO(load_rows(root, sha256)))
