"""The parts of a study of autoencoders by name: from the model to the tables of the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from probes.features import embeddings, heads, reading, training

if TYPE_CHECKING:
    from probes.features.study import Study

PART_FUNCTIONS: Mapping[str, Callable[[Study], None]] = {
    "train": training.train,
    "loss": reading.loss,
    "concepts": reading.concepts,
    "features": reading.features,
    "effects": reading.effects,
    "circuits": heads.circuits,
    "csr": embeddings.csr,
}
