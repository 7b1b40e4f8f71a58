"""Sparse codes as candidates: one coder per number of active features, fitted to the full model's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply, InputError

if TYPE_CHECKING:
    from probes.sae.csr import CSRCoder

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Progress = Callable[[int, int, str], None]

FEWEST = 100  # texts below which a dictionary would only learn them by heart
ACTIVES = (8, 16, 32, 64)  # active numbers that are tried where none are named


def check_actives(ks: Iterable[int], width: int) -> None:
    """`InputError` for active numbers that make no code: fewer than one, or as many as the embedding has."""
    for k in ks:
        if not 1 <= k < width:
            raise InputError(
                f"sparse codes of {k} active numbers: 1 to {width - 1} make sense for embeddings of {width}"
            )


def possible_actives(width: int, texts: int) -> tuple[int, ...]:
    """Those of `ACTIVES` that make a code of embeddings of that width, where as many texts are there to fit to.

    `DoesNotApply` where there is none, or where the texts are fewer than `FEWEST`.

    >>> possible_actives(24, 500)
    (8, 16)
    """
    if texts < FEWEST:
        raise DoesNotApply(
            f"{texts} texts are too few to fit sparse codes: at least {FEWEST} are needed"
        )
    found = tuple(k for k in ACTIVES if k < width)
    if not found:
        raise DoesNotApply(
            f"embeddings of {width} numbers: sparse codes of {ACTIVES[0]} would save nothing"
        )
    return found


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


def code_caveats(coders: dict[int, CSRCoder], kind: str) -> list[str]:
    """What a reader must know of sparse codes: what their dims count, and on which documents they were judged.

    A dictionary learns the documents of a small corpus by heart. With MiniLM, codes of 16 fitted to half of a corpus
    had nDCG@10 0.94 (nq_oracle) and 0.58 (scifact) for queries whose document they had seen, 0.76 and 0.37 for the
    others; principal components of as many bytes 0.84 and 0.43, 0.84 and 0.49.
    """
    if not coders:
        return []
    features = len(next(iter(coders.values())).autoencoder_.decoder_)
    found = [
        f"the dim of a csr candidate counts the active numbers of a sparse code over {features:,} features: each is "
        "stored with its position, so that equal dims are not equal bytes (8 against 4 in float32)"
    ]
    if kind == "retrieval":
        found.append(
            "sparse codes were fitted to these very documents: what they keep holds for this corpus, documents that "
            "are added later lose more, so fit anew or give many --texts like them"
        )
    return found
