"""Search among the features of a run: by the tokens they promote, the texts they fire on, and their concepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from probes.feature_search import PROMOTES, Described, Excerpt, search
from probes.report.collapse_study import records
from probes.report.sae_examples import Example, example_in, in_words, quoted, texts_in
from probes.report.text import clean

Row = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A feature that a query found: where, and a few words that show it."""

    feature: int
    where: str
    shown: str


@dataclass(frozen=True)
class SearchIndex:
    """What is known of every feature, for `probes.feature_search`, and its strongest example in words."""

    features: tuple[Described, ...]
    first: dict[int, str]
    promoted: dict[int, str]

    @classmethod
    def of(cls, features: dict[int, Row], strongest: pd.DataFrame | None) -> SearchIndex:
        """The index of features and of the rows of their strongest examples."""
        examples = _by_feature(strongest)
        first = {at: in_words(kept[0]) for at, kept in examples.items() if at in features}
        found: list[Described] = []
        promoted: dict[int, str] = {}
        for feature, row in features.items():
            held = texts_in(row["up_tokens"])
            promoted[feature] = quoted(held, 4)
            excerpts = tuple(Excerpt.of(e.tokens, e.values) for e in examples.get(feature, ()))
            found.append(Described(feature, _names(row), held, excerpts))
        return cls(tuple(found), first, promoted)

    def search(self, query: str, most: int = 50) -> tuple[list[Found], int]:
        """The features that a query finds, best first, and how many there are."""
        hits = search(self.features, query)
        found = [
            Found(hit.feature, hit.where, self._shown(hit.feature, hit.where))
            for hit in hits[:most]
        ]
        return found, len(hits)

    def _shown(self, feature: int, where: str) -> str:
        promoted, first = self.promoted.get(feature, ""), self.first.get(feature, "")
        return promoted if where == PROMOTES else first or promoted


def _names(row: Row) -> tuple[str, ...]:
    """Concept and dataset, if any."""
    held = (row.get("concept"), row.get("dataset"))
    return tuple(clean(name, 60) for name in held if isinstance(name, str) and name)


def _by_feature(strongest: pd.DataFrame | None) -> dict[int, list[Example]]:
    """Examples of every feature, the strongest first."""
    found: dict[int, list[Example]] = {}
    if strongest is not None:
        for row in records(strongest.sort_values("rank", kind="stable")):
            example = example_in(row)
            if example is not None:
                found.setdefault(int(row["feature"]), []).append(example)
    return found
