"""Settings of training: what a user seldom changes, and the whole recipe once every default has been worked out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from probes.errors import EstimatorInputError, unknown_name

PRECISIONS = ("float32", "preselect", "bfloat16")
Precision = Literal["float32", "preselect", "bfloat16"]


@dataclass(frozen=True)
class Training:
    """Seldom changed settings of `SparseAutoencoder`; every None is worked out from the data.

    Attributes:
        aux_k: dead features that the auxiliary loss wakes up at a time; None: half the width of the states; 0: none.
        aux_weight: weight of that loss (AuxK, 1/32 in Gao et al. 2024).
        dead_after: rows without firing after which a feature counts as dead; None: a twentieth of the training.
        precision: "float32"; "preselect" (TopK variants: candidates in bfloat16, scored again in float32);
            "bfloat16" (mixed precision: the large products in bfloat16, weights and sums in float32).
        buffer_mib: size of the shuffle buffer for data that is not in memory.
        order_seed: seed of the order of the data; apart from the weights' seed, so that autoencoders of different
            seeds can share one pass.
        prefixes: sizes of the nested dictionaries of "matryoshka", ascending; None: 1/16, 1/8, 1/4, 1/2 and all.
        log_every: steps between two rows of `history_`; None: 200 rows in all.
    """

    aux_k: int | None = None
    aux_weight: float = 1 / 32
    dead_after: int | None = None
    precision: Precision = "float32"
    buffer_mib: int = 256
    order_seed: int = 0
    prefixes: tuple[int, ...] | None = None
    log_every: int | None = None


@dataclass(frozen=True)
class Sizes:
    """Shape of an autoencoder: width of the states, features, wanted mean number of active ones, nested prefixes."""

    d: int
    m: int
    l0: float
    prefixes: tuple[int, ...]

    @property
    def k(self) -> int:
        return int(self.l0)


@dataclass(frozen=True)
class Recipe:
    """Everything a training step needs to know; no None is left."""

    sizes: Sizes
    steps: int
    batch_size: int
    learning_rate: float
    aux_k: int
    aux_weight: float
    dead_after: int
    precision: Precision

    def rate(self, step: int) -> float:
        """Learning rate of `step` (0-based): up over the first twentieth, down to nothing over the last fifth."""
        warm = max(1, min(1000, self.steps // 20))
        fall = max(1, self.steps // 5)
        share = min(1.0, (step + 1) / warm, (self.steps - step) / fall)
        return self.learning_rate * share


def default_steps(n: int, batch_size: int) -> int:
    """Ten passes over the rows, but at least 1,000 and at most 20,000 steps."""
    return min(max(-(-10 * n // batch_size), 1000), 20_000)


def default_rate(m: int) -> float:
    """Adam's learning rate for m features: 1e-3 at 4,096, falling with the square root (Gao et al. 2024)."""
    return min(1e-3 * (4096 / m) ** 0.5, 5e-3)


def default_prefixes(m: int) -> tuple[int, ...]:
    """1/16, 1/8, 1/4, 1/2 and all of m features; fewer for a small m.

    >>> default_prefixes(4608)
    (288, 576, 1152, 2304, 4608)
    >>> default_prefixes(4)
    (1, 2, 4)
    """
    return tuple(sorted({m // part for part in (16, 8, 4, 2, 1)} - {0}))


def check_training(training: Training, m: int) -> None:
    """`EstimatorInputError` for a setting that is not allowed."""
    if not isinstance(training, Training):
        raise EstimatorInputError(f"training is {type(training).__name__}: a Training is needed")
    if training.precision not in PRECISIONS:
        raise unknown_name("precision", str(training.precision), PRECISIONS)
    for name in ("aux_k", "aux_weight", "dead_after"):
        value = getattr(training, name)
        if value is not None and not value >= 0:
            raise EstimatorInputError(f"training.{name} is {value}: it must be 0 or more")
    for name in ("buffer_mib", "log_every"):
        value = getattr(training, name)
        if value is not None and not value >= 1:
            raise EstimatorInputError(f"training.{name} is {value}: it must be 1 or more")
    given = training.prefixes
    if given is not None and (
        not given or sorted(set(given)) != list(given) or given[0] < 1 or given[-1] != m
    ):
        raise EstimatorInputError(
            f"training.prefixes are {given}: ascending sizes that end with n_features = {m} are needed"
        )
