"""What figures and reports draw from: one run's tables with the questions they all ask answered once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from probes.errors import FathometerError
from probes.registry import MEASURES
from probes.report.frames import Point, column, names, only, points, where
from probes.report.text import clean, is_number, variant_name
from probes.runs import RunView

T = TypeVar("T")

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

    @cached_property
    def _kept(self) -> dict[Hashable, Any]:
        return {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, kept under `key` as long as this object lives. Nobody may change it."""
        if key not in self._kept:
            self._kept[key] = make()
        return cast("T", self._kept[key])

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
            return cast("dict[str, Any]", own)
        if name in MEASURES:
            return MEASURES[name].as_json()
        return {"name": name, "title": name, "unit": "", "summary": ""}

    def title(self, name: str) -> str:
        """Readable name of a measure, with its unit where it has one."""
        entry = self.measure(name)
        unit = clean(entry.get("unit") or "", 20)
        title = clean(entry.get("title") or name, 80)
        return f"{title} ({unit})" if unit else title

    def part(self, key: str) -> Mapping[str, Any]:
        """An object of run.json, empty when absent."""
        return mapping(self.info.get(key))

    @cached_property
    def by_measure(self) -> list[str]:
        """Measures of whole layers that the run holds; those of a concept are found in `study`."""
        frame = self.measurements
        of_layers = (frame["layer"].notna() & frame["concept"].isna()).to_numpy(dtype=bool)
        return sorted(set(names(where(frame, of_layers), "measure")))

    @cached_property
    def quality(self) -> str | None:
        """Name of the measure that the exit is chosen by; None when the run has no grid."""
        frame = self.measurements
        place = frame["layer"].notna() & frame["dim"].notna()
        held = set(names(where(frame, place.to_numpy(dtype=bool)), "measure"))
        named = mapping(self.decision).get("measure")
        if named in held:
            return str(named)
        return next((name for name in QUALITY_ORDER if name in held), None)

    def grid(self, split: str = "all") -> pd.DataFrame:
        """Quality by variant, layer and dim: columns variant, layer, dim, value, low, high, n; empty if absent."""
        return self.once(("grid", split), lambda: self._grid(split))

    def _grid(self, split: str) -> pd.DataFrame:
        rows = only(self.measurements, measure=self.quality or "")
        in_split = only(rows, split=split)
        if in_split.empty and split == "all":  # a run without splits
            in_split = where(rows, rows["split"].isna().to_numpy(dtype=bool))
        placed = in_split["layer"].notna() & in_split["dim"].notna() & in_split["value"].notna()
        return _plain(where(in_split, placed.to_numpy(dtype=bool)), ["variant", "layer", "dim"])

    @cached_property
    def all(self) -> pd.DataFrame:
        """The grid over all examples."""
        return self.grid()

    @cached_property
    def variants(self) -> list[str]:
        """Variants of the grid, raw first, then by name."""
        return sorted(set(names(self.all, "variant")), key=lambda name: (name != "raw", name))

    @cached_property
    def dims(self) -> list[int]:
        """Widths of the grid, ascending."""
        return sorted({int(d) for d in column(self.all, "dim")})

    @cached_property
    def n_layers(self) -> int | None:
        """L, the number of blocks: as the run says, else the deepest layer measured."""
        stated = whole(self.part("model").get("n_layers"))
        if stated is not None:
            return stated
        layers = column(self.measurements, "layer")
        return None if np.isnan(layers).all() else int(np.nanmax(layers))

    @cached_property
    def full(self) -> Cell | None:
        """The full model as a cell: raw, last layer, full width."""
        if self.all.empty:
            return None
        return Cell("raw", int(column(self.all, "layer").max()), self.dims[-1])

    @cached_property
    def chosen(self) -> Cell | None:
        """The cell that the decision names."""
        decision = mapping(self.decision)
        return cell_of(decision) if decision.get("status") == "chosen" else None

    @cached_property
    def budget(self) -> float | None:
        """The share of full quality that was asked for."""
        for source in (mapping(mapping(self.decision).get("budget")), self.part("options")):
            if is_number(source.get("max_loss")):
                return None
            if is_number(source.get("min_quality")):
                return float(str(source["min_quality"]))
        return None

    def at(self, cell: Cell | None, split: str = "all") -> Point | None:
        """The point of a cell in the grid over `split`."""
        return None if cell is None else self.points_by_cell(split).get(cell)

    def points_by_cell(self, split: str = "all") -> Mapping[Cell, Point]:
        """Every cell of the grid over `split` with its point, in the grid's order."""
        return self.once(
            ("points", split),
            lambda: {Cell(p.variant, p.layer, p.dim): p for p in points(self.grid(split))},
        )

    def by_layer(self, measure: str) -> pd.DataFrame:
        """One measure over layers, whatever the width: columns as in `grid`."""
        return self.once(("by_layer", measure), lambda: self._by_layer(measure))

    def _by_layer(self, measure: str) -> pd.DataFrame:
        rows = only(self.measurements, measure=measure)
        everything = only(rows, split="all")
        rows = rows if everything.empty else everything
        held = rows["layer"].notna() & rows["value"].notna() & rows["concept"].isna()
        return _plain(where(rows, held.to_numpy(dtype=bool)), ["variant", "layer"])

    def cost(self, measure: str) -> Mapping[int, float]:
        """A cost measure by layer, of the raw variant where there are several."""
        return self.once(("cost", measure), lambda: self._cost(measure))

    def _cost(self, measure: str) -> dict[int, float]:
        rows = self.by_layer(measure)
        raw = only(rows, variant="raw")
        return {point.layer: point.value for point in points(rows if raw.empty else raw)}


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is an object, else an empty one: what JSON of unknown origin is read through."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def sequence(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def whole(value: Any) -> int | None:
    """A whole number, None for anything else."""
    return int(float(str(value))) if is_number(value) else None


def cell_of(entry: Mapping[str, Any]) -> Cell | None:
    """The cell that an entry of decision.json names, None when it names none."""
    layer, dim = whole(entry.get("layer")), whole(entry.get("dim"))
    if layer is None or dim is None:
        return None
    return Cell(variant_name(entry.get("variant")), layer, dim)


def _plain(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Plain numpy columns, one row per key, sorted."""
    variants = list(rows["variant"])
    plain = pd.DataFrame(
        {"variant": [variant_name(None if v is pd.NA else v) for v in variants]}
        | {name: column(rows, name) for name in ("layer", "dim", "value", "low", "high", "n")}
    )
    for name in keys:
        if name != "variant":
            plain[name] = plain[name].astype(int)
    return plain.drop_duplicates(keys, keep="first").sort_values(by=keys).reset_index(drop=True)
