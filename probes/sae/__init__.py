"""Sparse autoencoders: states as few of many learned directions."""

from __future__ import annotations

# each registers its variant
from probes.sae import batchtopk as _batchtopk  # noqa: F401
from probes.sae import gated as _gated  # noqa: F401
from probes.sae import jumprelu as _jumprelu  # noqa: F401
from probes.sae import l1 as _l1  # noqa: F401
from probes.sae import matryoshka as _matryoshka  # noqa: F401
from probes.sae import topk as _topk  # noqa: F401
from probes.sae.baselines import ClusterCoder, NeuronCoder, PCACoder, random_autoencoder
from probes.sae.data import ArrayRows, Rows, StoreRows
from probes.sae.estimator import SparseAutoencoder
from probes.sae.metrics import evaluate
from probes.sae.network import VARIANTS
from probes.sae.settings import Training
from probes.sae.stream_model import from_model
from probes.sae.together import train_together

__all__ = [
    "VARIANTS",
    "ArrayRows",
    "ClusterCoder",
    "NeuronCoder",
    "PCACoder",
    "Rows",
    "SparseAutoencoder",
    "StoreRows",
    "Training",
    "evaluate",
    "from_model",
    "random_autoencoder",
    "train_together",
]
