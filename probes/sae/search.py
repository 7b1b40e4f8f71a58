"""Finding features by words: in their promoted tokens, their examples and their concepts."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from probes.errors import InputError
from probes.feature_search import Described, Excerpt, search
from probes.sae.features import FeatureTables


def search_features(tables: FeatureTables, query: str, n: int = 50) -> pd.DataFrame:
    """The features that `query` finds, the best first: columns feature, score in (0, 1], where, found.

    Case does not count; of the examples the strongest ("top") are read. The score is that of `probes.feature_search`,
    which the page of features uses too. `where` is "concept", "promotes", "fires on", "text" (where the words merely
    stand in an example) or "number"; `found` the concept, token or piece of text. Raises `InputError` for an empty
    query.

    >>> features = pd.DataFrame({"feature": [0, 1], "concept": ["tense", None], "dataset": None,
    ...                          "up_tokens": ['[" cat"]', '[" dog", " cat"]']})
    >>> examples = pd.DataFrame({"feature": [1], "quantile": "top", "tokens": ['["a", " cat", " sat"]'],
    ...                          "values": ["[0, 3.0, 1.0]"]})
    >>> search_features(FeatureTables(features, examples, 3, 1), "cat")[["feature", "where", "score"]].values.tolist()
    [[0, 'promotes', 1.0], [1, 'promotes', 0.95]]
    """
    if not query.split():
        raise InputError("an empty query finds nothing: give one word or more")
    hits = search(described(tables), query)[:n]
    rows = [(hit.feature, hit.score, hit.where, hit.found) for hit in hits]
    return pd.DataFrame(rows, columns=["feature", "score", "where", "found"])


def described(tables: FeatureTables) -> list[Described]:
    """What a search looks through, feature by feature."""
    top = tables.examples[tables.examples["quantile"] == "top"]
    excerpts: dict[int, list[Excerpt]] = {}
    for feature, tokens, values in zip(
        *(top[name].tolist() for name in ("feature", "tokens", "values")), strict=True
    ):
        excerpts.setdefault(int(feature), []).append(Excerpt.of(_list(tokens), _list(values)))
    table = tables.features
    columns = (table[name].tolist() for name in ("feature", "concept", "dataset", "up_tokens"))
    return [
        Described(
            int(feature),
            tuple(name for name in (concept, dataset) if isinstance(name, str)),
            tuple(str(token) for token in _list(up)),
            tuple(excerpts.get(int(feature), ())),
        )
        for feature, concept, dataset, up in zip(*columns, strict=True)
    ]


def _list(text: Any) -> list[Any]:
    return json.loads(text) if isinstance(text, str) else []
