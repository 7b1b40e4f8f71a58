"""Random heads to compare with: from the same blocks as the chosen ones, and none of those that scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from probes.errors import InputError
from probes.heads.ablation.ranking import HeadId, Ranking, ranked

SCORED = 0.1


def spared(
    ranking: Ranking,
    heads: Sequence[HeadId],
    largest: int,
    needed: int | None = None,
    scored: float = SCORED,
) -> tuple[set[HeadId], str | None]:
    """Heads that belong in no random set, and a note where not all that should be could be left out.

    These are the best `largest` of `ranking` and every head with a score above 0. Where fewer than `needed` (`largest`
    when None) of all `heads` remain, only scores of `scored` and more count, and then only the best `needed` heads.

    >>> heads = [(0, head) for head in range(6)]
    >>> ranking = {(0, 0): 0.9, (0, 1): 0.2, (0, 2): 0.01, (0, 3): 0.0, (0, 4): 0.0, (0, 5): 0.0}
    >>> sorted(spared(ranking, heads, 2)[0]), sorted(spared(ranking, heads, 2, needed=4)[0])
    ([(0, 0), (0, 1), (0, 2)], [(0, 0), (0, 1)])
    """
    needed = largest if needed is None else needed
    order = ranked(ranking)
    scores = ranking if isinstance(ranking, Mapping) else {}
    positive = {head for head, score in scores.items() if score > 0}
    strict = positive | set(order[:largest])
    if len(heads) - len(strict) >= needed:
        return strict, None
    high = {head for head, score in scores.items() if score >= scored}
    found = high | set(order[:largest])
    if len(heads) - len(found) < needed:
        found = high | set(order[:needed])
    return found, (
        f"random sets of {needed} heads hold some with a score between 0 and {scored:g}, or of the best {largest}: too "
        "few others are left"
    )


@dataclass(frozen=True)
class MatchedHeads:
    """`draws`: sets of as many heads as were matched; `moved`: how many of each set come from another block, since
    their own had none left."""

    draws: tuple[tuple[HeadId, ...], ...]
    moved: int

    def note(self) -> str | None:
        """What to say of the matching; None where every head has one of its own block."""
        if not self.moved:
            return None
        k = len(self.draws[0])
        return f"{self.moved} of {k} random heads come from the nearest other block: their own has none left"


def matched_random_heads(
    top: Sequence[HeadId],
    all_heads: Sequence[HeadId],
    draws: int,
    rng: np.random.Generator,
    exclude: Collection[HeadId] = (),
) -> MatchedHeads:
    """`draws` random sets of len(top) heads, disjoint from `top` and from `exclude`, block for block as `top`.

    A block that has too few heads left is helped out by the nearest block that has (by number of blocks between, the
    earlier one first), the same in every draw. `exclude` should name every head that scored, or the control is none.

    Raises `InputError` where fewer heads are left than are needed.

    >>> heads = [(block, head) for block in range(2) for head in range(4)]
    >>> found = matched_random_heads([(1, 0), (1, 1)], heads, 2, np.random.default_rng(0), exclude=[(1, 2)])
    >>> [sorted(block for block, _ in draw) for draw in found.draws], found.moved
    ([[0, 1], [0, 1]], 1)
    """
    if draws < 1 or not top:
        raise InputError(f"{draws} draws for {len(top)} heads: at least one of each is needed")
    taken = {*top, *exclude}
    pool: dict[int, list[HeadId]] = {}
    for head in all_heads:
        if head not in taken:
            pool.setdefault(head[0], []).append(head)
    counts, moved = _allotted(Counter(block for block, _ in top), pool)
    made: list[tuple[HeadId, ...]] = []
    for _ in range(draws):
        chosen: list[HeadId] = []
        for block in sorted(counts):
            picks = rng.choice(len(pool[block]), size=counts[block], replace=False)
            chosen.extend(pool[block][int(pick)] for pick in picks)
        made.append(tuple(sorted(chosen)))
    return MatchedHeads(tuple(made), moved)


def _allotted(wanted: Counter[int], pool: dict[int, list[HeadId]]) -> tuple[Counter[int], int]:
    """How many heads to take from each block, and how many of them are not where they were wanted."""
    left = {block: len(heads) for block, heads in pool.items()}
    if sum(left.values()) < wanted.total():
        raise InputError(
            f"{wanted.total()} random heads are needed, but only {sum(left.values())} are neither chosen nor scored: "
            "ask for fewer heads"
        )
    counts: Counter[int] = Counter()
    missing: list[int] = []
    for block, n in sorted(wanted.items()):
        own = min(n, left.get(block, 0))
        counts[block] += own
        left[block] = left.get(block, 0) - own
        missing += [block] * (n - own)
    for block in missing:
        near = min((b for b, n in left.items() if n), key=lambda b: (abs(b - block), b))
        counts[near] += 1
        left[near] -= 1
    return Counter({block: n for block, n in counts.items() if n}), len(missing)
