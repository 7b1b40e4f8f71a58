"""Run folders as a concept-depth run leaves them, from a formula instead of a model.

Every concept has a planted curve: at chance until its `onset`, at its `top` after it. Depths, tests, erasure and the
other tables follow from it, so that a test can say what a figure must show. `coin-flip` never leaves chance and
`topics` never rises above its bag of words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic_concept_tables import EXAMPLES, FRAMES, Planted, Row
from synthetic_runs import HOSTILE

from probes.probing import measures as _registered  # noqa: F401  registers what a run may hold
from probes.runs import Run, RunView
from probes.tables import tidy

CONDITIONS = {
    "noise=prepend": 0.04,
    "noise=swap": 0.12,
    "noise=shuffle": 0.20,
    "weights=int8": 0.003,
    "weights=int4": 0.07,
    "dtype=bfloat16": 0.001,
    "template=1": 0.02,
    "pooling=last": 0.05,
}
SHOTS = (4, 8, 16, 32, 64, 128)
TABLES = tuple(FRAMES)
ALL_PARTS = ("curves", "controls", "conditions", "more", "depths", "tables")


CONCEPTS = (
    Planted("cities", "factual", top=0.96, onset=0.45, bag=0.52),
    Planted("elements", "factual", n=400, top=0.88, onset=0.55, bag=0.50),
    Planted("companies", "factual", top=0.84, onset=0.62, bag=0.57),
    Planted("places", "factual", "numbers", n=500, classes=0, top=0.72, onset=0.3, bag=0.12),
    Planted("years", "factual", "numbers", n=500, classes=0, top=0.93, onset=0.12, bag=0.35),
    Planted("sentiment", "emotional", n=2000, top=0.90, onset=0.35, bag=0.79),
    Planted("emotion", "emotional", n=1500, classes=6, top=0.68, onset=0.42, bag=0.49),
    Planted("coin-flip", "inferential", n=400, top=0.51, onset=0.5, bag=0.48),
    Planted("entity-tracking", "inferential", n=800, classes=4, top=0.62, onset=0.7, bag=0.27),
    Planted("entailment", "inferential", "pairs", n=900, classes=3, top=0.71, onset=0.58, bag=0.41),
    Planted("agreement", "linguistic", "minimal-pairs", n=700, top=0.97, onset=0.15, bag=0.50),
    Planted(
        "part-of-speech", "linguistic", "tokens", n=2000, classes=12, top=0.94, onset=0.03, bag=0.62
    ),
    Planted("word-in-context", "linguistic", "pairs", n=638, top=0.66, onset=0.38, bag=0.53),
    Planted("topics", "linguistic", n=1000, classes=5, top=0.90, onset=0.08, bag=0.93),
)
SMALL = tuple(
    c for c in CONCEPTS if c.name in ("cities", "years", "sentiment", "coin-flip", "agreement")
)


def write_concept_run(
    parent: Path,
    slug: str = "smollm2-concepts",
    *,
    concepts: Sequence[Planted] = CONCEPTS,
    n_layers: int = 30,
    model: str = "smollm2",
    status: str = "finished",
    parts: Sequence[str] = ALL_PARTS,
    tables: Sequence[str] = TABLES,
    hostile: bool = False,
) -> Path:
    """One run folder of `concepts` over layers 0 to `n_layers`; `parts` and `tables` say how far it got.

    With `hostile` every foreign text (names of concept, family, dataset and model, notes, examples) tries to break out.
    """
    if hostile:
        concepts = [
            replace(c, name=f"{c.name} {HOSTILE}", family=f"{c.family} {HOSTILE}") for c in concepts
        ]
        model = HOSTILE
    options = {"model": model, "concepts": "default", "seed": 0, "confidence": 0.95}
    run = Run.create(parent, "concept-depth", options, slug=slug)
    width = {"n_layers": n_layers, "n_heads": 9, "d_model": 576}
    run.describe(model={"name": model, "weights_hash": "ab" * 32, **width})
    for at, concept in enumerate(concepts):
        entry = {"kind": concept.kind, "hash": f"{at:02d}" * 32, "n": concept.n}
        run.describe(dataset={"name": concept.dataset, **entry})
    run.progress(2, 5, "probing layer by layer")
    rows = [
        row for part in parts if part in _ROWS for c in concepts for row in _ROWS[part](c, n_layers)
    ]
    if rows:
        run.add(tidy(rows))
    if "tables" in parts:
        for name in tables:
            _write_table(run, name, FRAMES[name](list(concepts), n_layers), len(concepts))
    if status == "finished":
        run.finish()
    elif status != "running":
        run.fail("out of memory at layer 12", status)  # type: ignore[arg-type]
    return run.path


def write_small_concept_run(parent: Path, slug: str = "minilm-concepts", **more: Any) -> Path:
    """The same with five concepts and six blocks."""
    return write_concept_run(
        parent, slug, **{"concepts": SMALL, "n_layers": 6, "model": "minilm", **more}
    )


def concept_view(parent: Path, **more: Any) -> RunView:
    """A fresh run, opened for reading."""
    return RunView(write_concept_run(parent, **more))


def _row(concept: Planted, measure: str, layer: int | None, value: float, **more: Any) -> Row:
    where = {"concept": concept.name, "dataset": concept.dataset, "pooling": "mean"}
    size = {"n": concept.n, "seed": 0}
    site = {"site": None if layer is None else "exit", "layer": layer}
    return {"measure": measure, **where, **site, **size, "value": value, **more}


def _noise(concept: Planted, salt: str, n_layers: int) -> np.ndarray:
    """Small seeded deviations, (layer,); the curve itself has none, so that its depth is the planted one."""
    seed = sum(map(ord, concept.name[:12] + salt))
    return np.random.default_rng(seed).normal(0, 0.25 * concept.half(0.5), n_layers + 1)


def _curve(
    concept: Planted, n_layers: int, variant: str | None, strength: float, **more: Any
) -> list[Row]:
    noise = np.zeros(n_layers + 1) if variant is None else _noise(concept, variant, n_layers)
    rows: list[Row] = []
    for layer in range(n_layers + 1):
        value = float(min(1.0, concept.value(layer, n_layers, strength) + noise[layer]))
        span = {"variant": variant, **concept.spread(value), **more}
        rows.append(_row(concept, concept.measure, layer, value, **span))
    return rows


def curve_rows(concept: Planted, n_layers: int) -> list[Row]:
    """The probe itself, with its other measures."""
    rows = _curve(concept, n_layers, None, 1.0)
    extra = [{**row, "measure": "spearman"} for row in rows] if concept.kind == "numbers" else []
    if concept.kind not in ("numbers", "minimal-pairs"):
        extra = [
            {**row, "measure": name} for row in rows for name in ("balanced_accuracy", "auroc")
        ]
    return [*rows, *extra]


def control_rows(concept: Planted, n_layers: int) -> list[Row]:
    """Shuffled labels, control task with selectivity, untrained weights and the bag of words."""
    rows = _curve(concept, n_layers, "shuffled", 0.0)
    rows += _curve(concept, n_layers, "untrained", 0.25)
    if concept.kind in ("classes", "tokens"):
        task = _curve(concept, n_layers, "control-task", 0.35)
        rows += task
        for layer, row in enumerate(task):
            gain = concept.value(layer, n_layers) - row["value"]
            rows.append(
                _row(concept, "selectivity", layer, gain, low=gain - 0.03, high=gain + 0.03)
            )
    bag = {"variant": "bag-of-words", "pooling": None, **concept.spread(concept.bag)}
    return [*rows, _row(concept, concept.measure, None, concept.bag, **bag)]


def condition_rows(concept: Planted, n_layers: int) -> list[Row]:
    """The curve under every condition, with its depths."""
    rows: list[Row] = []
    for name, loss in CONDITIONS.items():
        where = {"pooling": "last"} if name == "pooling=last" else {}
        rows += _curve(concept, n_layers, name, 1 - loss, **where)
        if concept.readable:
            depth = concept.depth(n_layers, 1 - loss)
            span = {"low": max(0, depth - 2), "high": min(n_layers, depth + 2), "variant": name}
            rows.append(_row(concept, "robust_depth", None, depth, **span, **where))
    return rows


def more_rows(concept: Planted, n_layers: int) -> list[Row]:
    """Code length, few-shot, directions, magnitude and preference, where the concept has them."""
    rows: list[Row] = []
    for layer in range(n_layers + 1):
        rise = concept.value(layer, n_layers) - concept.chance
        if concept.kind != "numbers":
            rows += _code_rows(concept, layer, rise)
            cosine = 0.9 * rise / max(concept.top - concept.chance, 0.1)
            rows.append(
                _row(
                    concept,
                    "direction_cosine",
                    layer,
                    cosine,
                    low=cosine - 0.05,
                    high=min(1, cosine + 0.05),
                )
            )
            rows.append(
                _row(
                    concept, "direction_cosine", layer, 0.0, low=-0.09, high=0.09, variant="random"
                )
            )
        else:
            for variant, share in (("linear", 0.7), ("log", 0.9), ("shuffled", 0.0)):
                value = share * rise
                span = {"low": value - 0.04, "high": value + 0.04, "variant": variant}
                rows.append(_row(concept, "magnitude_correlation", layer, value, **span))
        if concept.kind == "minimal-pairs":
            value = 0.5 + 0.42 * (layer / n_layers) ** 2
            rows.append(_row(concept, "preference", layer, value, **concept.spread(value)))
        if concept.kind == "classes":
            for shots in SHOTS:
                value = concept.value(layer, n_layers, shots / (shots + 20))
                span = {"low": value - 0.05, "high": value + 0.05, "variant": f"shots={shots}"}
                rows.append(_row(concept, "accuracy", layer, value, **span))
    return rows


def _code_rows(concept: Planted, layer: int, rise: float) -> list[Row]:
    compression = 1 + 6 * max(rise, 0.0) ** 1.5
    uniform = concept.n * np.log2(concept.classes)
    rows: list[Row] = []
    for measure, value in (("mdl", uniform / compression), ("compression", compression)):
        rows.append(_row(concept, measure, layer, value, low=0.95 * value, high=1.05 * value))
    return rows


def depth_rows(concept: Planted, n_layers: int) -> list[Row]:
    """The depth numbers; a concept that never leaves chance has none."""
    if not concept.readable:
        return []
    depth, peak = concept.depth(n_layers), concept.peak(n_layers)
    rows = [
        _row(
            concept,
            "robust_depth",
            None,
            depth,
            low=max(0, depth - 2),
            high=min(n_layers, depth + 1),
        ),
        _row(concept, "peak_layer", None, peak, low=max(0, peak - 3), high=min(n_layers, peak + 4)),
        _row(concept, "converging_point", None, 1.0),
        _row(
            concept,
            "area_under_curve",
            None,
            1 - concept.onset,
            low=0.95 - concept.onset,
            high=1.05 - concept.onset,
        ),
    ]
    if concept.onset > 0.1:
        rows.append(_row(concept, "jumping_point", None, max(1, depth - 3) / n_layers))
    if concept.kind != "numbers":
        rows.append(_row(concept, "mdl_depth", None, peak, low=peak - 1, high=peak))
    return rows


_ROWS: dict[str, Callable[[Planted, int], list[Row]]] = {
    "curves": curve_rows,
    "controls": control_rows,
    "conditions": condition_rows,
    "more": more_rows,
    "depths": depth_rows,
}


def _write_table(run: Run, name: str, frame: pd.DataFrame, concepts: int) -> None:
    """A table of the run; predictions with one row group per layer."""
    if name == "predictions":
        path = run.path / "tables" / "predictions.parquet"
        frame.to_parquet(
            path, index=False, row_group_size=concepts * EXAMPLES, write_page_checksum=True
        )
    else:
        run.write_table(name, frame)
