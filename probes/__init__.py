"""Fathometer: how deep a transformer has to be.

The public names load on first use, so that `import probes` is quick and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.capture import capture
    from probes.datasets import load_dataset
    from probes.erasure import erase, steer
    from probes.exits import choose_exit
    from probes.exits.export import export_exit
    from probes.layers import temperature
    from probes.models import load_model
    from probes.probing import (
        ContrastiveProbe,
        LinearProbe,
        MassMeanProbe,
        MDLProbe,
        MinimalPairProbe,
        RidgeProbe,
        RidgeRegressionProbe,
        ScalarMixProbe,
        sweep,
    )
    from probes.sae import SparseAutoencoder
    from probes.store import open_store

__version__ = "0.1.0"

_HOMES = {
    "capture": "probes.capture",
    "load_dataset": "probes.datasets",
    "choose_exit": "probes.exits",
    "export_exit": "probes.exits.export",
    "load_model": "probes.models",
    "erase": "probes.erasure",
    "steer": "probes.erasure",
    "temperature": "probes.layers",
    "ContrastiveProbe": "probes.probing",
    "LinearProbe": "probes.probing",
    "MDLProbe": "probes.probing",
    "MassMeanProbe": "probes.probing",
    "MinimalPairProbe": "probes.probing",
    "RidgeProbe": "probes.probing",
    "RidgeRegressionProbe": "probes.probing",
    "ScalarMixProbe": "probes.probing",
    "sweep": "probes.probing",
    "SparseAutoencoder": "probes.sae",
    "open_store": "probes.store",
}

__all__ = [
    "ContrastiveProbe",
    "LinearProbe",
    "MDLProbe",
    "MassMeanProbe",
    "MinimalPairProbe",
    "RidgeProbe",
    "RidgeRegressionProbe",
    "ScalarMixProbe",
    "SparseAutoencoder",
    "__version__",
    "capture",
    "choose_exit",
    "erase",
    "export_exit",
    "load_dataset",
    "load_model",
    "open_store",
    "steer",
    "sweep",
    "temperature",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # `probes.capture` is a subpackage too: the public name must win
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
