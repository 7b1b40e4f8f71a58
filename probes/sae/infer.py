"""Frozen inference: codes of scaled states, row by row independent of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from probes.sae.network import Weights, scores
from probes.sae.sparse import top_k
from probes.sae.variants import VARIANTS

if TYPE_CHECKING:
    from probes.sae.estimator import SparseAutoencoder

_NAMES = (
    "encoder", "encoder_bias", "threshold", "magnitude_log_scale", "magnitude_bias", "mean",
)  # fmt: skip


def frozen_tensors(sae: SparseAutoencoder) -> Weights:
    """What encoding needs, on the estimator's device; `scale` too."""
    from probes.sae.estimator import device_of

    device = device_of(sae.device)
    found: Weights = {"scale": torch.tensor(sae.scale_, dtype=torch.float32, device=device)}
    for name in _NAMES:
        value: Any = getattr(sae, f"{name}_")
        if value is not None:
            found[name] = torch.as_tensor(np.asarray(value, np.float32)).to(device)
    return found


@torch.no_grad()
def encode_block(variant: str, k: int, weights: Weights, x: Tensor) -> sparse.csr_array:
    """Codes of states x (rows, d): (rows, m) CSR with sorted columns and no stored zeros."""
    device = weights["encoder"].device
    scaled = (x.to(device) - weights["mean"]) * weights["scale"]
    pre = scores(weights, scaled)
    if not VARIANTS[variant].threshold:
        values, cols = top_k(pre, min(k, pre.shape[1]))
        cols, order = cols.sort(dim=1)
        values = values.gather(1, order)
        n, k = values.shape
        table = sparse.csr_array(
            (
                values.cpu().numpy().reshape(-1),
                cols.cpu().numpy().reshape(-1),
                np.arange(n + 1) * k,
            ),
            shape=pre.shape,
        )
        table.eliminate_zeros()
        return table
    active = pre > weights["threshold"]
    if "magnitude_bias" in weights:
        size = (pre - weights["encoder_bias"]) * weights["magnitude_log_scale"].exp()
        pre = (size + weights["magnitude_bias"]).clamp_min(0)
        active &= pre > 0
    rows, cols = active.nonzero(as_tuple=True)
    begin = np.concatenate([[0], np.cumsum(active.sum(1).cpu().numpy())])
    return sparse.csr_array(
        (pre[rows, cols].cpu().numpy(), cols.cpu().numpy(), begin), shape=tuple(pre.shape)
    )
