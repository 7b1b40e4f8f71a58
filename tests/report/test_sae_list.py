"""The table of features: concepts stand there only where they are told."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import synthetic_sae as planted

from probes.report import RunData
from probes.report.sae_list import feature_names, feature_table
from probes.runs import RunView


@pytest.mark.parametrize(
    ("auroc", "low", "shown"),
    [(0.8, 0.7, "0.80"), (0.0, 0.0, None), (0.55, 0.49, None), (0.9, None, None)],
)
def test_a_concept_is_named_only_where_its_interval_is_above_chance(
    tmp_path: Path, auroc: float, low: float | None, shown: str | None
) -> None:
    path = planted.write_sae_run(tmp_path)
    file = path / "tables" / "sae_features.parquet"
    frame = pd.read_parquet(file)
    first = feature_names(RunData.of(RunView(path)))[0]
    own = frame["feature"] == int(first)
    frame.loc[own, "concept"] = "blue"
    for name, value in (("auroc", auroc), ("auroc_low", low), ("auroc_high", 0.95)):
        frame.loc[own, name] = value
    frame.to_parquet(file)
    table = feature_table(RunData.of(RunView(path)))
    assert table is not None
    row = next(row for row in table.rows if row[0] == first)
    assert ("blue" in row) == (shown is not None)
    assert row[5].startswith(shown) if shown else "[" not in row[5]
    assert "none where the interval is not above 0.5" in table.note
