"""Dealing indivisible components out to parts, near given shares and with classes in proportion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.integer[Any]]
CLASS_WEIGHT = 4.0  # balance of classes against balance of sizes ...
RARE = 500  # ... less for classes of about this many rows or fewer, in every second deal
REDRAWS = 8
MANY = 5000  # components from which two deals are enough


def deal(
    component: Index, strata: Index, shares: Sequence[float], rng: np.random.Generator
) -> Index:
    """Part of each row: the best of a few random deals.

    Better is: fewer parts that lack a class which could be in all of them; then sizes nearer to the shares (to one
    per cent); then classes nearer to proportion. Every second deal lets sizes prevail over rare classes.
    """
    lists = _contents(component, strata)
    n_strata = int(strata.max()) + 1
    spread = Counter(s for content in lists for s in content)
    coverable = [s for s, found in spread.items() if found >= len(shares)]
    best: tuple[tuple[int, float, float], list[int]] | None = None
    for draw in range(REDRAWS if len(lists) < MANY else 2):
        part, fill = _greedy(lists, shares, rng, n_strata, RARE * (draw % 2))
        absent = sum(row[s] == 0 for row in fill for s in coverable)
        n = sum(map(sum, fill))
        off = max(abs(sum(row) / n - share) for row, share in zip(fill, shares, strict=True))
        uneven = sum(
            count**2 / (share * total)
            for row, share in zip(fill, shares, strict=True)
            for count, total in zip(row, map(sum, zip(*fill, strict=True)), strict=True)
            if total
        )
        key = absent, round(off, 2), uneven
        if best is None or key < best[0]:
            best = key, part
    assert best is not None
    return np.asarray(best[1], dtype=np.int64)[component]


def _contents(component: Index, strata: Index) -> list[dict[int, int]]:
    """How many rows of each stratum every component holds."""
    lists: list[dict[int, int]] = [{} for _ in range(int(component.max()) + 1)]
    for c, s in zip(component.tolist(), strata.tolist(), strict=True):
        lists[c][s] = lists[c].get(s, 0) + 1
    return lists


def _greedy(
    lists: list[dict[int, int]],
    shares: Sequence[float],
    rng: np.random.Generator,
    n_strata: int,
    rare: int,
) -> tuple[list[int], list[list[int]]]:
    """Components in random order, large first, each to the part where it costs least; and what each part then holds.

    Cost: sum over parts p of size_p²/share_p, plus the same per stratum, each relative to its total. It is least
    when everything is in proportion to the shares. Strata of about `rare` rows or fewer count for less.
    """
    sizes = [sum(content.values()) for content in lists]
    order = sorted(rng.permutation(len(lists)).tolist(), key=lambda c: -sizes[c])
    total = sum(sizes)
    totals = [0] * n_strata
    for content in lists:
        for s, count in content.items():
            totals[s] += count
    weight = [CLASS_WEIGHT / (t + rare) if t else 0.0 for t in totals]
    fill = [[0] * n_strata for _ in shares]
    size = [0] * len(shares)
    part = [0] * len(lists)

    def added(p: int, c: int) -> float:
        row = fill[p]
        cost = sizes[c] * (2 * size[p] + sizes[c]) / total
        for s, count in lists[c].items():
            cost += weight[s] * count * (2 * row[s] + count)
        return cost / shares[p]

    def move(c: int, p: int, sign: int = 1) -> None:
        part[c] = p
        size[p] += sign * sizes[c]
        for s, count in lists[c].items():
            fill[p][s] += sign * count

    for c in order:
        move(c, min(range(len(shares)), key=lambda p: added(p, c)))
    for p in range(len(shares)):
        if size[p] == 0:  # take the smallest component of the part that has the most
            donor = Counter(part).most_common(1)[0][0]
            c = min((c for c, q in enumerate(part) if q == donor), key=lambda c: sizes[c])
            move(c, donor, sign=-1)
            move(c, p)
    return part, fill
