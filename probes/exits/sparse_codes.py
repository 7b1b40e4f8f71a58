"""Sparse codes as candidates: one coder per number of active features, fitted to the full model's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError

if TYPE_CHECKING:
    from probes.sae.csr import CSRCoder

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Progress = Callable[[int, int, str], None]

FEWEST = 100  # texts below which a dictionary would only learn them by heart


def check_actives(ks: Iterable[int], width: int) -> None:
    """`InputError` for active numbers that make no code: fewer than one, or as many as the embedding has."""
    for k in ks:
        if not 1 <= k < width:
            raise InputError(
                f"sparse codes of {k} active numbers: 1 to {width - 1} make sense for embeddings of {width}"
            )


def fit_coders(
    target: Array,
    rows: IntArray,
    ks: Iterable[int],
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[int, CSRCoder]:
    """A `CSRCoder` for every k of `ks`, fitted to the rows `rows` of the full model's embeddings (texts, d)."""
    from probes.sae.csr import CSRCoder  # torch only where codes are asked for

    found: dict[int, CSRCoder] = {}
    check_actives(ks := sorted(set(ks)), target.shape[1])
    for k in ks:

        def report(step: int, steps: int, k: int = k) -> None:
            if progress:
                progress(step, steps, f"fitting sparse codes of {k} active numbers")

        found[k] = CSRCoder(k, seed=seed).fit(target[rows], progress=report)
    return found


def describe_coders(coders: dict[int, CSRCoder]) -> dict[str, Any]:
    """What `decision.json` says of them: features, the training's last error, steps."""
    return {
        str(k): {
            "features": len(coder.autoencoder_.decoder_),
            "fvu": float(coder.autoencoder_.history_["fvu"].iloc[-1]),
            "steps": coder.autoencoder_.n_steps_,
        }
        for k, coder in coders.items()
    }


def code_caveats(coders: dict[int, CSRCoder]) -> list[str]:
    """What a reader must know of the dims of sparse codes."""
    if not coders:
        return []
    features = len(next(iter(coders.values())).autoencoder_.decoder_)
    return [
        f"the dim of a csr candidate counts the active numbers of a sparse code over {features:,} features: each is "
        "stored with its position, so that equal dims are not equal bytes (8 against 4 in float32)"
    ]
