"""What is trained on: columns of texts from the fit part of a dataset, and the loss that suits them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.errors import DataError, InputError
from probes.files import canonical_json, sha256_texts
from probes.types import Retrieval, TextPairs

if TYPE_CHECKING:
    from probes.types import Dataset

IntArray = NDArray[np.integer[Any]]
FEWEST = 8  # rows: a batch of fewer holds nothing to compare with
Objective = Literal["cosent", "ranking"]


@dataclass(frozen=True)
class TrainingRows:
    """Texts that belong together: `first[i]` with `second[i]`, prompts included.

    `objective` says with which loss: "cosent" orders pairs by their `scores`, "ranking" tells `second[i]` from the
    other rows of the batch.
    """

    objective: Objective
    first: tuple[str, ...]
    second: tuple[str, ...]
    scores: tuple[float, ...] | None

    def __len__(self) -> int:
        return len(self.first)

    def columns(self) -> dict[str, list[Any]]:
        """As a table for sentence-transformers: texts first, then the label where there is one."""
        table: dict[str, list[Any]] = {"anchor": list(self.first), "positive": list(self.second)}
        return table if self.scores is None else {**table, "score": list(self.scores)}

    def digest(self) -> str:
        """Hex SHA-256 of all that is trained on."""
        scores = canonical_json(self.scores)
        return sha256_texts([self.objective, scores, *self.first, *self.second])


def training_rows(
    data: Dataset, rows: IntArray, prompts: Mapping[str, str] | None = None
) -> TrainingRows:
    """The examples `rows` of scored pairs or of a retrieval set as training rows.

    Every relevant document of a query is a row of its own. `prompts` are put before texts, as in `make_task`.
    Raises `InputError` for other kinds of data, `DataError` where too few rows are left.

    >>> pairs = TextPairs("p", ("a", "b"), ("c", "d"), np.asarray([0.0, 1.0]))
    >>> training_rows(pairs, np.arange(2), {"text": "x: "}).first
    Traceback (most recent call last):
    ...
    probes.errors.DataError: dataset 'p' leaves 2 rows to train on, at least 8 are needed: give more examples
    """
    given = prompts or {}
    if isinstance(data, TextPairs):
        before = given.get("text", "")
        made = TrainingRows(
            "cosent",
            tuple(before + data.texts_a[i] for i in rows),
            tuple(before + data.texts_b[i] for i in rows),
            tuple(float(data.scores[i]) for i in rows),
        )
    elif isinstance(data, Retrieval):
        made = _ranking(data, rows, given.get("query", ""), given.get("document", ""))
    else:
        raise InputError(
            f"dataset {data.name!r} holds {data.kind}: exits are trained on scored pairs or on a retrieval set"
        )
    if len(made) < FEWEST:
        raise DataError(
            f"dataset {data.name!r} leaves {len(made)} rows to train on, at least {FEWEST} are needed: "
            "give more examples"
        )
    return made


def _ranking(data: Retrieval, rows: IntArray, query: str, document: str) -> TrainingRows:
    first: list[str] = []
    second: list[str] = []
    for i in rows.tolist():
        start, end = int(data.relevance.indptr[i]), int(data.relevance.indptr[i + 1])
        for place in range(start, end):
            if data.relevance.data[place] > 0:
                first.append(query + data.queries[i])
                second.append(document + data.documents[int(data.relevance.indices[place])])
    return TrainingRows("ranking", tuple(first), tuple(second), None)
