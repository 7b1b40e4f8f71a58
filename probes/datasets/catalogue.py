"""The built-in datasets: one registration each, and the registry is what the conformance tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, TypeVar

from probes.errors import DataError
from probes.registry import Registry
from probes.types import Dataset, Kind

Built = Dataset | tuple[str, ...]
Maker = TypeVar("Maker", bound=Callable[[int], Built])
HOMES = (
    "docstrings", "docstring_pairs", "reference", "facts", "numbers", "sentiment", "coin_flip",
    "entity_tracking", "entailment", "agreement", "tense", "quantities",
)  # fmt: skip
# What the sets generated here are under; the standard library's texts are under its own licence.
OWN = "CC0-1.0"
PYTHON = "PSF-2.0"


@dataclass(frozen=True)
class DatasetEntry:
    """A built-in dataset: `build(seed)` makes it, always the same for the same seed and Python version."""

    name: str
    kind: Kind | Literal["texts"]
    licence: str
    summary: str
    build: Callable[[int], Built]
    family: str = (
        "other"  # of concepts: factual, emotional, inferential, linguistic, quantity, topical
    )

    @property
    def n(self) -> int:
        """Rows at seed 0 (queries of a retrieval set, passages of a text set)."""
        return len(self.build(0))


DATASETS: Registry[DatasetEntry] = Registry("dataset")


def register_dataset(
    name: str, kind: Kind | Literal["texts"], licence: str, summary: str, family: str = "other"
) -> Callable[[Maker], Maker]:
    """Decorator that registers `function(seed)` as the built-in dataset `name`."""

    def decorate(function: Maker) -> Maker:
        DATASETS.add(name, DatasetEntry(name, kind, licence, summary, function, family))
        return function

    return decorate


def builtin_datasets() -> Registry[DatasetEntry]:
    """The registry with every built-in dataset in it."""
    for home in HOMES:
        import_module(f"probes.datasets.{home}")
    return DATASETS


def build_texts(entry: DatasetEntry, seed: int) -> tuple[str, ...]:
    """The different texts of a built-in dataset, in order."""
    built = entry.build(seed)
    texts = built if isinstance(built, tuple) else built.all_texts()
    return tuple(dict.fromkeys(texts))


def build_dataset(entry: DatasetEntry, seed: int) -> Dataset:
    """A built-in dataset; plain texts are refused, they have nothing to measure quality on."""
    built = entry.build(seed)
    if isinstance(built, tuple):
        raise DataError(
            f"{entry.name!r} holds texts without labels: use it as --texts {entry.name} "
            f"or load_texts({entry.name!r})"
        )
    return built
