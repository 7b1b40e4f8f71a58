"""What a head's circuits look like by themselves: their singular values, and whether they copy tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from probes.errors import DoesNotApply
from probes.heads.weights.factored import CIRCUITS, circuit
from probes.heads.weights.find import HeadWeights, all_head_weights
from probes.models import Model, require_language_model


def head_spectra(model: Model, weights: Sequence[HeadWeights] | None = None) -> pd.DataFrame:
    """Singular values of W_Q W_Kᵀ ("QK") and W_V W_O ("OV") of every head: block, head, circuit, rank, singular_value.

    `rank` counts from 1, the largest value. There are d_head of them (the product has no more). Weights are the
    model's own, with no norm folded in. Circuits that could not be verified are left out and named in
    `frame.attrs["notes"]`; `DoesNotApply` where none is left. `weights`:
    `all_head_weights(model)` where they are known.

    >>> def leading_share(model):  # share of a circuit's energy in its first direction
    ...     table = head_spectra(model)
    ...     energy = table["singular_value"].astype(float) ** 2
    ...     return energy.groupby([table["circuit"], table["block"], table["head"]]).agg(lambda e: e.max() / e.sum())
    """
    parts: list[pd.DataFrame] = []
    notes: list[str] = []
    for own in all_head_weights(model) if weights is None else weights:
        for name in CIRCUITS:
            try:
                values = circuit(own, name).values.cpu().numpy()
            except DoesNotApply as error:
                notes.append(str(error))
                continue
            heads, ranks = values.shape
            parts.append(
                pd.DataFrame(
                    {
                        "block": own.block,
                        "head": np.repeat(np.arange(heads), ranks),
                        "circuit": name,
                        "rank": np.tile(np.arange(1, ranks + 1), heads),
                        "singular_value": values.ravel(),
                    }
                )
            )
    if not parts:
        raise DoesNotApply(f"spectra of heads of {model.name}: {notes[0]}")
    frame = pd.concat(parts, ignore_index=True)
    frame.attrs["notes"] = notes
    return frame


def copying_scores(model: Model, weights: Sequence[HeadWeights] | None = None) -> pd.DataFrame:
    """Σ Re λ / Σ |λ| over the eigenvalues of W_E W_V W_O W_U, vocabulary to vocabulary, of every head.

    Between −1 and 1: 1 for a head that raises the logit of the token it attends to, −1 for one that lowers it. The
    eigenvalues are those of the d_head × d_head matrix W_O W_U W_E W_V (the others are 0); norms are left out.
    Columns block, head, value. A head of zeros has the value 0.

    Raises `DoesNotApply` for models without a language-model head, and where embedding and head differ in width or
    weights could not be verified. Paper: Elhage et al. 2021.
    """
    head: Any = require_language_model(model)
    embedding = cast("Any", model.hf_model).get_input_embeddings().weight.detach().float()
    unembedding = head.weight.detach().float()
    if embedding.shape != unembedding.shape or embedding.shape[1] != model.d_model:
        raise DoesNotApply(
            f"copying in {model.name}: embedding {tuple(embedding.shape)} and head {tuple(unembedding.shape)} "
            f"do not both map {model.d_model} coordinates from and to the same tokens"
        )
    through = (unembedding.T @ embedding).double()  # (d, d): written → logits → embedded
    rows: list[dict[str, Any]] = []
    for own in all_head_weights(model) if weights is None else weights:
        small = own.W_O.double() @ through @ own.W_V.double()
        values = torch.linalg.eigvals(small)
        sizes = values.abs().sum(-1)
        scores = torch.where(sizes > 0, values.real.sum(-1) / sizes.clamp(min=1e-300), 0.0)
        rows += [
            {"block": own.block, "head": number, "value": float(score)}
            for number, score in enumerate(scores)
        ]
    return pd.DataFrame(rows)
