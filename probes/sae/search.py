"""Finding features by words: in their promoted tokens, their examples and their concepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

from probes.errors import InputError
from probes.sae.features import FeatureTables

FIELDS = ("concept", "promoted tokens", "examples")


def search_features(tables: FeatureTables, query: str, n: int = 50) -> pd.DataFrame:
    """The features that `query` finds, the best first: columns feature, score in (0, 1], where, found.

    Case does not count. Scores: a concept (or its dataset) of that name 1, with the query in it ½; promoted tokens
    1, 0.95, 0.9, … by rank where the token is the query, half of that where it only begins with it; examples: the
    share of the activation that lies on the tokens of the query's occurrences, in the mean over its examples.
    `where` is the field with the best score, `found` the concept, token or piece of text. Raises `InputError` for an
    empty query.

    >>> features = pd.DataFrame({"feature": [0, 1], "concept": ["tense", None], "dataset": None,
    ...                          "up_tokens": ['[" cat"]', '[" dog", " cat"]']})
    >>> examples = pd.DataFrame({"feature": [1], "tokens": ['["a", " cat", " sat"]'], "values": ["[0, 3.0, 1.0]"]})
    >>> search_features(FeatureTables(features, examples, 3, 1), "cat")[["feature", "where", "score"]].values.tolist()
    [[0, 'promoted tokens', 1.0], [1, 'promoted tokens', 0.95]]
    """
    wanted = " ".join(query.split()).casefold()
    if not wanted:
        raise InputError("an empty query finds nothing: give one word or more")
    best: dict[int, tuple[float, str, str]] = {}

    def offer(feature: Any, score: float, where: str, found: str) -> None:
        if score > best.get(int(feature), (0.0,))[0]:
            best[int(feature)] = (score, where, found)

    for feature, *names, up in _columns(
        tables.features, "feature", "concept", "dataset", "up_tokens"
    ):
        for name in names:
            if isinstance(name, str) and wanted in name.casefold():
                offer(feature, 1.0 if name.casefold() == wanted else 0.5, FIELDS[0], name)
        for rank, token in enumerate(_list(up)):
            score = _token_score(str(token).strip().casefold(), wanted) * max(0.05, 1 - rank / 20)
            offer(feature, score, FIELDS[1], str(token))
    shares: dict[Any, list[tuple[float, str]]] = {}
    for feature, tokens, values in _columns(tables.examples, "feature", "tokens", "values"):
        found = _example_score(_list(tokens), _list(values), wanted)
        shares.setdefault(feature, []).append(found)
    for feature, own in shares.items():
        offer(feature, sum(share for share, _ in own) / len(own), FIELDS[2], max(own)[1])
    rows = [(feature, *found) for feature, found in best.items()]
    frame = pd.DataFrame(rows, columns=["feature", "score", "where", "found"])
    order = frame.sort_values(["score", "feature"], ascending=[False, True], kind="stable")
    return order.head(n).reset_index(drop=True)


def _columns(frame: pd.DataFrame, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(frame[name].tolist() for name in names), strict=True)


def _list(text: Any) -> list[Any]:
    return json.loads(text) if isinstance(text, str) else []


def _token_score(token: str, wanted: str) -> float:
    if token == wanted:
        return 1.0
    return 0.5 if token.startswith(wanted) else 0.0


def _example_score(tokens: list[Any], values: list[Any], wanted: str) -> tuple[float, str]:
    """Share of the activation on tokens that overlap an occurrence of the query, and the first such piece."""
    pieces = [str(token) for token in tokens]
    text = "".join(pieces)
    folded = text.casefold()
    if len(folded) != len(text):  # a letter that folds into two: places would be wrong
        folded = text.lower() if len(text.lower()) == len(text) else text
    hit = [False] * len(folded)
    at = folded.find(wanted)
    first = at
    while at >= 0:
        hit[at : at + len(wanted)] = [True] * len(wanted)
        at = folded.find(wanted, at + 1)
    if first < 0:
        return 0.0, ""
    total = on = 0.0
    start = 0
    for piece, value in zip(pieces, values, strict=True):
        size = max(0.0, float(value))
        total += size
        on += size if any(hit[start : start + len(piece)]) else 0.0
        start += len(piece)
    return (on / total if total else 0.0), text[first : first + len(wanted)]
