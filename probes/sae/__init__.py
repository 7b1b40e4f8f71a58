"""Sparse autoencoders: states as few of many learned directions.

Public names load on first use, so that the command line can know the study's names without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.sae.baselines import ClusterCoder, NeuronCoder, PCACoder, random_autoencoder
    from probes.sae.data import ArrayRows, Rows, StoreRows
    from probes.sae.estimator import SparseAutoencoder
    from probes.sae.metrics import evaluate
    from probes.sae.select import SelectedRows
    from probes.sae.settings import Training
    from probes.sae.stream_model import from_model
    from probes.sae.together import train_together
    from probes.sae.variants import VARIANTS

_HOMES = {
    "VARIANTS": "probes.sae.variants",
    "ArrayRows": "probes.sae.data",
    "ClusterCoder": "probes.sae.baselines",
    "NeuronCoder": "probes.sae.baselines",
    "PCACoder": "probes.sae.baselines",
    "Rows": "probes.sae.data",
    "SelectedRows": "probes.sae.select",
    "SparseAutoencoder": "probes.sae.estimator",
    "StoreRows": "probes.sae.data",
    "Training": "probes.sae.settings",
    "evaluate": "probes.sae.metrics",
    "from_model": "probes.sae.stream_model",
    "random_autoencoder": "probes.sae.baselines",
    "train_together": "probes.sae.together",
}

__all__ = [
    "VARIANTS",
    "ArrayRows",
    "ClusterCoder",
    "NeuronCoder",
    "PCACoder",
    "Rows",
    "SelectedRows",
    "SparseAutoencoder",
    "StoreRows",
    "Training",
    "evaluate",
    "from_model",
    "random_autoencoder",
    "train_together",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
