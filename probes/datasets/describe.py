"""What a dataset holds, as plain values: for `fathometer datasets list` and `show`, and for `run.json`."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.datasets.catalogue import DatasetEntry, builtin_datasets
from probes.files import sha256_texts
from probes.types import (
    Dataset,
    LabelledNumbers,
    LabelledPairs,
    LabelledTexts,
    MinimalPairs,
    Retrieval,
    TextPairs,
    TokenLabels,
)

EXAMPLES = 3
SHOWN = 160  # characters of an example


def dataset_entries() -> list[DatasetEntry]:
    """The built-in datasets, by name; each has name, kind, n, licence and a sentence."""
    return sorted(builtin_datasets().values(), key=lambda entry: entry.name)


def list_datasets() -> list[str]:
    """Names of the built-in datasets.

    >>> "cities" in list_datasets()
    True
    """
    return [entry.name for entry in dataset_entries()]


def describe(dataset: Dataset) -> dict[str, Any]:
    """Kind, size, balance, lengths in characters, examples, licence, hash, groups: JSON values only."""
    groups = dataset.groups
    return {
        "name": dataset.name,
        "kind": dataset.kind,
        "n": len(dataset),
        "licence": dataset.source.licence,
        "origin": dataset.source.origin,
        "notes": list(dataset.source.notes),
        "hash": dataset.content_hash(),
        "groups": None if groups is None else len(set(groups.tolist())),
        "length_chars": _lengths(dataset.all_texts()),
        **_details(dataset),
    }


def describe_entry(name: str, seed: int = 0) -> dict[str, Any]:
    """The same for a built-in set by name, plain texts included; `summary` says what it is for."""
    entry = builtin_datasets()[name]
    built = entry.build(seed)
    if not isinstance(built, tuple):
        return {**describe(built), "summary": entry.summary}
    return {
        "name": name,
        "kind": entry.kind,
        "n": len(built),
        "licence": entry.licence,
        "hash": sha256_texts(built),
        "length_chars": _lengths(built),
        "examples": [{"text": _short(built[i])} for i in _spread(len(built))],
        "summary": entry.summary,
    }


def _lengths(texts: tuple[str, ...]) -> dict[str, int]:
    lengths = np.fromiter(map(len, texts), dtype=np.int64)
    marks = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95, "max": 1.0}
    return {name: round(float(np.quantile(lengths, q))) for name, q in marks.items()}


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _spread(n: int) -> list[int]:
    """A few places spread over n rows, so that examples are not all of one class."""
    return sorted({int(place) for place in np.linspace(0, n - 1, EXAMPLES)})


def _details(dataset: Dataset) -> dict[str, Any]:
    rows = _spread(len(dataset))
    match dataset:
        case LabelledTexts():
            names = dataset.label_names
            return {
                "classes": _class_sizes(dataset),
                "examples": [
                    {
                        "text": _short(dataset.texts[i]),
                        **_marked(dataset.texts[i], dataset.spans, i),
                        "label": names[int(dataset.labels[i])],
                    }
                    for i in rows
                ],
            }
        case LabelledPairs():
            names = dataset.label_names
            spans_a = None if dataset.spans is None else dataset.spans[:, 0]
            spans_b = None if dataset.spans is None else dataset.spans[:, 1]
            return {
                "classes": _class_sizes(dataset),
                "examples": [
                    {
                        "text_a": _short(dataset.texts_a[i]),
                        **_marked(dataset.texts_a[i], spans_a, i, "span_a"),
                        "text_b": _short(dataset.texts_b[i]),
                        **_marked(dataset.texts_b[i], spans_b, i, "span_b"),
                        "label": names[int(dataset.labels[i])],
                    }
                    for i in rows
                ],
            }
        case LabelledNumbers():
            columns = zip(dataset.target_names, dataset.targets.T, strict=True)
            return {
                "targets": {name: _quartiles(values) for name, values in columns},
                "examples": [
                    {
                        "text": _short(dataset.texts[i]),
                        **_marked(dataset.texts[i], dataset.spans, i),
                        **dict(zip(dataset.target_names, dataset.targets[i].tolist(), strict=True)),
                    }
                    for i in rows
                ],
            }
        case TextPairs():
            return {
                "scores": _quartiles(dataset.scores),
                "examples": [
                    {
                        "text_a": _short(dataset.texts_a[i]),
                        "text_b": _short(dataset.texts_b[i]),
                        "score": float(dataset.scores[i]),
                    }
                    for i in rows
                ],
            }
        case Retrieval():
            per_query = np.diff(dataset.relevance.indptr)
            return {
                "documents": len(dataset.documents),
                "relevant_per_query": {
                    "mean": float(per_query.mean()),
                    "max": int(per_query.max()),
                },
                "distractors": int(
                    len(dataset.documents) - len(np.unique(dataset.relevance.indices))
                ),
                "examples": [
                    {
                        "query": _short(dataset.queries[i]),
                        "document": _short(dataset.documents[_best(dataset, i)]),
                    }
                    for i in rows
                ],
            }
        case MinimalPairs():
            return {
                "examples": [
                    {"good": _short(dataset.good[i]), "bad": _short(dataset.bad[i])} for i in rows
                ]
            }
        case TokenLabels():
            tags = sorted({tag for row in dataset.labels for tag in row})
            return {
                "classes": {tag: sum(row.count(tag) for row in dataset.labels) for tag in tags},
                "examples": [
                    {
                        "words": _short(" ".join(dataset.words[i])),
                        "tags": _short(" ".join(dataset.labels[i])),
                    }
                    for i in rows
                ],
            }


def _class_sizes(dataset: LabelledTexts | LabelledPairs) -> dict[str, int]:
    counts = np.bincount(dataset.labels, minlength=len(dataset.label_names)).tolist()
    return dict(zip(dataset.label_names, counts, strict=True))


def _quartiles(values: np.ndarray) -> dict[str, float]:
    marks = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return dict(zip(("min", "q25", "median", "q75", "max"), marks, strict=True))


def _marked(text: str, spans: np.ndarray | None, row: int, name: str = "span") -> dict[str, str]:
    """The characters that the label of a row is about, where it is about some."""
    if spans is None:
        return {}
    start, end = spans[row].tolist()
    return {name: _short(text[start:end])}


def _best(dataset: Retrieval, query: int) -> int:
    start, stop = dataset.relevance.indptr[query : query + 2]
    grades = dataset.relevance.data[start:stop]
    return int(dataset.relevance.indices[start + int(np.argmax(grades))])
