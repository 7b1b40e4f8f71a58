"""Time from text to embedding after every layer, measured on this machine, tokenising included.

Layers take turns within a round on the same texts, in an order that is rotated from round to round, so that a slow
moment of the machine hits all of them alike. The relative cost is the median over rounds of a layer's time over the
full model's in the same round. Nothing is smoothed: a deeper layer may come out cheaper by noise, and the table
shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError

if TYPE_CHECKING:
    from probes.exits.translate import Translator
    from probes.models import Model

Array = NDArray[np.floating[Any]]
Progress = Callable[[int, int, str], None]
Call = Callable[[Sequence[str]], Any]


@dataclass(frozen=True)
class LatencyPlan:
    """How time is taken: at most `seconds` in all (but `min_rounds` always), `batch_size` texts at once."""

    seconds: float = 20.0
    batch_size: int = 1
    min_rounds: int = 3
    max_rounds: int = 50
    warmup: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Latency:
    """`times` (rounds, layers): milliseconds per text; `layers` in that order, the last is the full model."""

    layers: tuple[int, ...]
    times: Array
    batch_size: int

    def table(self) -> pd.DataFrame:
        """One row per layer: layer, latency_p50_ms, latency_p95_ms, relative_cost, rounds, batch_size.

        >>> Latency((0, 1), np.array([[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]]), 1).table()["relative_cost"].tolist()
        [0.2, 1.0]
        """
        p50, p95 = np.quantile(self.times, [0.5, 0.95], axis=0)
        return pd.DataFrame(
            {
                "layer": self.layers,
                "latency_p50_ms": p50,
                "latency_p95_ms": p95,
                "relative_cost": np.median(self._ratios(), axis=0),
                "rounds": len(self.times),
                "batch_size": self.batch_size,
            }
        )

    def _ratios(self) -> Array:
        return self.times / self.times[:, -1:]

    def relative_cost(self) -> dict[int, float]:
        """Share of the full model's time per layer."""
        values = np.median(self._ratios(), axis=0)
        return {layer: float(value) for layer, value in zip(self.layers, values, strict=True)}

    def caveats(self) -> list[str]:
        """What a reader must know of these times: few rounds, or a machine that did other work."""
        found: list[str] = []
        if len(self.times) < 10:
            found.append(
                f"time was taken in {len(self.times)} rounds only: relative costs are rough"
            )
        low, cost, high = np.quantile(self._ratios(), [0.25, 0.5, 0.75], axis=0)
        if bool(np.any(np.diff(cost) < -0.05)) or float((high - low).max()) > 0.25:
            found.append(
                "the machine did other work while time was taken (costs scatter, or a deeper layer came out cheaper): "
                "measure again when it is quiet"
            )
        return found

    def rows(self, dataset: str, pooling: str | None, seed: int) -> list[dict[str, Any]]:
        """Rows for the tidy table. The interval of the relative cost holds the middle 95 % of the rounds."""
        low, high = np.quantile(self._ratios(), [0.025, 0.975], axis=0)
        found: list[dict[str, Any]] = []
        for place, row in enumerate(self.table().to_dict("records")):
            where = {"site": "exit", "layer": row["layer"], "pooling": pooling, "dataset": dataset}
            counted = {**where, "n": len(self.times), "seed": seed}
            found += [
                {**counted, "measure": m, "value": row[m]}
                for m in ("latency_p50_ms", "latency_p95_ms")
            ]
            spread = {"low": float(low[place]), "high": float(high[place])}
            found.append(
                {**counted, "measure": "relative_cost", "value": row["relative_cost"], **spread}
            )
        return found


def measure_latency(
    model: Model,
    texts: Sequence[str],
    pooling: str | None = None,
    translators: Mapping[int, Translator] | None = None,
    plan: LatencyPlan | None = None,
    progress: Progress | None = None,
    max_length: int | None = None,
) -> Latency:
    """Milliseconds per text to tokenise, run the first k blocks, pool, and apply the head or the layer's translator.

    Layers 0…L are all measured; where time is short, rounds are dropped, not layers. Texts are drawn from
    `texts`, others in every round.
    """
    plan = plan or LatencyPlan()
    if not texts:
        raise InputError("no texts came to measure time on: at least one is needed")
    calls = {
        k: _embedder(model, k, pooling, (translators or {}).get(k), max_length)
        for k in range(model.n_layers + 1)
    }
    order = np.random.default_rng(plan.seed).permutation(len(texts))

    def batch(number: int) -> list[str]:
        places = (number * plan.batch_size + np.arange(plan.batch_size)) % len(texts)
        return [str(texts[i]) for i in order[places].tolist()]

    return run_rounds(calls, batch, plan, progress)


def run_rounds(
    calls: Mapping[int, Call],
    batch: Callable[[int], Sequence[str]],
    plan: LatencyPlan,
    progress: Progress | None = None,
) -> Latency:
    """Time every call in every round, rotated; `batch(r)` gives the texts of round r."""
    layers = sorted(calls)
    for _ in range(plan.warmup):
        for layer in layers:
            calls[layer](batch(0))
    start = time.perf_counter()
    rounds: list[Array] = []
    while len(rounds) < plan.max_rounds:
        if len(rounds) >= plan.min_rounds and time.perf_counter() - start > plan.seconds:
            break
        if progress:
            progress(len(rounds), plan.max_rounds, "time per layer")
        texts = batch(len(rounds))
        taken = np.empty(len(layers))
        for place in np.roll(np.arange(len(layers)), len(rounds)):
            before = time.perf_counter()
            calls[layers[place]](texts)
            taken[place] = (time.perf_counter() - before) * 1000 / len(texts)
        rounds.append(taken)
    return Latency(tuple(layers), np.stack(rounds), plan.batch_size)


def _embedder(
    model: Model, k: int, pooling: str | None, translator: Translator | None, max_length: int | None
) -> Call:
    """Texts to embeddings by the model stopped after k blocks."""
    from probes.capture import Place, TorchRunner
    from probes.capture.capture import default_batch_tokens
    from probes.capture.shard import Job, run_batch
    from probes.capture.source import BatchPlan, TextSource
    from probes.capture.tokens import TextEncoder

    encoder = TextEncoder(model.require_tokenizer(), max_length or model.max_length)
    place = Place("exit", k)
    runner = TorchRunner(model, [place])
    side: Any = next((s for s in ("right", "left") if s in model.padding_sides), "none")
    plan = BatchPlan(default_batch_tokens(model), side)
    linear = None
    if translator is not None:
        linear = tuple(np.asarray(part, dtype=np.float32) for part in translator.as_linear())

    def embed(texts: Sequence[str]) -> Array:
        source = TextSource(texts, encoder, model.pad_id)
        job = Job(model, source, (place,), pooling or model.embedding.pooling, plan)
        parts: list[Array] = []
        batches = source.load(0, len(texts), plan)
        for one in batches:
            run_batch(
                job,
                runner,
                one,
                lambda _place, states, _keep: parts.append(states.cpu().float().numpy()),
            )
        pooled = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        for one, states in zip(batches, parts, strict=True):  # batches are sorted by length
            pooled[one.rows] = states
        return model.embed(pooled) if linear is None else pooled @ linear[0] + linear[1]

    return embed
