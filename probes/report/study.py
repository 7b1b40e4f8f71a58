"""A concept-depth run as figures, verdict and page ask for it: concepts, curves, levels and depths by name.

Read through `Study.of`, which gives None where a run measured no concepts. Every table may be absent, half-written or
damaged: what cannot be read is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pandas as pd

from probes.report.data import RunData, whole
from probes.report.frames import Point, column, names, points, where
from probes.report.text import clean, is_number, variant_name

PROBE = "raw"  # how a null variant is called in plain tables: the probe itself
CONTROLS = ("shuffled", "control-task", "untrained")
BAG = "bag-of-words"
CONDITIONS = (
    "noise=",
    "weights=",
    "dtype=",
    "template=",
    "pooling=",
)  # what a condition begins with

# The first of these that a concept has layer by layer is its curve, where the run does not say.
_CURVES = ("accuracy", "r2")
_WORDS = {
    PROBE: "probe",
    BAG: "bag of words",
    "shuffled": "shuffled labels",
    "control-task": "control task",
    "untrained": "untrained weights",
    "random": "random directions",
    "linear": "difference",
    "log": "difference of logarithms",
    "weights=int8": "8-bit weights",
    "weights=int4": "4-bit weights",
    "dtype=bfloat16": "bfloat16",
    "noise=prepend": "random string in front",
    "noise=swap": "characters swapped",
    "noise=shuffle": "words shuffled",
    "noise=drop": "words left out",
}
_KEYS = ("concept", "measure", "variant")
_Key = tuple[str, str, str]
_COLUMNS = ("layer", "value", "low", "high", "n")
_NOWHERE = -1  # in place of the layer of a number that has none


def variant_words(variant: str) -> str:
    """A variant as a reader should meet it.

    >>> variant_words("weights=int8"), variant_words("shots=16"), variant_words("pooling=last")
    ('8-bit weights', '16 labels', 'last pooling')
    """
    if variant in _WORDS:
        return _WORDS[variant]
    kind, equals, what = clean(variant, 60).partition("=")
    if not equals:
        return clean(variant, 60)
    return {"shots": f"{what} labels", "pooling": f"{what} pooling"}.get(kind, f"{kind} {what}")


@dataclass(frozen=True)
class Concept:
    """One concept as the run describes it.

    `measure` is the height of its curve, `chance` the level of a guess; `above_bag` says whether the run found some
    layer above the bag of words, None where it did not say.
    """

    name: str
    family: str
    kind: str
    dataset: str
    measure: str
    n: int | None
    chance: float | None
    note: str
    above_bag: bool | None = None


@dataclass(frozen=True)
class Study:
    """All concepts of one run. Plain tables have the columns variant, layer, value, low, high, n."""

    data: RunData
    concepts: tuple[Concept, ...]

    @classmethod
    def of(cls, data: RunData) -> Study | None:
        """The study of a run, None where it measured no concept."""
        return data.once("study", lambda: cls._read(data))

    @classmethod
    def _read(cls, data: RunData) -> Study | None:
        described = plain_table(data, "concepts", ("concept",), ("n", "chance"))
        if described is not None:
            rows = cast("list[dict[str, Any]]", described.to_dict("records"))
            found = [_concept(row) for row in rows]
        else:
            found = _undescribed(data)
        unique = {concept.name: concept for concept in found}
        return cls(data, tuple(unique.values())) if unique else None

    @cached_property
    def _long(self) -> pd.DataFrame:
        """Every number of a concept, sorted by concept, measure, variant and layer; layerless ones come first."""
        frame = _concept_rows(self.data.measurements)
        variants = list(frame["variant"])
        plain = pd.DataFrame(
            {name: names(frame, name) for name in _KEYS[:2]}
            | {"variant": [variant_name(None if v is pd.NA else v) for v in variants]}
            | {name: column(frame, name) for name in _COLUMNS}
        )
        plain["layer"] = plain["layer"].fillna(_NOWHERE).astype(int)
        plain = plain.drop_duplicates([*_KEYS, "layer"])
        return plain.sort_values([*_KEYS, "layer"], kind="stable", ignore_index=True)

    @cached_property
    def _spans(self) -> dict[_Key, tuple[int, int, int]]:
        """By concept, measure and variant: the first row, the first with a layer, and the end."""
        found: dict[_Key, tuple[int, int, int]] = {}
        keys = zip(*(names(self._long, name) for name in _KEYS), strict=True)
        for at, (key, layer) in enumerate(zip(keys, column(self._long, "layer"), strict=True)):
            first, layered, _ = found.get(key, (at, at, at))
            found[key] = (first, at + 1 if layer < 0 else layered, at + 1)
        return found

    @cached_property
    def n_layers(self) -> int:
        """L, so that layers 0 to L are drawn."""
        if self.data.n_layers is not None:
            return self.data.n_layers
        layers = column(self._long, "layer")
        return int(layers.max()) if len(layers) else 0

    @property
    def families(self) -> list[str]:
        """Families in the order of their first concept."""
        return list(dict.fromkeys(concept.family for concept in self.concepts))

    def by_family(self, names: Sequence[str] | None = None) -> list[Concept]:
        """The concepts, all or those named, with families together."""
        kept = [c for c in self.concepts if names is None or c.name in names]
        return sorted(kept, key=lambda concept: self.families.index(concept.family))

    def curve(
        self, concept: Concept, measure: str | None = None, variant: str = PROBE
    ) -> pd.DataFrame:
        """A measure over layers, by default the concept's own; empty where it was not measured."""
        key = (concept.name, measure or concept.measure, variant)
        return self.data.once(("curve", key), lambda: self._cut(key, layered=True))

    def level(
        self, concept: Concept, measure: str | None = None, variant: str = PROBE
    ) -> Point | None:
        """A number that belongs to no layer: a depth, or the height of the bag of words."""
        key = (concept.name, measure or concept.measure, variant)
        found = self.data.once(("level", key), lambda: points(self._cut(key, layered=False)))
        return found[0] if found else None

    def _cut(self, key: _Key, *, layered: bool) -> pd.DataFrame:
        first, middle, end = self._spans.get(key, (0, 0, 0))
        return self._plain.iloc[middle:end] if layered else self._plain.iloc[first:middle]

    @cached_property
    def _plain(self) -> pd.DataFrame:
        return self._long.reindex(columns=["variant", *_COLUMNS])

    def bag_of_words(self, concept: Concept) -> Point | None:
        """What the text alone gives away."""
        return self.level(concept, variant=BAG)

    def peak(self, concept: Concept) -> Point | None:
        """The highest point of the concept's curve; the earliest of several."""
        return max(points(self.curve(concept)), key=lambda p: (p.value, -p.layer), default=None)

    def depth(self, concept: Concept) -> Point | None:
        """The robust depth, None for a concept that has none."""
        return self.level(concept, "robust_depth")

    def variants(self, concept: Concept, measure: str | None = None) -> list[str]:
        """Variants in which a measure of the concept is known by layer, in the order of their names."""
        wanted = (concept.name, measure or concept.measure)
        held = [
            variant
            for (name, what, variant), (_, layered, end) in self._spans.items()
            if (name, what) == wanted and end > layered
        ]
        return sorted(held)

    def conditions(self, concept: Concept) -> list[str]:
        """Conditions under which the concept's curve was measured again."""
        return [v for v in self.variants(concept) if v.startswith(CONDITIONS)]

    def having(self, measure: str, variant: str = PROBE) -> list[Concept]:
        """Concepts, by family, that have a measure by layer."""
        return [c for c in self.by_family() if not self.curve(c, measure, variant).empty]

    def table(
        self,
        concepts: Sequence[Concept],
        variants: Sequence[str] | None = None,
        *measures: str,
    ) -> pd.DataFrame:
        """Rows of some concepts for a CSV, layerless ones included: their own measure, or `measures`, in all variants
        or those given."""
        rows: list[int] = []
        for concept in concepts:
            for (name, measure, variant), (first, _, end) in self._spans.items():
                wanted = measure in (measures or (concept.measure,))
                if name == concept.name and wanted and (variants is None or variant in variants):
                    rows += range(first, end)
        held = self._long.iloc[rows].reset_index(drop=True)
        families = {concept.name: concept.family for concept in concepts}
        held.insert(1, "family", [families[name] for name in names(held, "concept")])
        held["layer"] = held["layer"].astype("Int64").mask(held["layer"] == _NOWHERE)
        return held

    def given_away(self, concept: Concept) -> bool:
        """Whether the words alone give the concept away: no layer is above its bag of words.

        The run's own test, paired by example, decides; where there is none, a layer is above when its whole interval
        is.
        """
        if concept.above_bag is not None:
            return not concept.above_bag
        bag = self.bag_of_words(concept)
        floors = [p.low if p.low == p.low else p.value for p in points(self.curve(concept))]
        return bag is not None and not any(floor > bag.value for floor in floors)


def plain_table(
    data: RunData,
    name: str,
    texts: Sequence[str],
    numbers: Sequence[str],
    *,
    needs: Sequence[str] = (),
    concepts: Sequence[str] | None = None,
) -> pd.DataFrame | None:
    """A table of the run with these columns as text and as float; other columns are left as they are.

    Rows are kept that have all of `texts` (the first of them one of `concepts`, if given) and a number in all of
    `needs`. None where no row is left, and where the table or one of the columns is missing.
    """
    frame = data.table(name)
    if frame is None or not {*texts, *numbers} <= set(frame.columns):
        return None
    keep = np.ones(len(frame), dtype=bool)
    for text in texts:
        keep &= frame[text].notna().to_numpy(dtype=bool)
    for number in needs:
        keep &= np.array([is_number(value) for value in list(frame[number])], dtype=bool)
    if concepts is not None:
        keep &= np.array([name in concepts for name in names(frame, texts[0])], dtype=bool)
    typed = where(frame, keep).reset_index(drop=True)
    for text in texts:
        typed[text] = names(typed, text)
    for number in numbers:
        typed[number] = [float(v) if is_number(v) else np.nan for v in list(typed[number])]
    return None if typed.empty else typed


def depth_tests(data: RunData) -> list[dict[str, Any]]:
    """The tests of every pair, `deeper` an empty text where no difference could be shown."""
    frame = plain_table(
        data,
        "depth_tests",
        ("a", "b"),
        ("depth_a", "depth_b", "difference", "low", "high", "p", "p_holm"),
        needs=("depth_a", "depth_b", "difference"),
    )
    if frame is None or "deeper" not in frame.columns:
        return []
    rows = cast("list[dict[str, Any]]", frame.to_dict("records"))
    return [
        {**row, "deeper": row["deeper"] if row["deeper"] in (row["a"], row["b"]) else ""}
        for row in rows
    ]


def _concept_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that belong to a concept and to no part, width or head of it."""
    keep = frame["concept"].notna() & frame["value"].notna() & frame["measure"].notna()
    keep &= frame["dim"].isna() & frame["block"].isna()
    keep &= frame["split"].isna() | (frame["split"] == "all").fillna(False)
    return where(frame, keep.to_numpy(dtype=bool))


def _concept(row: dict[str, Any]) -> Concept:
    text = {
        key: "" if value is None or value != value else str(value)
        for key, value in row.items()
        if not is_number(value)
    }
    chance, above = row.get("chance"), row.get("above_bag")
    return Concept(
        str(row["concept"]),
        text.get("family", ""),
        text.get("kind", ""),
        text.get("dataset", ""),
        text.get("measure") or "accuracy",
        whole(row.get("n")),
        float(str(chance)) if is_number(chance) else None,
        text.get("note", ""),
        bool(above) if isinstance(above, bool | np.bool_) else None,
    )


def _undescribed(data: RunData) -> list[Concept]:
    """Concepts of a run that has not written its list of them yet, from the curves that are there."""
    rows = _concept_rows(data.measurements)
    rows = where(rows, rows["layer"].notna().to_numpy(dtype=bool))
    held: dict[str, set[str]] = {}
    for concept, measure in zip(names(rows, "concept"), names(rows, "measure"), strict=True):
        held.setdefault(concept, set()).add(measure)
    found: list[Concept] = []
    for concept, measures in held.items():
        measure = next((name for name in _CURVES if name in measures), None)
        if measure is not None:
            chance = data.measure(measure).get("chance")
            level = float(str(chance)) if is_number(chance) else None
            found.append(Concept(concept, "", "", "", measure, None, level, ""))
    return found
