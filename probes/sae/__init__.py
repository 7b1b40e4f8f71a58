"""Sparse autoencoders: states as few of many learned directions."""

from __future__ import annotations

from probes.sae.baselines import ClusterCoder, NeuronCoder, PCACoder, random_autoencoder
from probes.sae.data import ArrayRows, Rows, StoreRows
from probes.sae.estimator import SparseAutoencoder
from probes.sae.metrics import evaluate
from probes.sae.settings import Training
from probes.sae.stream_model import from_model
from probes.sae.together import train_together
from probes.sae.variants import VARIANTS

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
