"""Two views of the same texts, for metrics that ask whether a layer keeps what a change of wording leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.capture.spans import sentence_spans
from probes.datasets import corrupt
from probes.errors import DoesNotApply, unknown_name

VIEWS = ("swap", "drop", "split")
FEWEST = 20  # texts of several sentences below which halves say nothing


@dataclass(frozen=True)
class Views:
    """Texts twice over: `first[i]` and `second[i]` are views of text `rows[i]`."""

    kind: str
    rows: NDArray[np.int64]
    first: tuple[str, ...]
    second: tuple[str, ...]


def make_views(texts: Sequence[str], kind: str, seed: int = 0) -> Views:
    """Two views of every text that has them.

    * `swap`, `drop`: two independent draws of character noise or of word dropout (see `probes.datasets.corrupt`);
    * `split`: the first and the second half of the sentences; texts of one sentence are left out.

    Raises `InputError` for an unknown kind, `DoesNotApply` where fewer than 20 texts have two sentences.

    >>> views = make_views(["One two three. Four five six."] * 20, "split")
    >>> views.first[0], views.second[0]
    ('One two three.', 'Four five six.')
    """
    if kind not in VIEWS:
        raise unknown_name("view", kind, VIEWS)
    if kind != "split":
        first = corrupt(texts, kind, seed=2 * seed)
        second = corrupt(texts, kind, seed=2 * seed + 1)
        return Views(kind, np.arange(len(texts)), first, second)
    halves = [_halves(text) for text in texts]
    rows = np.flatnonzero([pair is not None for pair in halves])
    if len(rows) < FEWEST:
        raise DoesNotApply(
            f"views by sentence: {len(rows)} of {len(texts)} texts have two sentences, {FEWEST} are needed"
        )
    pairs = [pair for pair in halves if pair is not None]
    return Views(kind, rows, tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def _halves(text: str) -> tuple[str, str] | None:
    spans = sentence_spans(text)
    if len(spans) < 2:
        return None
    middle = spans[len(spans) // 2][0]
    return text[:middle].strip(), text[middle:].strip()
