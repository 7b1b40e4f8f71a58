"""Non-finite activations: counted when written, listed here, refused by the measures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import pandas as pd

from probes.errors import NonFiniteError
from probes.store.layout import OFFSETS, split_name
from probes.store.record import Record


class _Counted(Protocol):
    def nonfinite(self) -> pd.DataFrame: ...


def nonfinite_table(records: Iterable[Record]) -> pd.DataFrame:
    """One row per (site, layer) with NaN or infinity: site, layer, count of numbers, rows (tuple of texts)."""
    found: dict[tuple[str, int], tuple[int, tuple[int, ...]]] = {}
    for record in records:
        for name, tensor in record.tensors.items():
            if name == OFFSETS or not tensor.nonfinite:
                continue
            count, rows = found.get(split_name(name), (0, ()))
            found[split_name(name)] = (count + tensor.nonfinite, rows + tensor.texts)
    table = [(site, layer, *found[site, layer]) for site, layer in sorted(found)]
    return pd.DataFrame(table, columns=["site", "layer", "count", "rows"])  # type: ignore[arg-type]


def require_finite(store: _Counted, site: str, layer: int) -> None:
    """Raise `NonFiniteError` with layer and texts when a stored array holds NaN or infinity.

    Costs no read of the array: the numbers were counted when they were written.
    """
    for found in store.nonfinite().to_dict("records"):
        if (found["site"], found["layer"]) == (site, layer):
            _refuse(site, layer, int(found["count"]), tuple(found["rows"]))


def _refuse(site: str, layer: int, count: int, rows: tuple[int, ...]) -> None:
    listed = ", ".join(map(str, rows[:8])) + (", …" if len(rows) > 8 else "")
    raise NonFiniteError(
        f"{count:,} values of {site} at layer {layer} are NaN or infinite, in texts {listed}: remove these "
        "texts, or capture in float32 or bfloat16 if float16 overflowed"
    )
