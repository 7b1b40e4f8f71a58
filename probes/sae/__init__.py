"""Sparse autoencoders: states as few of many learned directions.

Public names load on first use, so that the command line can know an analysis' options without loading torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.sae.baselines import ClusterCoder, NeuronCoder, PCACoder, random_autoencoder
    from probes.sae.circuits import discrete_circuit
    from probes.sae.concepts import feature_concepts
    from probes.sae.csr import CSRCoder
    from probes.sae.data import ArrayRows, Rows, StoreRows
    from probes.sae.edits import ablate_feature, steer_feature
    from probes.sae.effects import feature_effects
    from probes.sae.estimator import SparseAutoencoder
    from probes.sae.features import describe_features
    from probes.sae.inverted import InvertedIndex
    from probes.sae.metrics import evaluate
    from probes.sae.ordinary import OrdinaryCoder
    from probes.sae.probing import sparse_probing
    from probes.sae.saelens import load_saelens, save_saelens
    from probes.sae.search import search_features
    from probes.sae.select import SelectedRows
    from probes.sae.settings import Training
    from probes.sae.splice import loss_recovered, spliced
    from probes.sae.stream_model import from_model
    from probes.sae.together import train_together
    from probes.sae.token_states import text_codes
    from probes.sae.variants import VARIANTS

_HOMES = {
    "VARIANTS": "probes.sae.variants",
    "ArrayRows": "probes.sae.data",
    "CSRCoder": "probes.sae.csr",
    "ClusterCoder": "probes.sae.baselines",
    "InvertedIndex": "probes.sae.inverted",
    "NeuronCoder": "probes.sae.baselines",
    "OrdinaryCoder": "probes.sae.ordinary",
    "PCACoder": "probes.sae.baselines",
    "Rows": "probes.sae.data",
    "SelectedRows": "probes.sae.select",
    "SparseAutoencoder": "probes.sae.estimator",
    "StoreRows": "probes.sae.data",
    "Training": "probes.sae.settings",
    "ablate_feature": "probes.sae.edits",
    "describe_features": "probes.sae.features",
    "discrete_circuit": "probes.sae.circuits",
    "evaluate": "probes.sae.metrics",
    "feature_concepts": "probes.sae.concepts",
    "feature_effects": "probes.sae.effects",
    "from_model": "probes.sae.stream_model",
    "load_saelens": "probes.sae.saelens",
    "loss_recovered": "probes.sae.splice",
    "random_autoencoder": "probes.sae.baselines",
    "save_saelens": "probes.sae.saelens",
    "search_features": "probes.sae.search",
    "sparse_probing": "probes.sae.probing",
    "spliced": "probes.sae.splice",
    "steer_feature": "probes.sae.edits",
    "text_codes": "probes.sae.token_states",
    "train_together": "probes.sae.together",
}

__all__ = [
    "VARIANTS",
    "ArrayRows",
    "CSRCoder",
    "ClusterCoder",
    "InvertedIndex",
    "NeuronCoder",
    "OrdinaryCoder",
    "PCACoder",
    "Rows",
    "SelectedRows",
    "SparseAutoencoder",
    "StoreRows",
    "Training",
    "ablate_feature",
    "describe_features",
    "discrete_circuit",
    "evaluate",
    "feature_concepts",
    "feature_effects",
    "from_model",
    "load_saelens",
    "loss_recovered",
    "random_autoencoder",
    "save_saelens",
    "search_features",
    "sparse_probing",
    "spliced",
    "steer_feature",
    "text_codes",
    "train_together",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probes.sae' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
