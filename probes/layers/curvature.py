"""Curvature: how sharply the path of the token states turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import DoesNotApply
from probes.layers.token_batch import in_front, undefined_where
from probes.linalg import RELATIVE_FLOOR, check_matrix
from probes.registry import Measure, register_token_metric

if TYPE_CHECKING:
    from torch import Tensor


def _batch(states: Tensor, keep: Tensor) -> Tensor:
    """(batch, token, d) to (batch,): `curvature` of each text."""
    import torch

    tokens, counts = in_front(states, keep)
    tokens = tokens / tokens.abs().amax((1, 2), keepdim=True).clamp(min=1e-300)
    steps = (
        tokens[:, 1:] - tokens[:, :-1]
    )  # (batch, token - 1, d); those behind the text are not counted
    length = steps.norm(dim=-1)
    sizes = tokens.norm(dim=-1)
    number = torch.arange(steps.shape[1], device=steps.device)
    moves = (length > RELATIVE_FLOOR * (sizes[:, 1:] + sizes[:, :-1]) / 2) & (
        number < counts[:, None] - 1
    )
    units = steps / torch.where(moves, length, 1.0)[..., None]
    before, after = units[:, :-1], units[:, 1:]
    angles = 2 * torch.atan2((after - before).norm(dim=-1), (after + before).norm(dim=-1))
    turns = moves[:, :-1] & moves[:, 1:]
    n = turns.sum(1)
    return undefined_where(n == 0, torch.where(turns, angles, 0.0).sum(1) / n.clamp(min=1))


@register_token_metric(
    Measure(
        "curvature",
        "Curvature",
        "radians",
        0.0,
        float(np.pi),
        "none",
        "Mean angle between one step from token to token and the next: 0 for a straight path, π/2 for a walk "
        "of unrelated steps.",
        "Hosseini & Fedorenko 2023 (arXiv 2311.04930); Skean et al. 2025 (arXiv 2502.02013)",
    ),
    _batch,
)
def curvature(tokens: Any) -> float:
    """Mean angle between successive differences v_t = z_{t+1} − z_t of the token states of one text, (T, d).

    In radians, in [0, π]: 0 for a straight path, π/2 where every step is orthogonal to the last, π for one that goes
    back and forth. Independent states of equal spread give about 2π/3, for neighbouring steps share a state. A step of
    no length (a word repeated, at layer 0) has no direction: its two angles are left out. Angles are taken by the
    arc tangent of half differences, exact for straight paths too.

    Raises `DoesNotApply` for fewer than three tokens and where no angle is left. Paper: Hosseini & Fedorenko 2023; in
    layers Skean et al. 2025. See also `smoothness`, `token_metrics`.

    >>> round(curvature([[0.0, 0], [1, 0], [1, 1], [2, 1]]), 6)  # right angles
    1.570796
    >>> round(curvature([[0.0, 0], [1, 1], [3, 3]]), 6)
    0.0
    """
    path = check_matrix(tokens, "tokens").astype(np.float64)
    if len(path) < 3:
        raise DoesNotApply(f"curvature of {len(path)} tokens: at least three are needed")
    path = path / (np.abs(path).max() or 1.0)  # so that no square underflows
    steps = np.diff(path, axis=0)
    length, sizes = np.linalg.norm(steps, axis=1), np.linalg.norm(path, axis=1)
    moves = length > RELATIVE_FLOOR * (sizes[1:] + sizes[:-1]) / 2
    units = steps / np.where(moves, length, 1.0)[:, None]
    turns = moves[1:] & moves[:-1]
    if not turns.any():
        raise DoesNotApply("curvature: no two steps in a row have a direction")
    before, after = units[:-1][turns], units[1:][turns]
    apart, along = np.linalg.norm(after - before, axis=1), np.linalg.norm(after + before, axis=1)
    return float((2 * np.arctan2(apart, along)).mean())
