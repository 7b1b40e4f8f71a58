"""Heads as (block, head), how they are written, and in which order a score puts them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from probes.errors import DoesNotApply, InputError

if TYPE_CHECKING:
    from probes.models import Model

HeadId = tuple[int, int]  # (block, head), both from 0
Ranking = Mapping[HeadId, float] | Sequence[HeadId]


def head_name(head: HeadId) -> str:
    """A head as it is written.

    >>> head_name((16, 19))
    '16.19'
    """
    return f"{head[0]}.{head[1]}"


def all_heads(model: Model) -> list[HeadId]:
    """Every attention head, block by block; blocks without heads are passed over.

    Raises `DoesNotApply` with the reason where no block has any.
    """
    blocks = model.structure.blocks
    found = [
        (block.index, head)
        for block in blocks
        if block.o_proj is not None
        for head in range(block.n_heads or 0)
    ]
    if not found:
        raise DoesNotApply(
            f"heads of {model.name}: {model.structure.why_missing('z', 0) or 'it has no attention heads'}"
        )
    return found


def ranked(ranking: Ranking) -> list[HeadId]:
    """Heads, best first: by falling score, equal ones in the order given; a sequence is taken as it stands.

    >>> ranked({(1, 0): 0.2, (0, 3): 0.9, (0, 1): 0.2})
    [(0, 3), (1, 0), (0, 1)]
    """
    if not isinstance(ranking, Mapping):
        heads = list(ranking)
        if len(set(heads)) != len(heads):
            raise InputError("a head stands in the ranking twice: name each once")
        return heads
    for head, score in ranking.items():
        if not math.isfinite(score):
            raise InputError(f"head {head_name(head)} has score {score}: a finite number is needed")
    return sorted(ranking, key=lambda head: -ranking[head])  # stable


def check_heads(model: Model, heads: Iterable[HeadId]) -> dict[int, list[int]]:
    """Block -> its heads among `heads`, without repetition, in order.

    Raises `InputError` for a head that does not exist, `DoesNotApply` for a block without heads.
    """
    found: dict[int, list[int]] = {}
    for block, head in sorted(set(heads)):
        model.structure.module_for("z", block)
        count = model.structure.block(block).n_heads or 0
        if not 0 <= head < count:
            raise InputError(
                f"head {head_name((block, head))} does not exist: block {block} has heads 0 to {count - 1}"
            )
        found.setdefault(block, []).append(head)
    return found
