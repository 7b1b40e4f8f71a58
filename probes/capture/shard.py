"""One shard: load its texts, run their batches, pool inside the hooks, write.

Idempotent: the same job gives the same bytes.
Executors only decide who calls `capture_shard`; nothing is carried from one shard to the next but the loaded model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from probes.capture.backends import Runner
from probes.capture.batching import Batch
from probes.capture.memory import Halving, trim_heap
from probes.capture.pooling import Pooler
from probes.capture.sites import SITES, Place
from probes.capture.source import BatchPlan, Source
from probes.capture.span_pooling import SpanPooler

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from probes.models import Model
    from probes.store import Record, Store

    AnyPooler = Pooler | SpanPooler
    Reduce = Callable[[Place, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Job:
    """What every shard of one capture has in common."""

    model: Model
    source: Source
    places: tuple[Place, ...]
    pooling: str
    batches: BatchPlan

    @property
    def ragged(self) -> bool:
        """Whether a text has rows of its own number: its tokens or its spans."""
        return self.pooling == "none" or self.source.spans is not None


def place_shape(model: Model, place: Place) -> tuple[int, ...]:
    """Shape of one token's state at `place`: (d,) or (heads, d_head). An `exit` may be projected to another width."""
    heads = model.structure.blocks[place.number].heads if SITES[place.site].per_head else None
    return (model.d_model,) if heads is None else (heads.n, heads.width)


class PooledRows:
    """(rows, …) float32 per place, filled batch by batch in any order.

    All arrays lie in one block of memory, taken before the first pass: many small ones, taken while a pass runs, would
    lie scattered among its large freed blocks and keep them from being used again.
    """

    def __init__(self, job: Job, n: int) -> None:
        import torch

        self.n = n
        self.arrays: dict[tuple[str, int], torch.Tensor] = {}
        shapes = [(n, *place_shape(job.model, place)) for place in job.places]
        block = torch.full((sum(math.prod(shape) for shape in shapes),), torch.nan)
        start = 0
        for place, shape in zip(job.places, shapes, strict=True):
            self.arrays[place] = block[start : start + math.prod(shape)].view(shape)
            start += math.prod(shape)

    def put(
        self, place: Place, rows: NDArray[np.int64], pooled: torch.Tensor, pooler: AnyPooler
    ) -> None:
        import torch

        if self.arrays[place].shape[1:] != pooled.shape[1:]:
            self.arrays[place] = torch.full((self.n, *pooled.shape[1:]), torch.nan)
        self.arrays[place][torch.from_numpy(rows)] = pooled.cpu()

    def write(self, store: Store, index: int) -> Record:
        return store.write_shard(index, self.arrays)


class RaggedRows:
    """Any number of rows per text, text after text: every token in the model's own precision (pooling "none"), or every
    span in float32."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.parts: dict[tuple[str, int], dict[int, torch.Tensor]] = {}

    def put(
        self, place: Place, rows: NDArray[np.int64], pooled: torch.Tensor, pooler: AnyPooler
    ) -> None:
        mine = self.parts.setdefault(place, {})
        for row, states in zip(rows.tolist(), pooled.cpu().split(pooler.counts), strict=True):
            mine[row] = states

    def write(self, store: Store, index: int) -> Record:
        import torch

        first = next(iter(self.parts.values()))
        offsets = np.cumsum([0] + [len(first[row]) for row in range(self.n)])
        tensors = {
            place: torch.cat([parts[row] for row in range(self.n)])
            for place, parts in self.parts.items()
        }
        return store.write_shard(index, tensors, offsets=offsets)


def reduce_batch(
    model: Model,
    runner: Runner,
    batch: Batch,
    reduce: Reduce,
    put: Callable[[Place, torch.Tensor], None],
) -> None:
    """Forward `batch`; what `reduce(place, states)` makes of the states inside the hook goes to `put(place, made)`.

    A pass that is repeated, for lack of memory, may call both again.
    """
    device = model.device
    inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    if model.position_ids and "attention_mask" in inputs:
        from probes.models.model import count_positions

        inputs["position_ids"] = count_positions(inputs["attention_mask"])
    made: dict[Place, torch.Tensor] = {}

    def receive(place: Place, states: torch.Tensor) -> None:
        result = reduce(place, states)
        if result.device.type == "cpu":
            # At once: small results that outlive the pass would lie scattered among the large freed blocks of the
            # heap and keep them from being given back.
            put(place, result)
        else:
            made[place] = result  # after the pass: a copy from an accelerator waits for it

    runner(inputs, receive)
    for place, result in made.items():
        put(place, result)


def run_batch(
    job: Job, runner: Runner, batch: Batch, put: Callable[[Place, torch.Tensor, AnyPooler], None]
) -> None:
    """Forward `batch`; what was pooled goes to `put(place, pooled, pooler)`, which a repeated pass may call again."""
    import torch

    device = job.model.device
    pooler: AnyPooler | None = None
    if batch.spans is not None:
        pooler = SpanPooler(job.pooling, batch.spans, device)
    elif batch.keep is not None:
        pooler = Pooler(job.pooling, batch.keep.to(device))

    def pool(place: Place, states: torch.Tensor) -> torch.Tensor:
        nonlocal pooler
        if pooler is None:  # an image: the model alone knows how many patches it made
            keep = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
            pooler = Pooler(job.pooling, keep)
        return pooler(states)

    def hand_over(place: Place, pooled: torch.Tensor) -> None:
        assert pooler is not None
        put(place, pooled, pooler)

    reduce_batch(job.model, runner, batch, pool, hand_over)


def capture_shard(
    job: Job,
    store: Store,
    index: int,
    runner: Runner,
    advance: Callable[[int], None] = lambda done: None,
) -> Record:
    """Compute and commit shard `index` of `store`; `advance(rows)` is told about each finished batch."""
    lo, hi = store.shards[index]
    sink = RaggedRows(hi - lo) if job.ragged else PooledRows(job, hi - lo)

    def run(batch: Batch) -> None:
        run_batch(
            job,
            runner,
            batch,
            lambda place, states, pooler: sink.put(place, batch.rows, states, pooler),
        )
        advance(len(batch.rows))

    halving = Halving(run)
    for batch in job.source.load(lo, hi, job.batches):
        halving(batch, first_row=lo)
    record = sink.write(store, index)
    trim_heap()
    return record
