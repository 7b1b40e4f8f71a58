"""Data that comes as batches of its own: shuffled in a buffer and dealt anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.errors import EstimatorInputError
from probes.sae.data import SAMPLE, ArrayRows, Batch, buffer_rows, joined, whole


class Stream:
    """An iterable of batches (rows, d) of any size as a shuffled, endless or ending stream of equal ones.

    A list, or anything else that can be iterated again, is read again and again; a generator once. Rows are shuffled
    within a buffer, all of whose batches are dealt before it is filled again; it never holds more than one pass.
    """

    def __init__(self, batches: Iterable[Any], buffer_mib: int, seed: int) -> None:
        self._batches = batches
        self._seed = seed
        self._again = not isinstance(batches, Iterator)
        self.columns: dict[Any, slice] | None = None  # of each key, where batches are mappings
        self._raw = self._read()
        ahead = next(self._raw)
        if ahead is None:
            raise EstimatorInputError("no batches came: at least one with a row is needed")
        self.d = ahead[0].shape[1]
        self._rows = buffer_rows(buffer_mib, self.d)
        self._start = self._fill(ahead)
        self.first = self._start[0]  # what the first buffer holds, in order: (rows, d)

    def _read(self) -> Iterator[Batch | None]:
        """Batches, their rows numbered from 0 in each pass, and None after each pass."""
        width = None
        while True:
            count = 0
            for batch in self._batches:
                states = self._joined(batch) if isinstance(batch, Mapping) else _batch(batch)
                if width not in (None, states.shape[1]):
                    raise EstimatorInputError(
                        f"a batch of width {states.shape[1]} came after one of {width}"
                    )
                width = states.shape[1]
                yield states, np.arange(count, count + len(states))
                count += len(states)
            yield None
            if not self._again or not count:
                return

    def _joined(self, batch: Mapping[Any, Any]) -> Tensor:
        """Keys side by side: they are shuffled alike, and each finds its own columns again."""
        parts = {key: _batch(part) for key, part in batch.items()}
        ends = np.cumsum([part.shape[1] for part in parts.values()]).tolist()
        found = {
            key: slice(end - part.shape[1], end)
            for end, (key, part) in zip(ends, parts.items(), strict=True)
        }
        if len({len(part) for part in parts.values()}) != 1 or self.columns not in (None, found):
            raise EstimatorInputError(
                "every batch must hold the same keys and widths, and equally many rows of each"
            )
        self.columns = found
        return torch.cat(list(parts.values()), 1)

    def _fill(self, left: Batch) -> Batch:
        """A buffer that begins with `left`: full, or up to the end of a pass."""
        parts, have = [left], len(left[0])
        while have < self._rows:
            batch = next(self._raw, None)
            if batch is None:
                break
            parts.append(batch)
            have += len(batch[0])
        return joined(parts)

    def sample(self) -> Tensor:
        return self.first[:SAMPLE]

    def deal(self, batch_size: int, first: int = 0) -> Iterator[Batch]:
        """Batches until the data ends; the first `first` are read and passed over."""
        number, (buffer, places) = 0, self._start
        done = 0
        while True:
            while len(buffer) < batch_size:
                more, numbers = self._fill((buffer, places))
                if len(more) == len(buffer) and not self._again:
                    return
                buffer, places = more, numbers
            order = np.random.default_rng((self._seed, number)).permutation(len(buffer))
            shuffled, places = buffer[torch.from_numpy(order)], places[order]
            full = len(buffer) // batch_size * batch_size
            for at in range(0, full, batch_size):
                if done >= first:
                    yield shuffled[at : at + batch_size], places[at : at + batch_size]
                done += 1
            number += 1
            buffer, places = shuffled[full:], places[full:]


def _batch(batch: Any) -> Tensor:
    return whole(ArrayRows(batch)).cpu()
