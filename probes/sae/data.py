"""Rows that training looks up by number, in arrays or in stores larger than memory, and the seeded order they come in.

They are read in chunks: every pass shuffles the chunks, gathers as many as the buffer holds, shuffles their rows, and
deals batches from them. The order depends on the number of rows alone, so that an array and a store of the same rows
train alike, and training can go on from any step without reading what came before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.errors import EstimatorInputError, InputError, NonFiniteError

if TYPE_CHECKING:
    from probes.store import Store

CHUNK = 1024  # rows that stay together until the buffer shuffles them
SAMPLE = 65_536  # rows that centre and scale are taken from

FloatArray = NDArray[np.floating[Any]]


@runtime_checkable
class Rows(Protocol):
    """States that can be looked up by row number: n rows of width d."""

    n: int
    d: int
    in_memory: bool  # whether any row is as quick to reach as the next one

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Those rows, in that order: (rows, d) float32, checked to be finite."""
        ...


class ArrayRows:
    """An array or tensor (n, d), finite."""

    in_memory = True

    def __init__(self, X: Any) -> None:
        self._held: Tensor | NDArray[Any] = X.detach() if isinstance(X, Tensor) else np.asarray(X)
        if isinstance(self._held, np.ndarray) and self._held.dtype.kind not in "fiub":
            raise EstimatorInputError(f"X has type {self._held.dtype}: numbers are needed")
        if self._held.ndim != 2 or 0 in self._held.shape:
            raise EstimatorInputError(
                f"X has shape {tuple(self._held.shape)}: (n, d) with at least one row and column is needed"
            )
        self.n, self.d = self._held.shape

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        held = self._held
        if isinstance(held, Tensor):
            found = held.index_select(0, torch.from_numpy(rows).to(held.device)).float()
        else:
            found = torch.from_numpy(np.asarray(held[rows], dtype=np.float32))
        return finite(found, rows)


class StoreRows:
    """One layer of a store, text or token rows alike, read piece by piece; `head` picks one of a per-head site.

    >>> StoreRows(store, "resid_post", 12)  # doctest: +SKIP
    """

    in_memory = False

    def __init__(self, store: Store, site: str, layer: int, head: int | None = None) -> None:
        self.store, self.site, self.layer, self.head = store, site, layer, head
        offsets = store.offsets
        self.n = store.texts_n if offsets is None else int(offsets[-1])
        if not self.n:
            raise EstimatorInputError(f"{store!r} holds no rows")
        self.d = self._read(np.zeros(1, np.int64)).shape[1]

    def _read(self, rows: NDArray[np.int64]) -> FloatArray:
        states = self.store.take(self.site, self.layer, rows)
        if self.head is not None:
            if states.ndim != 3 or not 0 <= self.head < states.shape[1]:
                raise InputError(
                    f"head {self.head}: rows of {self.site} have shape {states.shape[1:]}, heads come first"
                )
            states = states[:, self.head]
        return states.reshape(len(states), -1)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        order = np.argsort(rows, kind="stable")  # the disk is read forwards
        out = np.empty((len(rows), self.d), np.float32)
        out[order] = self._read(rows[order])
        return finite(torch.from_numpy(out), rows)


def finite(states: Tensor, rows: NDArray[np.int64] | None = None) -> Tensor:
    """`states` (rows, d) themselves; `NonFiniteError` names the first row with NaN or infinity."""
    if bool(torch.isfinite(states.sum())):
        return states
    bad = (~torch.isfinite(states).all(1)).nonzero()[:, 0]
    if not len(bad):
        return states  # only the sum was too large
    first = int(bad[0]) if rows is None else int(rows[int(bad[0])])
    raise NonFiniteError(
        f"X holds NaN or infinity in row {first} ({len(bad)} of {len(states)} rows)"
    )


@dataclass(frozen=True)
class Order:
    """The order in which n rows are dealt: shuffled chunks, gathered into buffers, whose rows are shuffled again."""

    n: int
    buffer: int  # rows
    seed: int

    @property
    def chunks(self) -> int:
        return -(-self.n // CHUNK)

    @property
    def per_buffer(self) -> int:
        return max(1, self.buffer // CHUNK)

    def passes(self, start: int) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """(rows to skip, rows of a buffer by chunk, their permutation), from row number `start` of all passes on."""
        epoch, skip = divmod(start, self.n)
        while True:
            rng = np.random.default_rng((self.seed, epoch))
            chunks = rng.permutation(self.chunks)
            for number, lo in enumerate(range(0, self.chunks, self.per_buffer)):
                mine = np.sort(chunks[lo : lo + self.per_buffer])
                size = sum(min(self.n, (c + 1) * CHUNK) - c * CHUNK for c in mine.tolist())
                if skip >= size:
                    skip -= size
                    continue
                rows = (mine[:, None] * CHUNK + np.arange(CHUNK)).reshape(-1)
                rows = rows[rows < self.n]
                shuffle = np.random.default_rng((self.seed, epoch, number)).permutation(len(rows))
                yield skip, rows, shuffle
                skip = 0
            epoch += 1


Batch = tuple[Tensor, NDArray[np.int64]]  # states (rows, d), and the number of each row in the data


def deal(rows: Rows, order: Order, batch_size: int, first: int = 0) -> Iterator[Batch]:
    """Batches of `batch_size` rows without end, from batch number `first` on."""
    left: list[Batch] = []
    have = 0
    for skip, numbers, shuffle in order.passes(first * batch_size):
        held = None if rows.in_memory else rows.take(numbers)
        at = skip
        while at < len(shuffle):
            piece = shuffle[at : at + batch_size - have]
            at += len(piece)
            index = torch.from_numpy(piece)
            states = rows.take(numbers[piece]) if held is None else held[index]
            left.append((states, numbers[piece]))
            have += len(piece)
            if have == batch_size:
                yield left[0] if len(left) == 1 else joined(left)
                left, have = [], 0


def joined(parts: Sequence[Batch]) -> Batch:
    return torch.cat([x for x, _ in parts]), np.concatenate([numbers for _, numbers in parts])


def sample_rows(rows: Rows, seed: int) -> Tensor:
    """All rows, or `SAMPLE` of them at random, ascending: what centre and scale are taken from."""
    if rows.n <= SAMPLE:
        return whole(rows)
    chosen = np.random.default_rng((seed, 1)).choice(rows.n, SAMPLE, replace=False)
    return rows.take(np.sort(chosen))


def whole(rows: Rows) -> Tensor:
    """All rows at once: (n, d) float32."""
    return rows.take(np.arange(rows.n))


def buffer_rows(mib: int, d: int) -> int:
    """Rows of width d in float32 that `mib` MiB hold."""
    return max(CHUNK, (mib << 20) // (4 * d))


def blocks(rows: Rows, size: int = 4096) -> Iterator[Tensor]:
    """All rows in order, `size` at a time: (≤ size, d)."""
    for lo in range(0, rows.n, size):
        yield rows.take(np.arange(lo, min(rows.n, lo + size)))
