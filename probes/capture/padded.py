"""Tokens that a caller has made itself (with [MASK] among them, say), as padded batches for a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from probes.capture.batching import Batch
    from probes.capture.tokens import Tokens
    from probes.models import Model

BATCH_TOKENS = 2048


def padded_batches(model: Model, texts: Sequence[Tokens]) -> Iterator[tuple[Batch, dict[str, Any]]]:
    """Batches of texts of like length, `keep` without special tokens, and the model's arguments for each.

    Padding stands where it was seen not to matter; where that is nowhere, texts of one length share a batch.
    """
    from probes.capture.batching import pad_batch, plan_batches

    side: Any = next((s for s in ("right", "left") if s in model.padding_sides), "none")
    lengths = [len(tokens) for tokens in texts]
    for rows in plan_batches(lengths, BATCH_TOKENS, equal=side == "none"):
        batch = pad_batch(texts, rows, pad_id=model.pad_id, side=side, special=False)
        ids, mask = (
            batch.inputs[name].to(model.device) for name in ("input_ids", "attention_mask")
        )
        yield batch, model.forward_inputs(ids, mask)


def starts(batch: Batch) -> NDArray[np.int64]:
    """Where each text of a batch begins: (batch,), 0 unless it is padded on the left."""
    return batch.inputs["attention_mask"].argmax(dim=1).numpy()
