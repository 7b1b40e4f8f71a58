"""States straight from a model: batches of token states through the capture hooks, nothing kept beyond them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from probes.capture.batching import Batch, plan_shards
from probes.capture.capture import check_places
from probes.capture.hooks import TorchRunner
from probes.capture.memory import Halving
from probes.capture.observe import Reading
from probes.capture.shard import reduce_batch
from probes.capture.sites import Place, parse_sites
from probes.errors import InputError

if TYPE_CHECKING:
    from probes.models import Model

LONG = 5.0  # times the median length: above it a state is an attention sink's
_TEXTS, _WEIGHT = 1024, 256 << 10  # texts and bytes that are tokenised at once


class ModelBatches:
    """Token states of texts in batches (tokens, d) float32, computed anew at each iteration; see `from_model`."""

    def __init__(
        self, reading: Reading, places: Sequence[Place], names: Sequence[Any] | None, sinks: bool
    ) -> None:
        self._reading, self._places, self._names = reading, tuple(places), names
        self._sinks = sinks

    def __iter__(self) -> Iterator[Any]:
        reading = self._reading
        longest: dict[Place, float] = {}
        runner = TorchRunner(reading.model, self._places)
        for lo, hi in plan_shards(reading.source.weights(), _TEXTS, _WEIGHT):
            for batch in reading.source.load(lo, hi, reading.plan):
                found: list[dict[Place, Tensor]] = []
                Halving(lambda one, found=found: found.append(self._states(runner, one)))(
                    batch, first_row=lo
                )
                for whole in found:
                    states = whole if self._sinks else without_sinks(whole, longest)
                    if not len(states[self._places[0]]):
                        continue
                    if self._names is None:
                        yield states[self._places[0]]
                    else:
                        yield dict(zip(self._names, (states[p] for p in self._places), strict=True))

    def _states(self, runner: TorchRunner, batch: Batch) -> dict[Place, Tensor]:
        assert batch.keep is not None
        keep = batch.keep
        if not self._sinks and self._reading.model.is_causal:
            keep = keep & (batch.inputs["attention_mask"].cumsum(1) > 1)
        keep = keep.to(self._reading.model.device)
        found: dict[Place, Tensor] = {}

        def put(place: Place, states: Tensor) -> None:
            found[place] = states.flatten(1).float()

        with torch.no_grad():
            reduce_batch(
                self._reading.model, runner, batch, lambda place, states: states[keep], put
            )
        return found


def without_sinks(states: dict[Place, Tensor], longest: dict[Place, float]) -> dict[Place, Tensor]:
    """Tokens whose state is of ordinary length at all places; `longest` is set by the first batch."""
    kept: Tensor | None = None
    for place, x in states.items():
        lengths = torch.linalg.vector_norm(x, dim=1)
        if place not in longest and len(lengths):
            longest[place] = LONG * float(lengths.median())
        own = lengths <= longest.get(place, 0.0)
        kept = own if kept is None else kept & own.to(kept.device)
    return {place: x[kept.to(x.device)] for place, x in states.items() if kept is not None}


def from_model(
    model: Model,
    texts: Sequence[str],
    site: str,
    layer: int | Sequence[int],
    *,
    max_length: int | None = None,
    special_tokens: bool = True,
    prompt: str = "",
    batch_tokens: int | None = None,
    sinks: bool = False,
    seed: int = 0,
) -> ModelBatches:
    """Batches of token states (tokens, d) at `site` of `layer` (a block for block sites), for `SparseAutoencoder.fit`.

    Texts are read in an order shuffled by `seed`, from the start at each iteration; heads of `z` lie side by side. With
    several layers a batch is {layer: (tokens, d)}, for `train_together`. Nothing is kept but one batch; training
    shuffles tokens in its own buffer. The other options are those of `capture`.

    Left out, unless `sinks`, are the first token of each text in causal models and tokens whose states are over five
    times as long as the median of the first batch: attention sinks are a constant, in some models a hundred times as
    long as other states, and would be nearly all that the mean square error sees.

    >>> sae = SparseAutoencoder(steps=2000).fit(from_model(model, texts, "resid_post", 12))  # doctest: +SKIP
    """
    several = not isinstance(layer, int | np.integer)
    layers: list[int] = [int(one) for one in layer] if several else [int(layer)]  # type: ignore[union-attr, arg-type]
    if not layers:
        raise InputError("no layers came: at least one is needed")
    places = parse_sites(site, model.n_layers, {site: layers})
    check_places(model, places)
    order: list[int] = np.random.default_rng((seed, 4)).permutation(len(texts)).tolist()
    reading = Reading.of(
        model,
        [str(texts[i]) for i in order],
        max_length=max_length,
        special_tokens=special_tokens,
        prompt=prompt,
        batch_tokens=batch_tokens,
    )
    return ModelBatches(reading, places, [p.number for p in places] if several else None, sinks)
