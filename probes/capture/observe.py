"""Looking at a model while it reads texts: any reduction of the states inside the hooks, nothing token-sized kept.

`capture` pools and stores; `observe` calls a function on the states of each batch and keeps the few numbers per text
that it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.capture.batching import Batch, Side, plan_shards
from probes.capture.capture import default_batch_tokens, make_source, padding_side_for
from probes.capture.hooks import TorchRunner
from probes.capture.memory import Halving, trim_heap
from probes.capture.progress import Report, progress_bar
from probes.capture.shard import reduce_batch
from probes.capture.sites import Place
from probes.capture.source import BatchPlan, Source

if TYPE_CHECKING:
    import torch

    from probes.models import Model

_ROWS, _WEIGHT = 4096, 256 << 10  # texts and bytes that are tokenised at once

Look = Callable[[Place, "torch.Tensor", "torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True)
class Reading:
    """Texts as one model reads them, in batches; the options are those of `capture`."""

    model: Model
    source: Source
    plan: BatchPlan

    @classmethod
    def of(
        cls,
        model: Model,
        texts: Sequence[str],
        *,
        max_length: int | None = None,
        special_tokens: bool = True,
        prompt: str = "",
        batch_tokens: int | None = None,
        padding_side: Side | None = None,
    ) -> Reading:
        side = padding_side_for(model, padding_side)
        plan = BatchPlan(batch_tokens or default_batch_tokens(model), side, special_tokens)
        return cls(model, make_source(model, texts, None, max_length, prompt), plan)

    def run(self, each: Callable[[Batch], None], progress: bool | Report = False) -> pd.DataFrame:
        """`each(batch)` for all texts, whose numbers are `batch.rows`; a batch that does not fit comes again in halves.

        Returns one row per text: `tokens`, `truncated`.
        """
        tables: list[pd.DataFrame] = []
        with progress_bar(progress, self.source.n, 0, "texts") as advance:
            for lo, hi in plan_shards(self.source.weights(), _ROWS, _WEIGHT):

                def step(batch: Batch, lo: int = lo) -> None:
                    each(replace(batch, rows=batch.rows + lo))
                    advance(len(batch.rows))

                halving = Halving(step)
                for batch in self.source.load(lo, hi, self.plan):
                    halving(batch, first_row=lo)
                tables.append(self.source.table(lo, hi))
                trim_heap()
        return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Observed:
    """`values[place]` (n, …) float64 is what was answered for each text; `rows` has its `tokens` and `truncated`."""

    values: dict[Place, NDArray[np.float64]]
    rows: pd.DataFrame


def observe(
    reading: Reading, places: Sequence[Place], look: Look, progress: bool | Report = False
) -> Observed:
    """What `look(place, states, keep)` answers for each text at each place.

    `states` (batch, token, d) are on the model's device and must not be edited; `keep` (batch, token) is true for the
    tokens that count (as `Pooler` counts them). The answer is (batch, …), of one shape for all texts.

    Raises what `capture` raises for texts, sites and memory.

    Examples:
        >>> def longest(model, texts):  # largest norm of a token in each text, after every layer
        ...     def look(place, states, keep):
        ...         return states.norm(dim=-1).masked_fill(~keep, 0).amax(1)
        ...     places = [Place("exit", layer) for layer in range(model.n_layers + 1)]
        ...     return observe(Reading.of(model, texts), places, look).values
    """
    runner = TorchRunner(reading.model, places)
    values: dict[Place, NDArray[np.float64]] = {}

    def each(batch: Batch) -> None:
        assert batch.keep is not None
        keep = batch.keep.to(reading.model.device)

        def put(place: Place, made: torch.Tensor) -> None:
            answer: NDArray[Any] = made.double().cpu().numpy()
            if place not in values:
                values[place] = np.full((reading.source.n, *answer.shape[1:]), np.nan)
            values[place][batch.rows] = answer

        reduce_batch(
            reading.model, runner, batch, lambda place, states: look(place, states, keep), put
        )

    rows = reading.run(each, progress)
    return Observed(values, rows)
