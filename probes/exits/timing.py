"""Time of every way that is not that of the raw states: other precisions, and translators that read more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.exits.encoded import Encoded
from probes.exits.latency import (
    Latency,
    LatencyPlan,
    _embedder,  # pyright: ignore[reportPrivateUsage]
    measure_latency,
    run_rounds,
)
from probes.exits.translate import LayerTranslator, TranslatedModel
from probes.exits.ways import DITTO, Way

if TYPE_CHECKING:
    from probes.exits.build import Variants
    from probes.models import Model

Array = NDArray[np.floating[Any]]
Progress = Callable[[int, int, str], None]
Call = Callable[[Sequence[str]], Any]
Place = tuple[str | None, int]  # variant and layer


@dataclass(frozen=True)
class TimePlan:
    """How time is taken, and what the model reads: pooling, longest text in tokens, name of the data, seed."""

    latency: LatencyPlan
    pooling: str
    max_length: int | None = None
    dataset: str = ""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Timed:
    """Time per layer of the raw states; `own`: share of the full model's time by variant and layer, where it differs.

    `rows` are for the tidy table.
    """

    latency: Latency
    own: Mapping[Place, float]
    rows: list[dict[str, Any]]

    def caveats(self) -> list[str]:
        """What a reader must know of these times."""
        return self.latency.caveats()


def time_ways(
    model: Model,
    texts: Sequence[str],
    encoded: Encoded,
    variants: Variants,
    plan: TimePlan,
    report: Progress | None = None,
) -> Timed:
    """Milliseconds per text of every layer, and of every other way of reading, against the full model's.

    Ways of one kind (same precision, same inputs) are timed once and share the result: a linear map more or less of a
    pooled state cannot be seen. Both passes take half of the time where there are others.
    """
    kinds = _kinds(variants)
    half = replace(plan.latency, seconds=plan.latency.seconds / (2 if kinds else 1))
    latency = measure_latency(
        model, texts, plan.pooling, variants.translators, half, report, plan.max_length
    )
    rows = latency.rows(plan.dataset, plan.pooling, plan.seed)
    if not kinds:
        return Timed(latency, {}, rows)
    calls: dict[int, Call] = {}
    meaning: dict[int, tuple[list[Way], int]] = {}
    for ways in kinds.values():
        for layer in variants.states[ways[0].name]:
            key = -1 - len(calls)
            calls[key] = _call(model, encoded, variants, ways[0], layer, plan)
            meaning[key] = ways, layer
    calls[model.n_layers] = _embedder(model, model.n_layers, plan.pooling, None, plan.max_length)
    order = np.random.default_rng(half.seed).permutation(len(texts))

    def batch(number: int) -> list[str]:
        places = (number * half.batch_size + np.arange(half.batch_size)) % len(texts)
        return [str(texts[i]) for i in order[places].tolist()]

    found = run_rounds(calls, batch, half, report)
    own: dict[Place, float] = {}
    for row in found.rows(plan.dataset, plan.pooling, plan.seed):
        if row["layer"] not in meaning:
            continue
        ways, layer = meaning[row["layer"]]
        for way in ways:
            rows.append({**row, "layer": layer, "variant": way.name})
            if row["measure"] == "relative_cost":
                own[way.name, layer] = float(row["value"])
    return Timed(latency, own, rows)


def _kinds(variants: Variants) -> dict[tuple[str | None, str], list[Way]]:
    """The ways that take other time than the raw states of their layer, by what decides it."""
    found: dict[tuple[str | None, str], list[Way]] = {}
    for way in variants.ways.values():
        if way.timed_as is not None:
            found.setdefault(way.timed_as, []).append(way)
    return found


def _call(
    model: Model, encoded: Encoded, variants: Variants, way: Way, layer: int, plan: TimePlan
) -> Call:
    """Texts to embeddings in this way, stopped after `layer`."""
    precision = way.source.precision
    used = model if precision is None else encoded.models[precision]
    if way.source.pooling == DITTO:
        return _ditto(model, encoded, layer, plan)
    if way.timed_as == (precision, "states"):
        return _embedder(used, layer, plan.pooling, None, plan.max_length)
    fitted: Mapping[int, LayerTranslator] = variants.fitted[str(way.name)]
    return TranslatedModel(used, fitted[layer], encoded.table, plan.max_length)


def _ditto(model: Model, encoded: Encoded, layer: int, plan: TimePlan) -> Call:
    from probes.capture import ditto_pool

    assert encoded.ditto is not None
    block, head = encoded.ditto

    def embed(texts: Sequence[str]) -> Array:
        found = ditto_pool(model, texts, block, head, [layer], max_length=plan.max_length)
        return model.embed(found[layer])

    return embed
