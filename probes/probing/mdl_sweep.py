"""The online code of a concept on every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from probes.errors import InputError
from probes.probing.base import FloatArray
from probes.probing.crossed import INTERVAL, crossed_mean
from probes.probing.linear import DEFAULT_CS
from probes.probing.mdl import PORTIONS, MDLProbe
from probes.probing.questions import concept as codes_of
from probes.probing.questions import group_codes
from probes.probing.rows import Place, read_layer, shared_layers
from probes.stats import Estimate
from probes.tables import tidy

ORDERS = 4


def mdl_sweep(
    states: Mapping[int, Any],
    labels: Any,
    *,
    groups: Any = None,
    seed: int = 0,
    orders: int = ORDERS,
    layers: Sequence[int] | None = None,
    Cs: Sequence[float] = DEFAULT_CS,
    portions: Sequence[float] = PORTIONS,
    confidence: float = 0.95,
    site: str = "exit",
    dataset: str | None = None,
    concept: str | None = None,
    pooling: str | None = None,
    split: str | None = None,
    variant: str | None = None,
    device: str = "cpu",
) -> tuple[pd.DataFrame, FloatArray]:
    """Code length of the labels given each layer's states, averaged over several orders of sending them.

    Parameters
    ----------
    states : layer -> (n, d) states, read one layer at a time. labels : (n,) classes. groups : (n,), sent together.
    orders : random orders of the rows, the same for all layers. The order matters about as much as the examples
    do: with one order there is no interval. Cs, portions, device : as for `MDLProbe`.
    concept, dataset, site, pooling, split, variant : written into the rows. A control is a second call, with permuted
    labels and variant="shuffled", say.

    Returns
    -------
    Tidy table with `mdl` (bits, down is better) and `compression` (n log₂ K / mdl, above 1 where something was learnt)
    per layer, interval over orders and examples; and bits (layer, n): what each example cost, mean over the orders,
    layers ascending, whose sum over examples is `mdl`. `attrs["interval"]` and `attrs["notes"]` as for `sweep`.

    Raises `DataError` or `InputError` for labels, groups or states that do not fit, `NonFiniteError` for NaN in
    states. See also `MDLProbe`. Paper: Voita & Titov 2020 (arXiv 2003.12298).

    >>> rng = np.random.default_rng(0)
    >>> y = rng.permutation(np.arange(200) % 2)
    >>> noise, signal = rng.normal(size=(2, 200, 4))
    >>> signal[:, 0] += 4 * y
    >>> table, bits = mdl_sweep({0: noise, 1: signal}, y, orders=2)
    >>> (table[table.measure == "compression"].value > 2).tolist(), bits.shape
    ([False, True], (2, 200))
    """
    if orders < 1:
        raise InputError(f"orders is {orders}: one or more are needed, four give an interval")
    own = codes_of(concept, labels)
    n, K = len(own.y), own.n_classes
    grouped = group_codes(groups, n)
    probe = MDLProbe(Cs=Cs, portions=portions, device=device)
    place = Place(site, dataset, concept, pooling, split)
    rows: list[dict[str, Any]] = []
    bits: list[FloatArray] = []
    for layer in shared_layers({"the concept": states}, layers):
        X = read_layer(states, layer, "the states", n)
        each = np.stack(
            [
                _seeded(probe, seed, order).online_code(X, own.y, K, grouped).bits
                for order in range(orders)
            ]
        )  # (order, n)
        found = crossed_mean(
            each, grouped, confidence=confidence, seed=seed, bounds=(0.0, float("inf"))
        )
        length, compression = _estimates(found, float(np.log2(K)))
        rows.append(place.row("mdl", layer, variant, length))
        rows.append(place.row("compression", layer, variant, compression))
        bits.append(each.mean(axis=0))
    table = tidy(rows)
    notes = ["one order of sending: no interval"] if orders == 1 else []
    table.attrs.update(interval=INTERVAL.format(draw="order of sending"), notes=notes)
    return table, np.stack(bits)


def _seeded(probe: MDLProbe, seed: int, order: int) -> MDLProbe:
    """The probe with an own seed for every order, which other seeds of the sweep do not share."""
    copy: Any = clone(probe)
    copy.random_state = int(np.random.SeedSequence((seed, order)).generate_state(1)[0])
    return copy


def _estimates(mean: Estimate, uniform: float) -> tuple[Estimate, Estimate]:
    """Code length and compression from the mean bits of an example; `uniform` log₂ K is that of a guess."""

    def times(bound: float | None) -> float | None:
        return None if bound is None else bound * mean.n

    def over(bound: float | None) -> float | None:
        return None if not bound else uniform / bound

    length = Estimate(mean.value * mean.n, times(mean.low), times(mean.high), mean.n, mean.seed)
    ratio = Estimate(uniform / mean.value, over(mean.high), over(mean.low), mean.n, mean.seed)
    return length, ratio
