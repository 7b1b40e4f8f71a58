"""Frozen inference: codes of scaled states, row by row independent of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from probes.sae.network import Weights, scores
from probes.sae.sparse import Codes, flat_codes, top_k
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


def frozen_codes(variant: str, k: int, weights: Weights, x: Tensor) -> Codes:
    """Codes of states x (rows, d) on the weights' device, sorted by row; some may be zero.

    With a `threshold` among the weights, a variant that goes by rank has no codes at or below it: files of SAELens,
    whose TopK applies a ReLU.
    """
    pre = scores(weights, (x - weights["mean"]) * weights["scale"])
    if not VARIANTS[variant].threshold:
        values, cols = top_k(pre, min(k, pre.shape[1]))
        if "threshold" in weights:
            values = values * (values > weights["threshold"][cols])
        return flat_codes(values, cols)
    active = pre > weights["threshold"]
    if "magnitude_bias" in weights:
        size = (pre - weights["encoder_bias"]) * weights["magnitude_log_scale"].exp()
        pre = (size + weights["magnitude_bias"]).clamp_min(0)
    rows, cols = active.nonzero(as_tuple=True)
    return Codes(rows, cols, pre[rows, cols], len(x))


@torch.no_grad()
def encode_block(variant: str, k: int, weights: Weights, x: Tensor) -> sparse.csr_array:
    """Codes of states x (rows, d): (rows, m) CSR with sorted columns and no stored zeros."""
    codes = frozen_codes(variant, k, weights, x.to(weights["encoder"].device))
    counts = torch.bincount(codes.rows, minlength=codes.n_rows).cpu().numpy()
    table = sparse.csr_array(
        (
            codes.values.cpu().numpy(),
            codes.cols.cpu().numpy(),
            np.concatenate([[0], np.cumsum(counts)]),
        ),
        shape=(codes.n_rows, weights["encoder"].shape[0]),
    )
    table.eliminate_zeros()
    table.sort_indices()
    return table
