"""Translators beside each other: raw states, every translator, model2vec, the full model; symmetric and asymmetric.

Symmetric: every text is embedded by the cut model. Asymmetric: queries (or the first of two texts) are, documents are
embedded by the full model, as where an index exists already. Judged on everything outside the fit part.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.exits.build import Variants
from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.encoded import Encoded
from probes.exits.material import Material
from probes.exits.resample import Resamples
from probes.exits.translate import Inputs, LayerTranslator, Translator, learning_curve
from probes.exits.translate.curve import LEAST
from probes.linalg import normalise_rows
from probes.stats import percentile_interval

if TYPE_CHECKING:
    from probes.models import Model

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

RAW, FULL, MODEL2VEC = "raw", "full model", "model2vec"
SYMMETRIC, ASYMMETRIC = "symmetric", "asymmetric"


@dataclass(frozen=True, eq=False)
class PeerPlan:
    """Bootstrap draws, seed, the study's pooling; `model` is what model2vec is distilled from (None: left out)."""

    draws: int = 1000
    seed: int = 0
    pooling: str = "mean"
    model: Model | None = None


@dataclass(frozen=True, eq=False)
class _Peer:
    """One line: its layer, name, states (texts, d), which translator made them, and how it is exported."""

    layer: int
    spec: str
    states: Array
    map: Translator | None = None
    exportable: bool = True


@dataclass(frozen=True, eq=False)
class _Judge:
    """Quality of states on the rows outside the fit part, and under resamples of them, which all lines share."""

    material: Material
    full: Array  # (texts, d)
    rows: IntArray
    resamples: Resamples

    @classmethod
    def of(cls, material: Material, full: Array, plan: PeerPlan) -> _Judge:
        rows = np.sort(np.concatenate([r for name, r in material.parts.items() if name != "fit"]))
        drawn = Resamples.make(len(rows), plan.draws, plan.seed, material.task.clusters[rows])
        return cls(material, full, rows, drawn)

    def quality(self, states: Array, use: str) -> Array:
        """(1 + draws,): of the rows, then of every resample."""
        task: Any = self.material.task
        if use == ASYMMETRIC:
            name = "documents" if task.kind == "retrieval" else "b"
            moved = {name: getattr(task, name) + len(states)}
            task, states = replace(task, **moved), np.concatenate([states, self.full])
        cells = task.score(states, [states.shape[1]], self.material.parts["fit"])[task.primary]
        value = task.estimate(task.primary, cells, self.rows)
        drawn = task.draws(task.primary, cells, self.rows, self.resamples)[0]
        return np.concatenate([value, drawn])


def peer_tables(
    material: Material,
    encoded: Encoded,
    variants: Variants,
    scores: CandidateScores,
    plan: PeerPlan,
) -> dict[str, pd.DataFrame]:
    """`translators` and `translator_curve`; empty where no translator was fitted.

    `translators`: layer, spec, use, quality, low, high, share (of the full model's quality), over_raw (difference in
    share to the raw states of the same layer and use; model2vec: to raw layer 0) with over_raw_low and over_raw_high,
    n, r2, n_fit, exportable, seed. Intervals: 95 %, paired bootstrap over clusters of examples.

    `translator_curve`: held-out cosine by the number of fit texts, at half the depth, for every linear translator.
    """
    if not variants.fitted:
        return {}
    raw: Any = variants.states[None]
    full = normalise_rows(np.asarray(raw[scores.full.layer][: material.own], np.float64))
    judge = _Judge.of(material, full, plan)
    whole = judge.quality(full, SYMMETRIC)
    rows: list[dict[str, Any]] = []
    beside: dict[str, Array] = {}
    for peer in _peers(material, variants, full, scores.full, plan):
        for use in _uses(material, peer, full):
            drawn = judge.quality(peer.states, use)
            if peer.spec == RAW:
                beside = {**beside, use: drawn}
            rows.append(_row(peer, use, drawn, beside.get(use), whole, judge, plan.seed))
    tables = {"translators": pd.DataFrame(rows)}
    curve = _curves(material, encoded, variants, plan)
    return tables if curve.empty else {**tables, "translator_curve": curve}


def _peers(
    material: Material, variants: Variants, full: Array, last: Candidate, plan: PeerPlan
) -> Iterator[_Peer]:
    """Layer by layer, raw first."""
    own = {name: made for name, made in variants.fitted.items() if _of_own_states(variants, name)}
    raw: Any = variants.states[None]
    for layer in sorted(raw):
        if layer == last.layer:
            yield _Peer(layer, FULL, full)
            continue
        yield _Peer(layer, RAW, np.asarray(raw[layer][: material.own], np.float64))
        if layer == 0 and plan.model is not None:
            distilled = distil(plan.model)
            if distilled is not None:
                yield _Peer(0, MODEL2VEC, distilled(material.texts[: material.own]))
        for name, made in own.items():
            if layer in made:
                states: Any = variants.states[name]
                held = np.asarray(states[layer][: material.own], np.float64)
                one = made[layer].map
                kept = one if isinstance(one, Translator) else None
                exportable = variants.ways[name].is_exportable
                yield _Peer(layer, made[layer].spec.name, held, kept, exportable)


def _of_own_states(variants: Variants, name: str) -> bool:
    source = variants.ways[name].source
    return source.pooling is None and source.precision is None


def _uses(material: Material, peer: _Peer, full: Array) -> tuple[str, ...]:
    """A probe is no comparison of texts, and model2vec has axes of its own: both know symmetric use alone."""
    shared = peer.states.shape[1] == full.shape[1] and peer.spec not in (MODEL2VEC, FULL)
    both = shared and material.task.kind != "classification"
    return (SYMMETRIC, ASYMMETRIC) if both else (SYMMETRIC,)


def _row(
    peer: _Peer, use: str, drawn: Array, raw: Array | None, whole: Array, judge: _Judge, seed: int
) -> dict[str, Any]:
    low, high = (float(bound) for bound in percentile_interval(drawn[1:]))
    quality, known = float(drawn[0]), bool(whole[0] > 0)
    row: dict[str, Any] = {"layer": peer.layer, "spec": peer.spec, "use": use, "quality": quality}
    row |= {"low": low, "high": high, "share": quality / float(whole[0]) if known else None}
    over: tuple[float | None, ...] = (None, None, None)
    if raw is not None and known and peer.spec not in (RAW, FULL):
        gain = (drawn - raw) / whole[0]
        bounds = percentile_interval(gain[1:])
        over = float(gain[0]), float(bounds[0]), float(bounds[1])
    row |= dict(zip(("over_raw", "over_raw_low", "over_raw_high"), over, strict=True))
    fit = peer.map
    about = {"r2": None if fit is None else fit.r2, "n_fit": None if fit is None else fit.n}
    return {**row, "n": len(judge.rows), **about, "exportable": peer.exportable, "seed": seed}


def _curves(
    material: Material, encoded: Encoded, variants: Variants, plan: PeerPlan
) -> pd.DataFrame:
    rows = material.fit_rows
    if len(rows) < LEAST:
        return pd.DataFrame()
    raw: Any = variants.states[None]
    target = np.asarray(raw[max(encoded.pooled)])
    inputs: Inputs = encoded.inputs(plan.pooling)
    found: list[pd.DataFrame] = []
    for name, made in variants.fitted.items():
        if not _of_own_states(variants, name):
            continue
        layer = _middle(made, max(encoded.pooled))
        spec = made[layer].spec
        curve = learning_curve(inputs, target, layer, spec, rows, seed=plan.seed)
        found.append(curve.assign(spec=spec.name))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _middle(made: Mapping[int, LayerTranslator], depth: int) -> int:
    return min(made, key=lambda layer: abs(layer - depth / 2))


def distil(model: Model) -> Callable[[Sequence[str]], Array] | None:
    """model2vec distilled from `model` at its own width; None, with a warning, where its library cannot."""
    try:
        from model2vec.distill import (  # pyright: ignore[reportMissingImports]
            distill_from_model,
        )
    except ImportError:
        return None
    try:
        static = distill_from_model(
            copy.deepcopy(model.hf_model),
            model.tokenizer,
            device="cpu",
            pca_dims=model.d_model,
            quantize_to="float32",
        )
    except Exception as error:  # what a library of another age cannot read does not end a study
        warnings.warn(f"model2vec is left out of the comparison: {error}", stacklevel=2)
        return None
    return lambda texts: np.asarray(static.encode(list(texts)), np.float64)
