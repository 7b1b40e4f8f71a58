"""Run folders as a layer-quality run leaves them, from a formula instead of a model.

Quality peaks at two thirds of the depth. Each diagnostic follows quality with a planted strength, `AGREEMENT`; the
block with the least influence lies just behind the peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic_collapse import declared
from synthetic_runs import HOSTILE

from probes.runs import Run
from probes.tables import tidy

Row = dict[str, Any]
AGREEMENT = {  # rank correlation with quality over layers
    "effective_rank": 0.9,
    "effective_rank_uncentred": 0.2,
    "spectral_entropy_rank": 0.85,
    "participation_ratio": 0.6,
    "top_share_1": -0.75,
    "top_share_3": -0.7,
    "top_share_10": -0.4,
    "isoscore": 0.3,
    "anisotropy": -0.3,
    "uniformity": -0.8,
    "centroid_distance": 0.1,
    "dataset_entropy": 0.5,
    "coding_rate": 0.45,
    "intrinsic_dimension": 0.0,
    "infonce": -0.9,
    "dime": 0.7,
    "lidar": 0.8,
    "alignment": -0.2,
    "prompt_entropy": 0.65,
    "prompt_entropy_without_first": 0.6,
    "curvature": -0.15,
    "smoothness": 0.05,
    "dc_share": -0.5,
}
TWO_VIEWS, VIEW = (
    ("infonce", "dime", "lidar", "alignment"),
    "crop",
)  # and the view they were measured with
HALF = 0.25  # half an interval of the agreement
PARTS = ("metrics", "quality", "agreement", "blocks", "tables")
HEADS = 12


def quality(layer: int, n_layers: int, dataset: str = "docstrings") -> float:
    """Quality by labels: highest at two thirds of the depth."""
    shift = 0.0 if dataset == "docstrings" else -0.1
    return 0.7 + shift - 0.5 * (layer / n_layers - 2 / 3) ** 2


def _metric(name: str, layer: int, n_layers: int, trained: bool) -> float:
    follow = AGREEMENT[name] if trained else 0.0
    noise = np.random.default_rng([sum(map(ord, name)), layer]).normal()
    shape = follow * (quality(layer, n_layers) - 0.6) + 0.02 * (1 - abs(follow)) * noise
    return (50 if "rank" in name else 1) * (1 + 2 * shape) * (1 if trained else 0.8)


def metric_rows(n_layers: int, datasets: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for dataset in datasets:
        for name in AGREEMENT:
            for layer in range(n_layers + 1):
                view = f"view={VIEW}" if name in TWO_VIEWS else None
                for variant in (view,) if view else (None, "untrained"):
                    value = _metric(name, layer, n_layers, variant != "untrained")
                    half = 0.02 * abs(value)
                    where = {"site": "exit", "layer": layer, "dataset": dataset, "variant": variant}
                    span = {"value": value, "low": value - half, "high": value + half, "n": 500}
                    rows.append({"measure": name, **where, **span})
    return rows


def quality_rows(n_layers: int, datasets: Sequence[str]) -> list[Row]:
    return [
        {
            "measure": "ndcg_at_10", "site": "exit", "layer": layer, "dim": 384, "split": "all",
            "dataset": dataset, "value": value, "low": value - 0.02, "high": value + 0.02, "n": 400,
        }
        for dataset in datasets
        for layer in range(n_layers + 1)
        for value in [quality(layer, n_layers, dataset)]
    ]  # fmt: skip


def agreement_rows(n_layers: int, datasets: Sequence[str]) -> list[Row]:
    return [
        {
            "measure": "label_agreement", "variant": f"{name}, {VIEW}" if name in TWO_VIEWS else name,
            "dataset": dataset, "value": value,
            "low": max(-1.0, value - HALF), "high": min(1.0, value + HALF), "n": n_layers + 1,
        }
        for dataset in datasets
        for name, value in AGREEMENT.items()
    ]  # fmt: skip


def influence(block: int, n_layers: int) -> float:
    """How much a block changes its states: least just behind two thirds of the depth."""
    return 0.05 + 0.4 * ((block + 0.5) / n_layers - 0.7) ** 2


def block_rows(n_layers: int, datasets: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for dataset in datasets:
        for block in range(n_layers):
            value = influence(block, n_layers)
            where = {"block": block, "dataset": dataset, "n": 500}
            span = {"value": value, "low": value - 0.01, "high": value + 0.01}
            rows.append({"measure": "block_influence", **where, **span})
            for head in (None, *range(HEADS)):
                gain = 0.5 + 0.4 * block / n_layers + (0.0 if head is None else 0.03 * (head - 6))
                rows.append(
                    {"measure": "high_frequency_gain", **where, "head": head, "value": gain}
                )
    return rows


def cka_table(n_layers: int, datasets: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {"dataset": dataset, "layer_a": a, "layer_b": b, "value": np.exp(-abs(a - b) / n_layers), "n": 500, "seed": 0}
        for dataset in datasets
        for a in range(n_layers + 1)
        for b in range(n_layers + 1)
    )  # fmt: skip


def spectra_table(n_layers: int, datasets: Sequence[str]) -> pd.DataFrame:
    frames: list[pd.DataFrame] = []
    ranks = np.arange(1, 385)
    for dataset in datasets:
        for layer in range(n_layers + 1):
            values = 40 * ranks ** -(0.4 + 0.5 * layer / n_layers)
            what = {"dataset": dataset, "layer": layer, "rank": ranks, "singular_value": values}
            frames.append(pd.DataFrame({**what, "share": values**2 / (values**2).sum()}))
    return pd.concat(frames, ignore_index=True)


def agreement_table(n_layers: int, datasets: Sequence[str]) -> pd.DataFrame:
    """How often random curves agree as strongly: rarely for what agrees strongly."""
    rows = [
        {
            "dataset": dataset,
            "metric": f"{name}, {VIEW}" if name in TWO_VIEWS else name,
            "value": value,
            "low": max(-1.0, value - HALF),
            "high": min(1.0, value + HALF),
            "p": float(np.exp(-6 * value**2)),
            "n": n_layers + 1,
            "seed": 0,
        }
        for dataset in datasets
        for name, value in AGREEMENT.items()
    ]
    return pd.DataFrame(rows)


def drops_table(n_layers: int, datasets: Sequence[str]) -> pd.DataFrame:
    """Of every length the stretch of least influence, the last blocks and a random one; cost grows with influence."""
    rows: list[Row] = []
    rng = np.random.default_rng(0)
    for dataset in datasets:
        full = quality(n_layers, n_layers, dataset)
        for count in range(1, n_layers // 2 + 1):
            lost = {
                first: sum(influence(block, n_layers) for block in range(first, first + count))
                for first in range(n_layers - count + 1)
            }
            best = min(lost, key=lambda first: lost[first])
            random = int(rng.choice([first for first in lost if first != best]))
            for first in dict.fromkeys((best, n_layers - count, random)):
                share = 1 - 0.35 * lost[first]
                value = full * share
                rows.append({
                    "dataset": dataset, "first": first, "count": count, "chosen": first == best,
                    "influence": lost[first], "measure": "ndcg_at_10", "quality": value,
                    "low": value - 0.02, "high": value + 0.02, "share": share,
                    "share_low": share - 0.02, "share_high": share + 0.02,
                    "relative_cost": 1 - count / n_layers, "n": 400, "seed": 0,
                })  # fmt: skip
    return pd.DataFrame(rows)


_TABLES = {
    "cka": cka_table,
    "spectra": spectra_table,
    "agreement": agreement_table,
    "drops": drops_table,
}
_ROWS = {
    "metrics": metric_rows,
    "quality": quality_rows,
    "agreement": agreement_rows,
    "blocks": block_rows,
}


def write_quality_run(
    parent: Path,
    slug: str = "minilm-quality",
    *,
    n_layers: int = 6,
    datasets: Sequence[str] = ("docstrings",),
    status: str = "finished",
    parts: Sequence[str] = PARTS,
    hostile: bool = False,
) -> Path:
    """One run folder over layers 0 to `n_layers`; `parts` says how far it got."""
    model = HOSTILE if hostile else "minilm"
    datasets = [f"{name} {HOSTILE}" for name in datasets] if hostile else datasets
    options = {"model": model, "data": datasets[0], "seed": 0}
    run = Run.create(parent, "layer-quality", options, slug=slug)
    run.describe(model={"name": model, "n_layers": n_layers, "n_heads": HEADS, "d_model": 384})
    for name in datasets:
        run.describe(dataset={"name": name, "kind": "retrieval", "hash": "cd" * 32, "n": 400})
    run.progress(1, 4, "metrics of layers")
    rows = [row for part in parts if part in _ROWS for row in _ROWS[part](n_layers, datasets)]
    if rows:
        with declared([row["measure"] for row in rows]):
            run.add(tidy(rows))
    if "tables" in parts:
        for name, make in (
            ("cka", cka_table),
            ("spectra", spectra_table),
            ("agreement", agreement_table),
            ("drops", drops_table),
        ):
            run.write_table(name, make(n_layers, datasets))
    if status == "finished":
        run.finish()
    elif status != "running":
        run.fail("out of memory", status)  # type: ignore[arg-type]
    return run.path
