"""Run folders as a real exit-layers run leaves them, from a formula instead of a model.

Quality saturates with depth and width, translated states are good early and raw ones late, as in MiniLM on STS-B.
The evidence (chains, share draws, losses) is drawn around it, and the decision is what the real walk makes of it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probes.exits.walk import Budget, Walk, walk_chains
from probes.registry import MEASURES, Measure, register_measure
from probes.runs import Run
from probes.tables import tidy

FULL = 0.82
VARIANTS = (None, "centred", "translated")
SIZES = {"all": 1500, "fit": 600, "tune": 300, "calibrate": 300, "test": 300}
HOSTILE = (
    '<script>alert(1)</script><img src="http://evil.example/x.png"> [a](javascript:alert(1)) '
    "![x](http://evil.example/y.png) %{x} $x$ \u202eabc"
)
ALL_PARTS = ("grid", "latency", "metrics", "decision", "tables")


def quality(variant: str | None, layer: int, dim: int, n_layers: int, d: int) -> float:
    """True quality of a candidate."""
    x = layer / n_layers
    depth = {
        None: 0.55 + 0.45 * x**1.6,
        "centred": 0.62 + 0.38 * x**1.3,
        "translated": 0.86 + 0.14 * x**0.7,
    }[variant]
    width = 1 - 0.55 * (1 - np.log2(dim / 4) / np.log2(d / 4)) ** 3
    return float(FULL * depth * width)


def milliseconds(layer: int) -> float:
    return 1.1 + layer * 1.35


def cells(n_layers: int, d: int) -> list[tuple[str | None, int, int]]:
    """Every candidate; a last layer is never translated."""
    dims = [2**p for p in range(3, 20) if 2**p < d] + [d]
    return [
        (variant, layer, dim)
        for variant in VARIANTS
        for layer in range(n_layers + (variant != "translated"))
        for dim in dims
    ]


def grid_rows(n_layers: int, d: int, dataset: str, measure: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for variant, layer, dim in cells(n_layers, d):
        true = quality(variant, layer, dim, n_layers, d)
        for split, n in SIZES.items():
            half = 0.6 / np.sqrt(n)
            value = true + (0 if split == "all" else rng.normal(0, half / 3))
            where = {"site": "exit", "layer": layer, "dim": dim, "pooling": "mean"}
            what = {"measure": measure, "dataset": dataset, "split": split, "variant": variant}
            span = {"value": value, "low": value - half, "high": value + half, "n": n, "seed": 0}
            rows.append({**where, **what, **span})
    return rows


def latency_rows(n_layers: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for layer in range(n_layers + 1):
        p50 = milliseconds(layer)
        share = p50 / milliseconds(n_layers)
        numbers = {
            "latency_p50_ms": p50,
            "latency_p95_ms": p50 * 1.22 + 0.3,
            "relative_cost": share,
        }
        rows += [
            {"measure": name, "layer": layer, "value": value, "n": 50}
            for name, value in numbers.items()
        ]
    return rows


def declare_metrics() -> None:
    """The two layer metrics as probes.layers registers them, or the same by hand where that is not there."""
    with contextlib.suppress(ImportError):
        import probes.layers  # noqa: F401
    for name, title in (("effective_rank", "Effective rank"), ("anisotropy", "Anisotropy")):
        if name not in MEASURES:
            register_measure(Measure(name, title, "", 0.0, None, "none", f"{title} of the states."))


def metric_rows(n_layers: int, d: int) -> list[dict[str, Any]]:
    declare_metrics()
    rows: list[dict[str, Any]] = []
    for layer in range(n_layers + 1):
        x = layer / n_layers
        for variant, scale in (("centred", 1.0), (None, 0.8)):
            rank = scale * d * (0.25 + 0.5 * np.sin(np.pi * min(x * 1.1, 1)))
            row = {"measure": "effective_rank", "site": "exit", "layer": layer, "n": 1500}
            rows.append({**row, "variant": variant, "value": rank})
        cosine = 0.35 + 0.3 * x - 0.5 * x**4
        row = {"measure": "anisotropy", "site": "exit", "layer": layer, "n": 1500}
        rows.append({**row, "value": cosine, "low": cosine - 0.01, "high": cosine + 0.01})
    return rows


def evidence(n_layers: int, d: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """chains, share_draws and losses, shaped as probes.exits writes them."""
    rng = np.random.default_rng(1)
    full = quality(None, n_layers, d, n_layers, d)
    rows: list[dict[str, Any]] = []
    for variant in VARIANTS:
        own = [c for c in cells(n_layers, d) if c[0] == variant and c[1] < n_layers]
        front: list[tuple[str | None, int, int]] = []
        for cell in sorted(own, key=lambda c: (c[1], c[2])):
            if not front or quality(*cell, n_layers, d) > quality(*front[-1], n_layers, d):
                front.append(cell)
        for order, (kind, layer, dim) in enumerate([(None, n_layers, d), *reversed(front)]):
            value = quality(kind, layer, dim, n_layers, d)
            rows.append(
                {
                    "chain": variant or "raw",
                    "order": order,
                    "name": f"{kind or 'raw'}:{layer}x{dim}",
                    "variant": kind,
                    "layer": layer,
                    "dim": dim,
                    "tune_quality": value,
                    "calibrate_quality": value,
                    "calibrate_share": value / full,
                }
            )
    chains = pd.DataFrame(rows).astype({"variant": "string"})
    shares = {str(r["name"]): float(r["calibrate_share"]) for r in rows}
    draws = {name: share + rng.normal(0, 0.006, 2000) for name, share in shares.items()}
    losses = {
        name: np.clip(0.2 + 0.8 * (1 - share) + rng.normal(0, 0.05, 300), 0, 1)
        for name, share in shares.items()
    }
    share_draws = pd.DataFrame({"full": full + rng.normal(0, 0.02, 2000), **draws})
    clusters = {"example": np.arange(300), "cluster": np.arange(300), "full": np.full(300, 0.2)}
    return chains, share_draws, pd.DataFrame({**clusters, **losses})


def decision_of(walk: Walk, n_layers: int, d: int, measure: str, budget: Budget) -> dict[str, Any]:
    """decision.json as probes.exits writes it."""
    full = quality(None, n_layers, d, n_layers, d)

    def kept(variant: str | None, layer: int, dim: int) -> dict[str, Any]:
        value = quality(variant, layer, dim, n_layers, d)
        return {
            "variant": variant,
            "layer": layer,
            "dim": dim,
            "relative_cost": milliseconds(layer) / milliseconds(n_layers),
            "quality": value,
            "low": value - 0.03,
            "high": value + 0.03,
            "quality_full": full,
            "share": value / full,
            "share_low": value / full - 0.011,
            "share_high": value / full + 0.013,
            "n": 300,
        }

    baselines = [{"name": "last layer", **kept(None, n_layers, d)}]
    for name, depth in (("depth 1/2", 1 / 2), ("depth 2/3", 2 / 3), ("depth 3/4", 3 / 4)):
        layer = int(np.floor(depth * n_layers + 0.5))
        baselines.append({"name": name, **kept(None, layer, d)})
        baselines.append({"name": f"{name}, translated", **kept("translated", layer, d)})
    common = {
        "quality_full": full,
        "pooling": "mean",
        "confidence": budget.confidence,
        "guarantee": budget.guarantee,
        "baselines": baselines,
        "budget": {"min_quality": budget.min_quality, "max_loss": budget.max_loss},
        "cost_measured": True,
        "measure": measure,
        "caveats": ["the calibrate part has 300 examples: its intervals are rough"],
        "parts": {k: v for k, v in SIZES.items() if k != "all"},
        "reason": walk.reason,
    }
    empty = dict.fromkeys(
        (
            "layer",
            "dim",
            "variant",
            "quality",
            "share",
            "share_low",
            "relative_cost",
            "speedup",
            "test",
        )
    )
    if walk.chosen is None:
        return {"status": "infeasible", **empty, **common, "alternatives": [], "calibrate": None}
    step = walk.row(walk.chosen)
    variant = None if pd.isna(step["variant"]) else str(step["variant"])
    test = kept(variant, int(step["layer"]), int(step["dim"]))
    certificate = {
        "quality": step["calibrate_quality"],
        "share": step["calibrate_share"],
        "p": step["p"],
        "share_low": step["bound"],
    }
    others = walk.steps[walk.steps["passed"] & (walk.steps["order"] > 0)]
    alternatives = [
        {
            "variant": None if pd.isna(r["variant"]) else r["variant"],
            "layer": int(r["layer"]),
            "dim": int(r["dim"]),
            "relative_cost": milliseconds(int(r["layer"])) / milliseconds(n_layers),
            "calibrate_quality": r["calibrate_quality"],
            "calibrate_share": r["calibrate_share"],
            "calibrate_share_low": r["bound"],
            "p": r["p"],
        }
        for r in others.sort_values(["layer", "dim"]).to_dict("records")
        if r["name"] != walk.chosen
    ]
    chosen = {key: test[key] for key in empty if key in test}
    return {
        "status": "chosen",
        **chosen,
        "speedup": 1 / test["relative_cost"],
        **common,
        "test": test,
        "alternatives": alternatives,
        "calibrate": certificate,
    }


def make_run(
    parent: Path,
    slug: str = "minilm-stsb",
    *,
    n_layers: int = 6,
    d: int = 384,
    dataset: str = "stsb_dev",
    model: str = "minilm",
    measure: str = "spearman",
    min_quality: float = 0.95,
    status: str = "finished",
    parts: tuple[str, ...] = ALL_PARTS,
) -> Path:
    """One run folder; `parts` says how far it got, `status` how it ended; `min_quality=1` is infeasible."""
    options = {
        "model": model,
        "data": dataset,
        "min_quality": min_quality,
        "max_loss": None,
        "confidence": 0.95,
        "seed": 0,
        "dtype": "float32",
        "trust_remote_code": False,
    }
    run = Run.create(parent, "exit-layers", options, slug=slug)
    hashes = {"weights_hash": "ab" * 32, "n_layers": n_layers, "n_heads": 12, "d_model": d}
    entry = {"name": dataset, "kind": "pairs", "hash": "cd" * 32, "n": 1500}
    run.describe(model={"name": model, **hashes}, dataset=entry)
    run.progress(3, 7, "measuring the grid")
    rows = [
        *(grid_rows(n_layers, d, dataset, measure) if "grid" in parts else []),
        *(latency_rows(n_layers) if "latency" in parts else []),
        *(metric_rows(n_layers, d) if "metrics" in parts else []),
    ]
    if rows:
        run.add(tidy(rows))
    budget = Budget(min_quality)
    chains, share_draws, losses = evidence(n_layers, d)
    walk = walk_chains(chains, share_draws, losses, budget)
    if "tables" in parts:
        for name, frame in (
            ("chains", walk.steps),
            ("share_draws", share_draws),
            ("losses", losses),
        ):
            run.write_table(name, frame)
    if "decision" in parts:
        run.write_decision(decision_of(walk, n_layers, d, measure, budget))
    if status == "finished":
        run.finish()
    elif status != "running":
        run.fail("out of memory in a batch of one text of 100,000 tokens", status)  # type: ignore[arg-type]
    return run.path


def break_run(path: Path) -> Path:
    """A run.json that is no JSON, as a crash of a foreign tool would leave it."""
    (path / "run.json").write_text('{"schema": 1, "analysis": "exit-la', encoding="utf-8")
    return path


def many_runs(parent: Path, count: int) -> None:
    """`count` small runs: one is made, the others are copies with their own time."""
    first = make_run(parent, "run-000", parts=("latency", "decision"))
    for at in range(1, count):
        path = parent / f"run-{at:03d}"
        shutil.copytree(first, path)
        info = json.loads((first / "run.json").read_text(encoding="utf-8"))
        info["created"] = f"2025-01-01T00:{at // 60:02d}:{at % 60:02d}+00:00"
        (path / "run.json").write_text(json.dumps(info), encoding="utf-8")
