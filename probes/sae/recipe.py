"""The parameters of an estimator, checked, and the recipe that follows from them and from the data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from probes.errors import EstimatorInputError, unknown_name
from probes.sae.settings import (
    Recipe,
    Sizes,
    check_training,
    default_prefixes,
    default_rate,
    default_steps,
)  # fmt: skip
from probes.sae.variants import VARIANTS

if TYPE_CHECKING:
    from probes.sae.estimator import SparseAutoencoder


def make_recipe(sae: SparseAutoencoder, d: int, n: int | None) -> Recipe:
    """Check the parameters and work out those that were left to the data."""
    training, m = sae.training, int(sae.n_features)
    batch_size = int(sae.batch_size if n is None else min(sae.batch_size, n))
    steps = sae.steps
    if steps is None:
        if n is None:
            raise EstimatorInputError(
                "steps is None and the length of the data is not known: give steps, as the learning rate follows them"
            )
        steps = default_steps(n, batch_size)
    dead_after = training.dead_after
    return Recipe(
        sizes=Sizes(
            d,
            m,
            float(sae.k if sae.target_l0 is None else sae.target_l0),
            training.prefixes or default_prefixes(m),
        ),
        steps=int(steps),
        batch_size=batch_size,
        learning_rate=float(default_rate(m) if sae.learning_rate is None else sae.learning_rate),
        aux_k=max(1, d // 2) if training.aux_k is None else training.aux_k,
        aux_weight=training.aux_weight,
        dead_after=steps * batch_size // 20 if dead_after is None else dead_after,
        precision=training.precision,
    )


def check_parameters(sae: SparseAutoencoder) -> None:
    if sae.variant not in VARIANTS:
        raise unknown_name("variant", str(sae.variant), VARIANTS)
    for name in ("n_features", "k", "batch_size", "steps"):
        value = getattr(sae, name)
        if value is None and name == "steps":
            continue
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise EstimatorInputError(f"{name} is {value!r}: a whole number from 1 on is needed")
    target = sae.k if sae.target_l0 is None else sae.target_l0
    if not 0 < target <= sae.n_features:
        which = "k" if sae.target_l0 is None else "target_l0"
        raise EstimatorInputError(
            f"{which} is {target}: more than 0 and at most n_features = {sae.n_features} is needed"
        )
    if sae.variant == "topk" and target != sae.k:
        raise EstimatorInputError(
            f"target_l0 is {target} and k is {sae.k}: k is what 'topk' reaches; leave target_l0 away"
        )
    if sae.learning_rate is not None and not 0 < sae.learning_rate < float("inf"):
        raise EstimatorInputError(f"learning_rate is {sae.learning_rate}: it must be positive")
    check_training(sae.training, int(sae.n_features))
