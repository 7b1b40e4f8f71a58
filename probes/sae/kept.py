"""A few entries for each of many features: those with the largest keys, of however many are offered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Entries:
    """Active codes, one each: `value` of `feature` in `text` at `position`, all (entries,)."""

    feature: IntArray
    value: FloatArray
    text: IntArray
    position: IntArray

    def part(self, chosen: IntArray) -> Entries:
        return Entries(
            self.feature[chosen], self.value[chosen], self.text[chosen], self.position[chosen]
        )


class Kept:
    """The `k` entries with the largest keys for each of `m` features, the largest first, with a window of values each.

    `key` (m, k) is −inf where a feature has had fewer entries; `value`, `text`, `position` (m, k); `window`
    (m, k, width). Which entries stay does not depend on the order or the batches in which they come.

    >>> kept = Kept(m=1, k=2, width=1)
    >>> entries = Entries(*(np.array(a) for a in ([0, 0, 0], [1.0, 3, 2], [7, 8, 9], [0, 0, 0])))
    >>> kept.offer(entries, entries.value, lambda chosen: entries.value[chosen, None])
    >>> kept.text.tolist(), kept.window[:, :, 0].tolist()
    ([[8, 9]], [[3.0, 2.0]])
    """

    def __init__(self, m: int, k: int, width: int) -> None:
        self.k = k
        self.key = np.full((m, k), -np.inf)
        self.value = np.zeros((m, k), np.float32)
        self.text = np.full((m, k), -1, np.int32)
        self.position = np.full((m, k), -1, np.int32)
        self.window = np.zeros((m, k, width), np.float32)

    @property
    def filled(self) -> NDArray[np.bool_]:
        """Which places hold an entry: (m, k)."""
        return self.key > -np.inf

    def offer(
        self, entries: Entries, key: FloatArray, windows: Callable[[IntArray], FloatArray]
    ) -> None:
        """Keep the best of these and those before; `windows(chosen)` gives (chosen, width) for the ones that stay."""
        likely = np.flatnonzero(key > self.key[entries.feature, -1])
        if not len(likely):
            return
        order = likely[_descending(entries.part(likely), key[likely])]
        feature = entries.feature[order]
        touched, row, counts = np.unique(feature, return_inverse=True, return_counts=True)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        order, row, rank = (a[rank < self.k] for a in (order, row, rank))
        wide = self.k + int(rank.max()) + 1
        keys = np.full((len(touched), wide), -np.inf)
        keys[:, : self.k] = self.key[touched]
        keys[row, self.k + rank] = key[order]
        entry = np.full((len(touched), wide), -1)
        entry[row, self.k + rank] = order
        best = np.argsort(-keys, axis=1, kind="stable")[:, : self.k]
        self.key[touched] = np.take_along_axis(keys, best, 1)
        before = np.where(best < self.k, best, 0)
        taken = np.take_along_axis(entry, best, 1)
        fresh = taken >= 0
        chosen = taken[fresh]
        news = (
            (self.value, entries.value),
            (self.text, entries.text),
            (self.position, entries.position),
        )
        for held, given in news:
            now = np.take_along_axis(held[touched], before, 1)
            now[fresh] = given[chosen]
            held[touched] = now
        window = np.take_along_axis(self.window[touched], before[:, :, None], 1)
        window[fresh] = windows(chosen)
        self.window[touched] = window


def _descending(entries: Entries, key: FloatArray) -> IntArray:
    """By feature, then from the largest key down; equal ones by text and position."""
    return np.lexsort((entries.position, entries.text, -key, entries.feature))


def text_peaks(entries: Entries) -> IntArray:
    """The largest entry of each feature in each text: their numbers."""
    order = np.lexsort((entries.position, -entries.value, entries.text, entries.feature))
    feature, text = entries.feature[order], entries.text[order]
    first = np.ones(len(order), bool)
    first[1:] = (feature[1:] != feature[:-1]) | (text[1:] != text[:-1])
    return order[first]


def random_keys(entries: Entries, seed: int) -> FloatArray:
    """A random number in [0, 1) for each entry, from what and where it is: a sample by them is uniform.

    They do not depend on the batches (splitmix64 of feature, text, position and seed).
    """
    state = np.full(len(entries.feature), seed, np.uint64)
    with np.errstate(over="ignore"):
        for part in (entries.feature, entries.text, entries.position):
            state = (state ^ part.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(31)
    return (state >> np.uint64(11)).astype(np.float64) / 2.0**53
