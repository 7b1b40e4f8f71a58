"""Search among features: by the tokens they promote, the texts they fire on, and their concepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from probes.report.collapse_study import records
from probes.report.sae_examples import Example, example_in, in_words, quoted, texts_in
from probes.report.text import clean

Row = dict[str, Any]
_WORDS = 8  # of a query that are looked for
_WEIGHTS = {"fires on": 4.0, "promotes": 3.0, "concept": 2.0, "text": 1.0}


@dataclass(frozen=True)
class Found:
    """A feature that a query found: where, and a few words that show it."""

    feature: int
    where: str
    shown: str


@dataclass(frozen=True)
class SearchIndex:
    """Texts of every feature, folded for comparison, by where they stand; and its strongest example in words."""

    texts: dict[int, dict[str, str]]
    first: dict[int, str]
    promoted: dict[int, str]

    @classmethod
    def of(cls, features: dict[int, Row], strongest: pd.DataFrame | None) -> SearchIndex:
        """The index of features and of the rows of their strongest examples."""
        texts: dict[int, dict[str, str]] = {}
        promoted: dict[int, str] = {}
        for feature, row in features.items():
            held = texts_in(row["up_tokens"])
            promoted[feature] = quoted(held, 4)
            texts[feature] = {
                "promotes": _folded(held),
                "concept": f"{row['dataset']} {clean(row['concept'], 60)}".casefold(),
            }
        first: dict[int, str] = {}
        for at, kept in _by_feature(strongest).items():
            if at not in texts:
                continue
            texts[at]["fires on"] = _folded(tuple(e.tokens[e.peak] for e in kept))
            texts[at]["text"] = " ".join("".join(e.tokens) for e in kept).casefold()
            first[at] = in_words(kept[0])
        return cls(texts, first, promoted)

    def search(self, query: str, most: int = 50) -> tuple[list[Found], int]:
        """The features in which every word of the query stands, best first, and how many there are.

        A word that is a token of its own counts more than a part of one; a number finds the feature of that number.
        """
        words = query.casefold().split()[:_WORDS]
        if not words:
            return [], 0
        scored: list[tuple[float, int, str]] = []
        for feature, fields in self.texts.items():
            score, where = _score(words, feature, fields)
            if score > 0:
                scored.append((-score, feature, where))
        scored.sort()
        found = [Found(f, where, self._shown(f, where)) for _, f, where in scored[:most]]
        return found, len(scored)

    def _shown(self, feature: int, where: str) -> str:
        promoted, first = self.promoted.get(feature, ""), self.first.get(feature, "")
        return promoted if where == "promotes" else first or promoted


def _by_feature(strongest: pd.DataFrame | None) -> dict[int, list[Example]]:
    """Examples of every feature, the strongest first."""
    found: dict[int, list[Example]] = {}
    if strongest is not None:
        for row in records(strongest.sort_values("rank", kind="stable")):
            example = example_in(row)
            if example is not None:
                found.setdefault(int(row["feature"]), []).append(example)
    return found


def _folded(tokens: tuple[str, ...]) -> str:
    """Tokens with a bar round each, so that a whole one can be told from a part."""
    return "|" + "|".join(token.strip().casefold() for token in tokens) + "|"


def _score(words: list[str], feature: int, fields: dict[str, str]) -> tuple[float, str]:
    """How well a feature fits, 0 where a word is missing; and the field that says so most."""
    if words == [str(feature)]:
        return 100.0, "number"
    total: dict[str, float] = {}
    for word in words:
        hits = {
            name: _WEIGHTS[name] * (2.0 if f"|{word}|" in text else 1.0)
            for name, text in fields.items()
            if word in text
        }
        if not hits:
            return 0.0, ""
        for name, size in hits.items():
            total[name] = total.get(name, 0.0) + size
    return sum(total.values()), max(total, key=lambda name: total[name])
