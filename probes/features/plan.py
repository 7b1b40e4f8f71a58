"""What a study of autoencoders does, as one object that every part reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from probes.errors import InputError
from probes.features.names import CONCEPTS, PARTS, SPARSE_DATA, TASKS
from probes.sae.estimator import SparseAutoencoder
from probes.sae.settings import Training


@dataclass(frozen=True)
class TrainPlan:
    """Which autoencoders: every sparsity of `ks` at every one of `layers` (None: the middle one).

    `n_features` None: eight times the width of the states. `tokens` is how many at most are read from the texts.
    """

    site: str = "resid_post"
    layers: tuple[int, ...] | None = None
    ks: tuple[int, ...] = (32,)
    variant: str = "topk"
    n_features: int | None = None
    steps: int | None = None
    batch_size: int = 4096
    tokens: int = 200_000

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"active features {self.ks}: whole numbers from 1 are needed")
        if self.n_features is not None:
            self._check_width(self.n_features)

    def _check_width(self, n_features: int) -> None:
        if max(self.ks) > n_features:
            raise InputError(
                f"--k {max(self.ks)}: at most all of the {n_features:,} features can be active"
            )

    def make(self, k: int, d: int, seed: int, device: str) -> SparseAutoencoder:
        """An autoencoder of this plan for states of width d."""
        n_features = self.n_features or 8 * d
        self._check_width(n_features)
        return SparseAutoencoder(
            n_features,
            k,
            self.variant,
            steps=self.steps,
            batch_size=self.batch_size,
            seed=seed,
            device=device,
            training=Training(),
        )


@dataclass(frozen=True)
class LookPlan:
    """What is looked at: labelled sets, circuits, retrieval data for sparse embeddings, and how much of each.

    `columns` names the columns of the labelled sets' files by role.
    `loss_texts`: held-out texts whose loss is measured. `concept_limit`: examples of each labelled set. `seeds`:
    autoencoders per circuit.
    """

    concepts: str = CONCEPTS
    columns: Mapping[str, str] | None = None
    tasks: tuple[str, ...] = TASKS
    sparse_data: str = SPARSE_DATA
    loss_texts: int = 200
    concept_limit: int = 400
    seeds: int = 10


@dataclass(frozen=True)
class SaePlan:
    """The parts of the study and what each needs; `folder` is where trained autoencoders are kept (None: nowhere)."""

    parts: frozenset[str] = frozenset(PARTS)
    training: TrainPlan = field(default_factory=TrainPlan)
    look: LookPlan = field(default_factory=LookPlan)
    folder: Path | None = None
    max_length: int | None = None
    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 100:
            raise InputError(f"{self.draws} bootstrap draws: at least 100 are needed")
