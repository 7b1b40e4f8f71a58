"""Search among the features of a run: by the tokens they promote, the texts they fire on, and their concepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from probes.feature_search import CONCEPT, FIRES_ON, PROMOTES, TEXT, Described, Excerpt, Hit, search
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
    """What is known of every feature, for `probes.feature_search`, and its strongest examples."""

    features: tuple[Described, ...]
    examples: dict[int, list[Example]]

    @classmethod
    def of(cls, features: dict[int, Row], strongest: pd.DataFrame | None) -> SearchIndex:
        """The index of features and of the rows of their strongest examples."""
        examples = _by_feature(strongest)
        found: list[Described] = []
        for feature, row in features.items():
            held = texts_in(row["up_tokens"])
            excerpts = tuple(Excerpt.of(e.tokens, e.values) for e in examples.get(feature, ()))
            found.append(Described(feature, _names(row), held, excerpts))
        return cls(tuple(found), examples)

    def search(self, query: str, most: int = 50) -> tuple[list[Found], int]:
        """The features that a query finds, best first, and how many there are."""
        hits = search(self.features, query)
        held = {each.feature: each for each in self.features}
        found = [
            Found(hit.feature, hit.where, self._shown(held[hit.feature], hit))
            for hit in hits[:most]
        ]
        return found, len(hits)

    def _shown(self, each: Described, hit: Hit) -> str:
        """What was found, in what stands round it; the strongest example for what is no text."""
        examples = self.examples.get(each.feature, [])
        if hit.where in (FIRES_ON, TEXT):
            return _excerpt(each, examples, hit.found)
        first = in_words(examples[0]) if examples else ""
        if hit.where == PROMOTES or not first:
            others = [token for token in each.promoted if token != hit.found]
            named = (hit.found, *others) if hit.where == PROMOTES else each.promoted
            return quoted(tuple(named), 4)
        return f"{clean(hit.found, 60)}: {first}" if hit.where == CONCEPT else first


def _excerpt(each: Described, examples: list[Example], found: str) -> str:
    """The example with the most activation on what was found, cut so that it shows."""
    shares = [excerpt.share(found.casefold()) for excerpt in each.excerpts]
    on = [-1.0 if share is None else share[0] for share in shares]
    at = max(range(len(on)), key=on.__getitem__)
    if on[at] < 0:
        return in_words(examples[0])
    excerpt = each.excerpts[at]
    begin = excerpt.folded.find(found.casefold())
    ends = excerpt.starts[1:]
    token = next((i for i, end in enumerate(ends) if end > begin), examples[at].peak)
    return in_words(
        examples[at], centre=_nearest(excerpt, found.casefold(), examples[at].peak, token)
    )


def _nearest(excerpt: Excerpt, wanted: str, peak: int, first: int) -> int:
    """The token of the peak where it lies on an occurrence, else that of the first occurrence."""
    begin, end = excerpt.starts[peak], excerpt.starts[peak + 1]
    near = excerpt.folded[max(0, begin - len(wanted) + 1) : end + len(wanted) - 1]
    return peak if wanted in near else first


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
