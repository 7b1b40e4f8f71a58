"""Where features are active: density and sizes of every feature, and a few examples of each, in one pass over texts.

Memory goes by features × examples, not by texts. Of each feature the strongest tokens are kept, one per text, and a
uniform sample of all its non-zero activations, from which the quarters are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from probes.errors import InputError
from probes.sae.kept import Entries, Kept, random_keys, text_peaks
from probes.sae.metrics import Coder
from probes.sae.token_states import TokenStates
from probes.sae.token_text import SpelledTexts

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]

QUARTERS = ("0–25 %", "25–50 %", "50–75 %", "75–100 %")
COLUMNS = (
    "feature", "quantile", "rank", "text", "peak", "activation", "tokens", "values",
)  # fmt: skip
_WIDEST = 24


@dataclass(frozen=True)
class ExamplePlan:
    """How many examples, and how wide.

    Attributes:
        top: strongest examples of each feature, of different texts.
        per_quarter: examples from each quarter of its non-zero activations.
        sample: activations of each feature that the quarters are taken from; those of rarer features are all kept.
        before, after: tokens shown on either side of the peak, at most 24 with it.
        seed: of the sample.
    """

    top: int = 5
    per_quarter: int = 2
    sample: int = 64
    before: int = 15
    after: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        small = min(self.top, self.per_quarter, self.sample) < 1
        if small or min(self.before, self.after) < 0 or self.width > _WIDEST:
            raise InputError(
                f"{self}: top, per_quarter and sample are 1 or more, before + after at most {_WIDEST - 1}"
            )

    @property
    def width(self) -> int:
        return self.before + 1 + self.after


class Collector:
    """What is kept of the codes of tokens, batch by batch; see `statistics` and `example_rows`."""

    def __init__(self, coder: Coder, m: int, plan: ExamplePlan) -> None:
        self.coder, self.plan = coder, plan
        self.tokens = 0
        self.count = np.zeros(m, np.int64)
        self.total = np.zeros(m)
        self.most = np.full(m, -np.inf)
        self.top = Kept(m, plan.top, plan.width)
        self.sample = Kept(m, plan.sample, plan.width)

    def add(self, batch: TokenStates) -> None:
        """Take in a batch of whole texts."""
        table = _table(self.coder.transform(batch.states))
        n, m = table.shape
        owner = np.repeat(np.arange(n), np.diff(table.indptr))
        feature, value = table.indices.astype(np.int64), table.data
        self.tokens += n
        self.count += np.bincount(feature, minlength=m)
        self.total += np.bincount(feature, value, m)
        np.maximum.at(self.most, feature, value)
        entries = Entries(feature, value, batch.text[owner], batch.position[owner])
        windows = _Windows(batch, table, owner, self.plan)
        self.sample.offer(entries, random_keys(entries, self.plan.seed), windows)
        peaks = text_peaks(entries)
        best = entries.part(peaks)
        self.top.offer(best, best.value.astype(np.float64), lambda chosen: windows(peaks[chosen]))

    def statistics(self) -> pd.DataFrame:
        """One row per feature: density (share of tokens), mean_active and max_active (null where dead), dead."""
        live = self.count > 0
        mean = np.divide(self.total, self.count, out=np.zeros(len(live)), where=live)
        return pd.DataFrame(
            {
                "feature": np.arange(len(live)),
                "density": self.count / max(1, self.tokens),
                "mean_active": _where(mean, live),
                "max_active": _where(self.most, live),
                "dead": ~live,
            }
        )


def _where(values: FloatArray, known: NDArray[np.bool_]) -> list[float | None]:
    return [float(v) if k else None for v, k in zip(values, known, strict=True)]


def _table(codes: Any) -> Any:
    table: Any = sparse.csr_array(codes)
    if table.nnz and not np.all(table.data):
        table = table.copy()
        table.eliminate_zeros()
    table.sort_indices()
    return table


class _Windows:
    """Values of an entry's feature at the tokens around it: (chosen, width), 0 outside of its text."""

    def __init__(self, batch: TokenStates, table: Any, owner: IntArray, plan: ExamplePlan) -> None:
        self._batch, self._table, self._owner = batch, table, owner
        self._steps = np.arange(-plan.before, plan.after + 1)
        self._keys = owner * table.shape[1] + table.indices  # ascending

    def __call__(self, chosen: IntArray) -> FloatArray:
        batch, keys = self._batch, self._keys
        own = self._owner[chosen][:, None]
        place = own + self._steps
        inside = (place >= 0) & (place < len(batch.text))
        place = np.where(inside, place, own)
        # a token that does not count (a special one) is missing in between: places are compared too
        inside &= (batch.text[place] == batch.text[own]) & (
            batch.position[place] == batch.position[own] + self._steps
        )
        wanted = place * self._table.shape[1] + self._table.indices[chosen][:, None]
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(inside & (keys[found] == wanted), self._table.data[found], 0)


def example_rows(
    collector: Collector, spelled: SpelledTexts, numbers: IntArray
) -> Iterator[dict[str, Any]]:
    """Rows of the table of examples: feature, quantile, rank (from 1), text, peak, activation, tokens, values.

    `tokens` and `values` are JSON lists of equal length, `peak` an index into both; `numbers` (texts,) are the numbers
    of the spelled texts in the table. No token is shown twice for one feature.
    """
    plan = collector.plan
    pieces: dict[int, list[str]] = {}

    def row(kept: Kept, feature: int, place: int, quantile: str, rank: int) -> dict[str, Any]:
        text, position = int(kept.text[feature, place]), int(kept.position[feature, place])
        if text not in pieces:
            pieces[text] = spelled.pieces(text)
        own = pieces[text]
        first, last = max(0, position - plan.before), min(len(own), position + plan.after + 1)
        begin = first - position + plan.before
        values = kept.window[feature, place, begin : begin + last - first]
        return {
            "feature": feature,
            "quantile": quantile,
            "rank": rank,
            "text": int(numbers[text]),
            "peak": position - first,
            "activation": float(kept.value[feature, place]),
            "tokens": json.dumps(own[first:last], ensure_ascii=False),
            "values": json.dumps([float(f"{value:.4g}") for value in values.tolist()]),
        }

    for feature in np.flatnonzero(collector.count).tolist():
        shown: set[tuple[int, int]] = set()
        for rank, place in enumerate(np.flatnonzero(collector.top.filled[feature]).tolist()):
            shown.add(_where_is(collector.top, feature, place))
            yield row(collector.top, feature, place, "top", rank + 1)
        for quarter, places in _quarters(collector.sample, feature):
            chosen = _different(collector.sample, feature, places, plan.per_quarter, shown)
            for rank, place in enumerate(chosen):
                yield row(collector.sample, feature, place, quarter, rank + 1)


def _where_is(kept: Kept, feature: int, place: int) -> tuple[int, int]:
    return int(kept.text[feature, place]), int(kept.position[feature, place])


def _quarters(sample: Kept, feature: int) -> Iterator[tuple[str, list[int]]]:
    """Places of the sample by quarter of its values, the highest first; inside one in random order."""
    filled = np.flatnonzero(sample.filled[feature])
    rank = sample.value[feature, filled].argsort(kind="stable").argsort()
    quarter = rank * len(QUARTERS) // len(filled)
    for number in reversed(range(len(QUARTERS))):
        yield QUARTERS[number], filled[quarter == number].tolist()


def _different(
    sample: Kept, feature: int, places: list[int], n: int, shown: set[tuple[int, int]]
) -> list[int]:
    """The first n that were not shown, of different texts as far as they go; the strongest first."""
    free = [p for p in places if _where_is(sample, feature, p) not in shown]
    texts: set[int] = set()
    first: list[int] = []
    for place in free:
        text = int(sample.text[feature, place])
        if text not in texts:
            texts.add(text)
            first.append(place)
    chosen = [*first, *(p for p in free if p not in first)][:n]
    return sorted(chosen, key=lambda p: -float(sample.value[feature, p]))
