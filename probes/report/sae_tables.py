"""The tables of a run of sparse autoencoders as figures, words and the page ask for them.

Every table may be absent, half-written or damaged: what cannot be read is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from probes.report.collapse_study import Schema, numbers_of, read_schema, records, texts_of
from probes.report.data import RunData
from probes.report.frames import names, only, where
from probes.report.text import is_number

SAE = "sae"  # the analysis, and what its own coder is called
Row = dict[str, Any]

_SPAN = ("low", "high", "n")
_CONTROL = ("control_value", "control_low", "control_high")
_DIFFERENCE = ("difference", "difference_low", "difference_high")

TABLES = {
    "sae_models": Schema(
        ("sae",),
        (),
        (
            "layer", "block", "k", "n_features", "target_l0", "steps", "tokens", "seconds", "norm_ratio",
        ),
        ("site", "variant", "folder"),
    ),
    "sae_history": Schema(
        ("sae",), ("step",), ("fvu", "l0", "dead_share", "penalty", "learning_rate")
    ),
    "sae_density": Schema(("sae", "coder"), ("low", "high", "features")),
    "sae_features": Schema(
        ("sae",),
        ("feature",),
        (
            "density", "mean_active", "max_active", "logit_kurtosis", "nearest", "nearest_cosine", "auroc",
            "auroc_low", "auroc_high", "shown",
        ),
        ("up_tokens", "down_tokens", "concept", "why"),
    ),
    "sae_examples": Schema(
        ("sae", "quantile", "tokens", "values"), ("feature", "rank"), ("text", "peak", "activation")
    ),
    "sae_concepts": Schema(
        ("sae", "concept", "coder"), ("auroc",), ("feature", "fit_auroc", *_SPAN)
    ),
    "sae_probing": Schema(
        ("sae", "concept", "coder"), ("value",), ("features", *_SPAN), ("measure",)
    ),
    "sae_effects": Schema(
        ("sae", "mode", "measure"),
        ("feature", "value"),
        ("strength", *_CONTROL, *_DIFFERENCE, *_SPAN),
    ),
    "sae_circuits": Schema(("task", "method"), ("auc",), ("seed",), ("level",)),
    "sae_circuit_heads": Schema(
        ("task",),
        ("block", "head", "effect"),
        ("low", "high", "sae", "random", "clusters", "mean_difference"),
    ),
    "csr": Schema(
        ("coder", "measure"),
        ("value",),
        ("active", "width", "bytes", "share", "query_ms", "csr_k", *_SPAN),
        ("comparison",),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class SaeFocus:
    """What a reader looks at: an autoencoder and one of its features; None for the main one, and for none."""

    sae: str | None = None
    feature: int | None = None


def is_sae(data: RunData) -> bool:
    """Whether the run trained sparse autoencoders."""
    return data.info.get("analysis") == SAE


def held(data: RunData, name: str) -> pd.DataFrame | None:
    """A table of the run with plain numpy columns; None if absent or damaged, or if the run is of another kind."""
    if not is_sae(data):
        return None
    return data.once(("held", name), lambda: read_schema(data, name, TABLES[name]))


def is_true(row: Row, name: str) -> bool:
    """Whether a yes-or-no column says yes; an absent or missing one does not.

    >>> is_true({"dead": True}, "dead"), is_true({"dead": pd.NA}, "dead"), is_true({}, "dead")
    (True, False, False)
    """
    value = row.get(name)
    return value is not None and value is not pd.NA and value in (True, 1)


def models(data: RunData) -> dict[str, Row]:
    """The autoencoders by name, the main one first."""
    frame = held(data, "sae_models")
    rows = [] if frame is None else records(frame.drop_duplicates("sae"))
    return {row["sae"]: row for row in sorted(rows, key=lambda row: not is_true(row, "main"))}


def saes_of(data: RunData) -> list[str]:
    """Autoencoders that any table names, the main one first."""
    return data.once("saes of", lambda: _saes_of(data))


def _saes_of(data: RunData) -> list[str]:
    found = dict.fromkeys(models(data))
    for name, schema in TABLES.items():
        if "sae" in schema.texts and name != "sae_examples":  # large, and about the features
            frame = held(data, name)
            found |= dict.fromkeys([] if frame is None else names(frame, "sae"))
    return list(found)


def of_sae(data: RunData, name: str, focus: SaeFocus) -> tuple[pd.DataFrame, str] | None:
    """The rows of the autoencoder in focus (of the first that the table has by default) and its name."""
    frame = held(data, name)
    if frame is None:
        return None
    present = set(names(frame, "sae"))
    asked = [focus.sae] if focus.sae in present else saes_of(data)
    sae = next(each for each in asked if each in present)
    return only(frame, sae=sae).reset_index(drop=True), str(sae)


def several(data: RunData) -> bool:
    """Whether a title must say which autoencoder it is about."""
    return len(saes_of(data)) > 1


def features_of(data: RunData, focus: SaeFocus) -> dict[int, Row]:
    """The features of the autoencoder in focus by number."""
    found = of_sae(data, "sae_features", focus)
    if found is None:
        return {}
    frame, sae = found
    return data.once(
        ("features of", sae), lambda: {int(r["feature"]): r for r in reversed(records(frame))}
    )


def shown_features(data: RunData, focus: SaeFocus) -> list[Row]:
    """The features that the run picked to be read, in its order."""
    rows = [row for row in features_of(data, focus).values() if is_number(row["shown"])]
    return sorted(rows, key=lambda row: (row["shown"], row["feature"]))


@dataclass(frozen=True)
class Coder:
    """One coder of a place: its kind and k as its name says, and each measure's value, low, high, n."""

    place: str
    variant: str
    kind: str
    k: int | None
    numbers: dict[str, Row]

    def value(self, measure: str) -> float | None:
        """A measure's value, None where it was not measured."""
        row = self.numbers.get(measure)
        return None if row is None else float(row["value"])

    @property
    def active(self) -> float | None:
        """Active features per row: as measured, else as the name says."""
        measured = self.value("l0")
        return measured if measured is not None else None if self.k is None else float(self.k)


MEASURES = (
    "explained_variance",
    "fvu",
    "l0",
    "dead_share",
    "norm_ratio",
    "cross_entropy",
    "loss_recovered",
)
BASELINES = ("pca", "neurons", "clusters", "random", "dense")


def kind_of(variant: str) -> tuple[str, int | None]:
    """Kind and k of a coder's name.

    >>> kind_of("topk k=32"), kind_of("mean"), kind_of("pca k=x")
    (('topk', 32), ('mean', None), ('pca', None))
    """
    kind, _, rest = variant.partition(" ")
    said = next((part[2:] for part in rest.split() if part.startswith("k=")), "")
    plain = said.isascii() and said.isdigit() and len(said) < 8
    return kind, int(said) if plain else None


def coders(data: RunData) -> list[Coder]:
    """Every coder that was measured, place by place."""
    return data.once("coders", lambda: _coders(data)) if is_sae(data) else []


def _coders(data: RunData) -> list[Coder]:
    found: dict[tuple[str, str], dict[str, Row]] = {}
    frame = data.measurements
    splits = texts_of(frame, "split")
    test = np.array(["held out" not in splits or s in ("", "held out") for s in splits], dtype=bool)
    seen = RunData(where(frame, test), info=data.info)
    for measure in MEASURES:
        for by in ("layer", "block"):
            for row in records(numbers_of(seen, measure, by)):
                key = (f"{by} {row[by]}", row["variant"])
                found.setdefault(key, {}).setdefault(measure, row)
    return [Coder(place, name, *kind_of(name), numbers) for (place, name), numbers in found.items()]


def place_of(row: Row) -> str:
    """The place of an autoencoder as `Coder.place` names it, empty where the run does not say."""
    for by in ("layer", "block"):
        if is_number(row.get(by)):
            return f"{by} {int(row[by])}"
    return ""


def coder_of(data: RunData, sae: str | None) -> Coder | None:
    """The numbers of an autoencoder, by its place and the name that follows it."""
    if sae is None:
        return None
    at, _, variant = sae.partition(" ")
    own = models(data).get(sae, {})
    place = place_of(own) or f"layer {at[1:]}"
    same = [coder for coder in coders(data) if coder.variant == variant]
    return next((coder for coder in same if coder.place == place), None)


def beside(data: RunData, coder: Coder, kind: str) -> Coder | None:
    """The baseline of a kind at the same place with the same number of active features."""
    same = [c for c in coders(data) if c.place == coder.place and c.kind == kind]
    return next((c for c in same if c.k == coder.k), None)
