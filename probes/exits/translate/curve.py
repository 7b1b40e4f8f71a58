"""How much more texts would help: held-out quality of a translator by the number of texts it is fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.translate.linear import MIN_TEXTS, TranslatorFitter
from probes.exits.translate.spec import Inputs, LayerTranslator, TranslatorSpec, blocks
from probes.linalg import normalise_rows
from probes.stats import percentile_interval

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
LEAST = 4 * MIN_TEXTS  # texts of which a curve can be made


def learning_curve(
    inputs: Inputs,
    target: Array,
    layer: int,
    spec: TranslatorSpec | None = None,
    rows: IntArray | None = None,
    *,
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean cosine between translated and full embeddings of texts left out, by the number of texts of the fit.

    A fifth of `rows` (None: all), drawn by `seed`, is left out throughout; the rest joins in halves: n/8, n/4, n/2, n.
    One streaming fitter serves all points. Columns: layer, n_texts, value, low, high (95 % over texts), n, seed; in
    [-1, 1], more is better. `InputError` with fewer than 40 texts or for an MLP.
    """
    spec = spec or TranslatorSpec()
    chosen = np.arange(inputs.n) if rows is None else np.asarray(rows)
    if len(chosen) < LEAST:
        raise InputError(f"{len(chosen)} texts came: a learning curve needs {LEAST} or more")
    if spec.map == "mlp":
        raise InputError("a learning curve is made of linear maps: an MLP came")
    order = np.random.default_rng(seed).permutation(chosen)
    out, fit = np.split(order, [len(order) // 5])
    fitter = TranslatorFitter(spec.map)
    found: list[dict[str, Any]] = []
    done = 0
    for size in sizes(len(fit)):
        for block in blocks(fit[done:size]):
            fitter.update(inputs.read(spec, layer, block), _unit(target[block]))
        done = size
        made = LayerTranslator(spec, layer, fitter.fit())(inputs, out)
        value, low, high = _mean(np.einsum("id,id->i", made, _unit(target[out])), draws, seed)
        row = {"layer": layer, "n_texts": size, "value": value, "low": low, "high": high}
        found.append({**row, "n": len(out), "seed": seed})
    return pd.DataFrame(found)


def sizes(n: int) -> list[int]:
    """An eighth, a quarter, a half of n, and n, as far as they can be fitted.

    >>> sizes(100), sizes(32)
    ([12, 25, 50, 100], [16, 32])
    """
    return [n // part for part in (8, 4, 2, 1) if n // part >= MIN_TEXTS]


def _mean(values: Array, draws: int, seed: int) -> tuple[float, float, float]:
    picks = np.random.default_rng(seed).integers(0, len(values), size=(draws, len(values)))
    low, high = percentile_interval(values[picks].mean(axis=1))
    return float(values.mean()), float(low), float(high)


def _unit(rows: Array) -> Array:
    return normalise_rows(np.asarray(rows, np.float64))
