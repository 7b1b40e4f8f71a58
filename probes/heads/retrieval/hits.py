"""Where a head looks most, and which tokens of the needle it thereby copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def top_keys(logits: Tensor) -> Tensor:
    """The key with the largest logit of each row, (…, key) -> (…); -1 where two share it.

    A head that attends to all alike (a masked one, say) looks at none most.

    >>> import torch
    >>> top_keys(torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0]])).tolist()
    [1, -1]
    """
    if logits.shape[-1] == 1:
        return torch.zeros(logits.shape[:-1], dtype=torch.long, device=logits.device)
    best = logits.topk(2, dim=-1)
    tied = best.values[..., 0] <= best.values[..., 1]
    return best.indices[..., 0].masked_fill(tied, -1)


def copy_scores(
    tops: NDArray[np.int64],
    emitted: Sequence[int] | NDArray[np.int64],
    context: NDArray[np.int64],
    answer: range,
) -> NDArray[np.float64]:
    """Share of the answer's distinct tokens that each head copies: (row, …) -> (…).

    `tops` (row, …) are the positions looked at most when token `emitted[row]` is said (-1: none), `context` the ids,
    `answer` the positions of the answer in it. A token counts once, however often it is copied (arXiv 2404.15574).

    >>> import numpy as np
    >>> copy_scores(np.array([[1, 0], [2, 2], [1, 0]]), [7, 8, 7], np.array([5, 7, 8]), range(1, 3))
    array([1. , 0.5])
    """
    wanted = np.unique(context[answer.start : answer.stop])
    copied = np.zeros((len(wanted), *tops.shape[1:]), bool)
    for row, token in enumerate(emitted):
        place = int(np.searchsorted(wanted, token))
        if place == len(wanted) or wanted[place] != token:
            continue
        inside = (tops[row] >= answer.start) & (tops[row] < answer.stop)
        copied[place] |= inside & (context[np.where(inside, tops[row], 0)] == token)
    return copied.mean(axis=0)
