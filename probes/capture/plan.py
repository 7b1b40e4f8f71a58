"""What is settled before the first pass: the shards, and the identity that decides the store's bytes."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from typing import Any

from probes.capture.backends import Backend
from probes.capture.batching import plan_shards
from probes.capture.shard import Job, place_shape
from probes.errors import InputError

_VERSION = 1  # raised when the same request would give other bytes than before
_SHARD_BYTES = 64 << 20  # of pooled states; and, for token states, about that many too
_SHARD_TEXT = 256 << 10  # bytes of text: bounds what a kill can cost


def plan_job(job: Job, shard_rows: int | None) -> list[tuple[int, int]]:
    """Shards of at most 64 MiB of states and 256 KiB of text, or of `shard_rows` texts."""
    numbers = sum(math.prod(place_shape(job.model, place)) for place in job.places)
    room = max(1, _SHARD_BYTES // (4 * numbers))
    if shard_rows is not None and shard_rows < 1:
        raise InputError(f"shard_rows is {shard_rows}: 1 or more is needed")
    if job.source.spans is not None:
        # A span weighs as much text as fills a shard together with it, so that neither bound is passed.
        share = math.ceil(_SHARD_TEXT / room)
        counts = [share * len(row) for row in job.source.spans]
        weights = [max(pair) for pair in zip(job.source.weights(), counts, strict=True)]
        return plan_shards(weights, shard_rows or 4096, _SHARD_TEXT)
    if job.pooling == "none":  # rows are tokens, of about four bytes of text each
        return plan_shards(job.source.weights(), shard_rows or 4096, min(_SHARD_TEXT, 4 * room))
    return plan_shards(job.source.weights(), shard_rows or min(room, 4096), _SHARD_TEXT)


def make_identity(
    job: Job, entry: Backend, precision: str, shards: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    """Everything that decides the bytes of the store, as plain values."""
    import torch
    import transformers

    model = job.model
    device = model.device.type
    return {
        "what": "fathometer capture",
        "version": _VERSION,
        "model": {
            "weights": model.weights_hash,
            "tokenizer": model.tokenizer_hash,
            "attention": str(getattr(model.config, "_attn_implementation", None)),
            "dtype": precision,
        },
        **job.source.identity(),
        "places": [list(place) for place in job.places],
        "pooling": job.pooling,
        "special_tokens": job.batches.special,
        "padding_side": job.batches.side,
        "batch_tokens": job.batches.batch_tokens,
        "shards": len(shards),
        "backend": entry.name,
        "library": f"{entry.package} {entry.package_version()}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(model.device)
        if device == "cuda"
        else f"{device} {platform.machine()}",
    }
