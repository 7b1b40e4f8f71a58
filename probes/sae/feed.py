"""Whatever form data came in, as batches in a fixed order; one feed may serve several autoencoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from probes.errors import EstimatorInputError, unknown_name
from probes.sae.calibrate import MOST, HeldOut
from probes.sae.data import ArrayRows, Batch, Order, Rows, buffer_rows, deal, sample_rows
from probes.sae.settings import Training
from probes.sae.stream import Stream


class Feed:
    """Rows that can be looked up, or a stream; `columns` says which part of a batch belongs to a key."""

    def __init__(self, X: Any, training: Training) -> None:
        self.seed = training.order_seed
        self.rows: Rows | None = None
        self.stream: Stream | None = None
        if isinstance(X, Rows):
            self.rows = X
        elif _is_array(X):
            self.rows = ArrayRows(X)
        elif isinstance(X, Iterable) and not isinstance(X, str | bytes | Mapping):
            self.stream = Stream(X, training.buffer_mib, self.seed)
        else:
            raise EstimatorInputError(
                f"X is {type(X).__name__}: an array (n, d), a StoreRows or an iterable of batches is needed"
            )
        if self.rows is not None:
            room = buffer_rows(training.buffer_mib, self.rows.d)
            self._order = Order(self.rows.n, room, self.seed)
        self.held_out = HeldOut.of(self.first.n, self.seed)

    @property
    def n(self) -> int | None:
        """Rows, where they can be counted."""
        return None if self.rows is None else self.rows.n

    def columns(self, key: Any) -> slice:
        """The columns that an autoencoder reading `key` sees: all, unless batches are mappings."""
        if self.rows is not None:
            return slice(0, self.rows.d)
        assert self.stream is not None
        if self.stream.columns is None:
            return slice(0, self.stream.d)
        if key not in self.stream.columns:
            if key is None:
                raise EstimatorInputError("the batches are mappings: use train_together")
            raise unknown_name("key of the batches", str(key), map(str, self.stream.columns))
        return self.stream.columns[key]

    def sample(self) -> Tensor:
        """Rows that centre and scale are taken from."""
        if self.rows is not None:
            return sample_rows(self.rows, self.seed)
        assert self.stream is not None
        return self.stream.sample()

    @property
    def first(self) -> Rows:
        """Rows that can be looked up: all, or what a stream began with."""
        if self.rows is not None:
            return self.rows
        assert self.stream is not None
        return ArrayRows(self.stream.first)

    def calibration(self, held_out: HeldOut | None) -> Tensor:
        """The rows held out; where there are none, the sample."""
        return self.sample()[:MOST] if held_out is None else self.first.take(held_out.numbers())

    def deal(self, batch_size: int, first: int) -> Iterator[Batch]:
        """Batches from number `first` on."""
        if self.rows is not None:
            return deal(self.rows, self._order, batch_size, first)
        assert self.stream is not None
        return self.stream.deal(batch_size, first)


def _is_array(X: Any) -> bool:
    if isinstance(X, Tensor | np.ndarray) or hasattr(X, "__array__"):
        return True
    plain = isinstance(X, list) and len(X) > 0 and isinstance(X[0], list)
    return plain and bool(X[0]) and isinstance(X[0][0], int | float)


def make_feeds(X: Any, training: Training, keys: Sequence[Any]) -> list[Feed]:
    """The feed of each key; one and the same where X is not a mapping."""
    if not isinstance(X, Mapping):
        return [Feed(X, training)] * len(keys)
    found: dict[Any, Feed] = {}
    for key in keys:
        if key not in X:
            raise unknown_name("key of X", str(key), map(str, X))
        if key not in found:
            found[key] = Feed(X[key], training)
    return [found[key] for key in keys]
