"""Several autoencoders, of several layers or sparsities, from one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from probes.errors import EstimatorInputError
from probes.files import safe_name
from probes.sae.estimator import SparseAutoencoder
from probes.sae.training import Session, run_sessions

Report = Callable[[int, int], None]


def train_together(
    saes: Mapping[str, SparseAutoencoder],
    X: Any,
    *,
    reads: Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    every: int = 1000,
    progress: Report | None = None,
) -> dict[str, SparseAutoencoder]:
    """Fit every autoencoder, reading and shuffling the data once; each comes out as if it had been fitted alone.

    `X` is what `SparseAutoencoder.fit` takes, for all; or a mapping from key to rows, such as {layer: StoreRows(…)}; or
    batches that are mappings from key to (rows, d), such as `from_model` gives for several layers. `reads` says which
    key each autoencoder reads; by default its own name. They must agree in `batch_size`, `steps`, `order_seed` and
    `buffer_mib`, which decide the batches; everything else may differ.

    Raises `EstimatorInputError` where they do not agree, and what `fit` raises. Returns the same autoencoders.

    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> saes = {f"k{k}": SparseAutoencoder(8, k, steps=3, device="cpu") for k in (1, 2)}
    >>> sorted(train_together(saes, X))
    ['k1', 'k2']
    """
    if not saes:
        raise EstimatorInputError("no autoencoders came: at least one is needed")
    if len({id(sae) for sae in saes.values()}) < len(saes):
        raise EstimatorInputError("one autoencoder came under two names: use sklearn.base.clone")
    if checkpoint is not None:
        for name in saes:
            safe_name(str(name))
    sessions = [Session(sae, str(name)) for name, sae in saes.items()]
    chosen = dict(reads or {})
    unknown = sorted(str(name) for name in chosen if name not in saes)
    if unknown:
        raise EstimatorInputError(
            f"reads names {unknown[0]!r}: the autoencoders are {', '.join(map(str, saes))}"
        )
    keys = [chosen.get(name, name) for name in saes]
    run_sessions(sessions, X, checkpoint, every, progress, keys)
    return dict(saes)
