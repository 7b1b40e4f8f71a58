"""What figures and reports draw from: one run's tables with the questions they all ask answered once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from probes.errors import FathometerError
from probes.registry import MEASURES
from probes.report.text import clean, is_number, variant_name
from probes.runs import RunView
from probes.tables import COLUMNS

# The first of these that a run holds layer by dimension is its quality, unless the decision names one.
QUALITY_ORDER = (
    "ndcg_at_10",
    "spearman",
    "balanced_accuracy",
    "accuracy",
    "auroc",
    "mrr",
    "recall_at_10",
    "recall_at_1",
)
COST = ("latency_p50_ms", "latency_p95_ms", "relative_cost")


@dataclass(frozen=True)
class Cell:
    """One candidate: a variant read at a layer with the first `dim` coordinates."""

    variant: str
    layer: int
    dim: int

    def words(self) -> str:
        """The cell in words.

        >>> Cell("translated", 3, 128).words()
        'translated, layer 3, 128 dimensions'
        """
        return f"{self.variant}, layer {self.layer}, {self.dim} dimensions"


@dataclass(frozen=True)
class RunData:
    """A run's tidy table, decision and descriptions. Every part may be empty; nothing here raises for that."""

    measurements: pd.DataFrame
    decision: Mapping[str, Any] | None = None
    measures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    table_names: tuple[str, ...] = ()
    read_table: Callable[[str], pd.DataFrame] | None = None

    @classmethod
    def of(cls, view: RunView) -> RunData:
        """Everything a run folder holds at this moment."""
        return cls(
            view.measurements,
            view.decision,
            view.measures,
            view.info,
            tuple(view.tables()),
            view.table,
        )

    def table(self, name: str) -> pd.DataFrame | None:
        """A table of the run folder, None when it is absent or damaged."""
        if self.read_table is None or name not in self.table_names:
            return None
        try:
            return self.read_table(name)
        except FathometerError:
            return None

    def measure(self, name: str) -> dict[str, Any]:
        """Title, unit, range … of a measure: the run's own copy, else the registry, else the bare name."""
        own = self.measures.get(name)
        if isinstance(own, dict):
            return own
        if name in MEASURES:
            return MEASURES[name].as_json()
        return {"name": name, "title": name, "unit": "", "summary": ""}

    def title(self, name: str) -> str:
        """Readable name of a measure, with its unit where it has one."""
        entry = self.measure(name)
        unit = clean(entry.get("unit") or "", 20)
        title = clean(entry.get("title") or name, 80)
        return f"{title} ({unit})" if unit else title

    @cached_property
    def quality(self) -> str | None:
        """Name of the measure that the exit is chosen by; None when the run has no grid."""
        frame = self.measurements
        held = set(frame.loc[frame["layer"].notna() & frame["dim"].notna(), "measure"])
        named = (self.decision or {}).get("measure")
        if named in held:
            return str(named)
        return next((name for name in QUALITY_ORDER if name in held), None)

    def grid(self, split: str = "all") -> pd.DataFrame:
        """Quality by variant, layer and dim: columns variant, layer, dim, value, low, high, n; empty if absent."""
        frame = self.measurements
        rows = frame[
            (frame["measure"] == self.quality)
            & frame["layer"].notna()
            & frame["dim"].notna()
            & frame["value"].notna()
        ]
        rows = rows[
            (rows["split"] == split).fillna(False)
            if split in set(rows["split"].dropna())
            else rows["split"].isna()
        ]
        return _plain(rows)

    @cached_property
    def all(self) -> pd.DataFrame:
        """The grid over all examples."""
        return self.grid()

    @cached_property
    def variants(self) -> list[str]:
        """Variants of the grid, raw first, then by name."""
        names = self.all["variant"].unique().tolist()
        return sorted(names, key=lambda name: (name != "raw", name))

    @cached_property
    def n_layers(self) -> int | None:
        """L, the number of blocks: as the run says, else the deepest layer measured."""
        model = self.info.get("model")
        stated = (
            (model or {}).get("n_layers", (model or {}).get("L"))
            if isinstance(model, dict)
            else None
        )
        if is_number(stated):
            return int(float(str(stated)))
        deepest = self.measurements["layer"].max()
        return None if pd.isna(deepest) else int(deepest)

    @cached_property
    def full(self) -> Cell | None:
        """The full model as a cell: raw, last layer, full width."""
        if self.all.empty:
            return None
        return Cell("raw", int(self.all["layer"].max()), int(self.all["dim"].max()))

    @cached_property
    def chosen(self) -> Cell | None:
        """The cell that the decision names."""
        decision = self.decision or {}
        if decision.get("status") != "chosen":
            return None
        layer, dim = decision.get("layer"), decision.get("dim")
        if not (is_number(layer) and is_number(dim)):
            return None
        return Cell(
            variant_name(decision.get("variant")), int(float(str(layer))), int(float(str(dim)))
        )

    @cached_property
    def budget(self) -> float | None:
        """The share of full quality that was asked for."""
        for source in (self.decision or {}, self.info.get("options") or {}):
            value = source.get("min_quality") if isinstance(source, Mapping) else None
            if is_number(value):
                return float(str(value))
        return None

    def at(self, cell: Cell, frame: pd.DataFrame | None = None) -> pd.Series | None:
        """The row of `frame` (the grid by default) for a cell."""
        rows = self.all if frame is None else frame
        hit = rows[
            (rows["variant"] == cell.variant)
            & (rows["layer"] == cell.layer)
            & (rows["dim"] == cell.dim)
        ]
        return None if hit.empty else hit.iloc[0]

    def by_layer(self, measure: str) -> pd.DataFrame:
        """One measure over layers, whatever the width: columns as in `grid`."""
        frame = self.measurements
        rows = frame[
            (frame["measure"] == measure) & frame["layer"].notna() & frame["value"].notna()
        ]
        if "all" in set(rows["split"].dropna()):
            rows = rows[(rows["split"] == "all").fillna(False)]
        return _plain(rows, keys=["variant", "layer"])

    def cost(self, measure: str) -> dict[int, float]:
        """A cost measure by layer, of the raw variant where there are several."""
        rows = self.by_layer(measure)
        raw = rows[rows["variant"] == "raw"]
        rows = rows if raw.empty else raw
        return {
            int(layer): float(value)
            for layer, value in zip(rows["layer"], rows["value"], strict=True)
        }


def _plain(rows: pd.DataFrame, keys: list[str] | None = None) -> pd.DataFrame:
    """Plain numpy columns, one row per key, sorted."""
    keys = keys or ["variant", "layer", "dim"]
    plain = pd.DataFrame(
        {
            "variant": [variant_name(None if pd.isna(v) else v) for v in rows["variant"]],
            "layer": rows["layer"].to_numpy(dtype=float, na_value=float("nan")),
            "dim": rows["dim"].to_numpy(dtype=float, na_value=float("nan")),
            "value": rows["value"].to_numpy(dtype=float, na_value=float("nan")),
            "low": rows["low"].to_numpy(dtype=float, na_value=float("nan")),
            "high": rows["high"].to_numpy(dtype=float, na_value=float("nan")),
            "n": rows["n"].to_numpy(dtype=float, na_value=float("nan")),
        }
    )
    plain["layer"] = plain["layer"].astype(int)
    if "dim" in keys:
        plain["dim"] = plain["dim"].astype(int)
    return plain.drop_duplicates(keys, keep="first").sort_values(keys).reset_index(drop=True)


def empty_measurements() -> pd.DataFrame:
    """A tidy table without rows."""
    return pd.DataFrame({name: [] for name in COLUMNS}).astype(COLUMNS)  # type: ignore[arg-type]
