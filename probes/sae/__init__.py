"""Sparse autoencoders: states as few of many learned directions."""

from __future__ import annotations

from probes.sae import topk as _topk  # noqa: F401  each registers its variant
from probes.sae.data import ArrayRows, Rows, StoreRows
from probes.sae.estimator import SparseAutoencoder
from probes.sae.network import VARIANTS
from probes.sae.settings import Training

__all__ = ["VARIANTS", "ArrayRows", "Rows", "SparseAutoencoder", "StoreRows", "Training"]
