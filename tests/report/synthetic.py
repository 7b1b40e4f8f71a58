"""Run folders as a real exit-layers run leaves them, from a formula instead of a model.

Quality saturates with depth and width, the translated states are good early, the raw ones late, as in MiniLM on STS-B.
Per-example losses are drawn around it, so that the exit walk has something real to walk.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.registry import MEASURES, Measure, register_measure
from probes.runs import Run
from probes.tables import tidy

FULL = 0.82
CURVES = {
    None: lambda x: 0.55 + 0.45 * x**1.6,
    "centred": lambda x: 0.62 + 0.38 * x**1.3,
    "translated": lambda x: 0.86 + 0.14 * x**0.7,
}
SIZES = {"all": 1500, "fit": 600, "tune": 300, "calibrate": 300, "test": 300}
HOSTILE = '<script>alert(1)</script><img src="http://evil.example/x.png"> [a](javascript:alert(1)) ![x](http://evil.example/y.png) %{x} $x$ \u202eabc'


def _metric(name: str, title: str, unit: str, summary: str) -> None:
    if name not in MEASURES:
        register_measure(Measure(name, title, unit, 0.0, None, "none", summary))


def declare_metrics() -> None:
    """The two layer metrics, registered the way their own module does (which needs torch-free imports only)."""
    try:
        import probes.layers  # noqa: F401
    except ImportError:
        pass
    _metric("effective_rank", "Effective rank", "", "Number of directions the states really use.")
    _metric("anisotropy", "Anisotropy", "", "Mean cosine between states of different texts.")


def quality(variant: str | None, layer: int, dim: int, n_layers: int, d: int) -> float:
    depth = CURVES[variant](layer / n_layers)
    width = 1 - 0.55 * (1 - np.log2(dim / 4) / np.log2(d / 4)) ** 2
    return float(FULL * depth * width)


def grid_rows(n_layers: int, d: int, dataset: str, measure: str) -> list[dict[str, Any]]:
    dims = [2**p for p in range(3, 20) if 2**p < d] + [d]
    rng = np.random.default_rng(0)
    rows = []
    for variant in CURVES:
        for layer in range(n_layers + 1):
            for dim in dims:
                if variant == "translated" and layer == n_layers:
                    continue
                true = quality(variant, layer, dim, n_layers, d)
                for split, n in SIZES.items():
                    half = 0.6 / np.sqrt(n)
                    value = true + (0 if split == "all" else rng.normal(0, half / 3))
                    rows.append({
                        "measure": measure, "site": "exit", "layer": layer, "dim": dim, "pooling": "mean", "dataset": dataset,
                        "split": split, "variant": variant, "value": value, "low": value - half, "high": value + half, "n": n, "seed": 0,
                    })  # fmt: skip
    return rows


def latency_rows(n_layers: int) -> list[dict[str, Any]]:
    rows = []
    full = 1.1 + n_layers * 1.35
    for layer in range(n_layers + 1):
        p50 = 1.1 + layer * 1.35
        rows += [
            {"measure": "latency_p50_ms", "layer": layer, "value": p50, "n": 50},
            {"measure": "latency_p95_ms", "layer": layer, "value": p50 * 1.22 + 0.3, "n": 50},
            {"measure": "relative_cost", "layer": layer, "value": p50 / full, "low": p50 / full * 0.97, "high": p50 / full * 1.03, "n": 50},
        ]  # fmt: skip
    return rows


def metric_rows(n_layers: int, d: int) -> list[dict[str, Any]]:
    rows = []
    for layer in range(n_layers + 1):
        x = layer / n_layers
        rank = d * (0.25 + 0.5 * np.sin(np.pi * min(x * 1.1, 1)))
        cosine = 0.35 + 0.3 * x - 0.5 * x**4
        rows.append(
            {"measure": "effective_rank", "site": "exit", "layer": layer, "value": rank, "n": 1500}
        )
        rows.append({"measure": "anisotropy", "site": "exit", "layer": layer, "value": cosine, "low": cosine - 0.01, "high": cosine + 0.01, "n": 1500})  # fmt: skip
    return rows


def decision_of(n_layers: int, d: int, measure: str, infeasible: bool) -> dict[str, Any]:
    full = quality(None, n_layers, d, n_layers, d)

    def entry(name: str, variant: str | None, layer: int, dim: int) -> dict[str, Any]:
        value = quality(variant, layer, dim, n_layers, d)
        cost = (1.1 + layer * 1.35) / (1.1 + n_layers * 1.35)
        return {
            "name": name,
            "variant": variant,
            "layer": layer,
            "dim": dim,
            "quality": value,
            "share": value / full,
            "relative_cost": cost,
        }

    at = {
        "half": n_layers // 2,
        "two thirds": round(n_layers * 2 / 3),
        "three quarters": round(n_layers * 3 / 4),
        "last": n_layers,
    }
    common = {
        "measure": measure, "min_quality": 0.95, "confidence": 0.95, "guarantee": "asymptotic", "quality_full": full, "pooling": "mean",
        "baselines": [entry(name, None, layer, d) for name, layer in at.items()],
        "caveats": ["The calibrate part has 300 examples; the interval is wide.", "Fit texts are shorter than the data."],
    }  # fmt: skip
    if infeasible:
        empty = dict.fromkeys(
            ("layer", "dim", "variant", "quality", "share", "share_low", "relative_cost", "speedup")
        )
        return {"status": "infeasible", **empty, **common, "reason": "No candidate passed on the calibrate part (n = 300).", "n_needed": 1400, "alternatives": []}  # fmt: skip
    layer, dim = max(1, n_layers // 2), max(8, d // 3 * 2 // 2)
    dim = 2 ** int(np.log2(dim))
    chosen = entry("chosen", "translated", layer, dim)
    chosen.pop("name")
    return {
        "status": "chosen", **chosen, "share_low": chosen["share"] - 0.012, "speedup": 1 / chosen["relative_cost"], **common,
        "alternatives": [entry("more careful", "translated", layer + 1, d), entry("cheaper, not certain", "translated", layer - 1, d)],
    }  # fmt: skip


def make_run(
    parent: Path,
    slug: str = "minilm-stsb",
    *,
    n_layers: int = 6,
    d: int = 384,
    dataset: str = "stsb_dev",
    model: str = "minilm",
    measure: str = "spearman",
    infeasible: bool = False,
    status: str = "finished",
    parts: tuple[str, ...] = ("grid", "latency", "metrics", "decision", "tables"),
) -> Path:
    """One run folder; `parts` says how far it got, `status` how it ended."""
    declare_metrics()
    options = {
        "model": model, "data": dataset, "min_quality": 0.95, "max_loss": None, "confidence": 0.95, "seed": 0, "dtype": "float32",
        "trust_remote_code": False,
    }  # fmt: skip
    run = Run.create(parent, "exit-layers", options, slug=slug)
    run.describe(
        model={
            "name": model,
            "weights_hash": "ab" * 32,
            "n_layers": n_layers,
            "n_heads": 12,
            "d_model": d,
        },
        dataset={
            "name": dataset,
            "kind": "pairs",
            "hash": "cd" * 32,
            "n": 1500,
            "licence": "CC BY-SA 4.0",
        },
    )
    run.progress(3, 7, "measuring the grid")
    rows: list[dict[str, Any]] = []
    if "grid" in parts:
        rows += grid_rows(n_layers, d, dataset, measure)
    if "latency" in parts:
        rows += latency_rows(n_layers)
    if "metrics" in parts:
        rows += metric_rows(n_layers, d)
    if rows:
        run.add(tidy(rows))
    if "tables" in parts:
        write_tables(run, n_layers, d)
    if "decision" in parts:
        run.write_decision(decision_of(n_layers, d, measure, infeasible))
    if status == "finished":
        run.finish()
    elif status != "running":
        run.fail("out of memory in a batch of one text of 100,000 tokens", status)  # type: ignore[arg-type]
    return run.path


def write_tables(run: Run, n_layers: int, d: int) -> None:
    """Chains and share draws; replaced by the shape of probes.exits."""


def break_run(path: Path) -> Path:
    """A run.json that is no JSON, as a crash of a foreign tool would leave it."""
    (path / "run.json").write_text('{"schema": 1, "analysis": "exit-la', encoding="utf-8")
    return path


def many_runs(parent: Path, count: int) -> None:
    """`count` small runs, cheap to make: one is made and its folder is copied by hand."""
    first = make_run(parent, "run-000", parts=("latency", "decision"))
    for at in range(1, count):
        path = parent / f"run-{at:03d}"
        (path / "tables").mkdir(parents=True)
        info = json.loads((first / "run.json").read_text(encoding="utf-8"))
        info["created"] = f"2025-01-01T00:{at // 60:02d}:{at % 60:02d}+00:00"
        (path / "run.json").write_text(json.dumps(info), encoding="utf-8")
        os.link(first / "measurements.parquet", path / "measurements.parquet")


__all__ = ["HOSTILE", "break_run", "declare_metrics", "make_run", "many_runs", "pd"]
