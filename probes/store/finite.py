"""Non-finite activations: counted when written and listed here; `check_matrix` refuses them in the measures."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from probes.store.layout import OFFSETS, split_name
from probes.store.record import Record


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
