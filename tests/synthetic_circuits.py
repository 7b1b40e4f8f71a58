"""Run folders as a circuits run leaves them, from a formula: two tasks that the model does and one that it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic_collapse import declared
from synthetic_runs import HOSTILE

from probes.runs import Run
from probes.tables import tidy

Row = dict[str, Any]
BLOCKS, HEADS, PAIRS = 12, 6, 50
TASKS = {
    "ioi": 0.96,
    "greater_than": 0.84,
    "docstring": 0.5,
}  # share of pairs with the right answer ahead
MOVERS = {
    "ioi": {(9, 2): 1.4, (10, 0): 0.9, (7, 3): -0.6},
    "greater_than": {(8, 1): 0.8, (6, 4): 0.5},
    "docstring": {},
}
PARTS = ("attribution", "patching", "faithfulness", "lens", "flow", "graph", "neurons")
RANKINGS = ("activation", "attribution", "dla", "random")
ALL_RANKINGS = (*RANKINGS, *(f"{name}:absolute" for name in RANKINGS[:3]))
KEPT = (0, 1, 2, 5, 10, 20, 40, BLOCKS * HEADS)
WORDS = ("apple", "bird", "sand", "sun", "plane", "opera")
_SPEED = {"activation": 8.0, "attribution": 10.0, "dla": 14.0, "random": 40.0}


def _span(value: float, half: float) -> Row:
    return {"value": value, "low": value - half, "high": value + half, "n": PAIRS, "seed": 0}


def _noise(*key: int) -> float:
    return float(np.random.default_rng([5, *key]).random()) - 0.5


def clean_difference(task: str) -> float:
    return {"ioi": 2.6, "greater_than": 1.4, "docstring": 0.02}[task]


def head_value(task: str, block: int, head: int) -> float:
    """Direct logit attribution of a head."""
    return MOVERS[task].get((block, head), 0.02 * _noise(block, head))


def patched(task: str, block: int, head: int) -> float:
    return head_value(task, block, head) / 2.9


def faithful(ranking: str, kept: int) -> float:
    everything = BLOCKS * HEADS
    return float(
        (1 - np.exp(-kept / _SPEED[ranking])) / (1 - np.exp(-everything / _SPEED[ranking]))
    )


def tasks_table() -> pd.DataFrame:
    return pd.DataFrame([
        {
            "task": task, "n": PAIRS, "skipped": 3 if task == "docstring" else 0,
            "reason": "answers of several tokens" if task == "docstring" else None, "accuracy": share,
            "low": share - 0.05, "high": min(1.0, share + 0.05), "logit_difference_clean": clean_difference(task),
            "logit_difference_corrupted": -clean_difference(task), "example_clean": "When Ann and Bo went, Bo gave to",
            "example_corrupted": "When Ann and Bo went, Ann gave to", "answer": " Ann", "wrong": " Bo",
        }
        for task, share in TASKS.items()
    ])  # fmt: skip


def attribution_table() -> pd.DataFrame:
    rows: list[Row] = []
    for task in TASKS:
        parts: list[Row] = [
            {"component": "embedding", **_span(0.1, 0.02)},
            {"component": "bias", **_span(0.0, 0.01)},
        ]
        for block in range(BLOCKS):
            parts.append(
                {"component": "mlp", "block": block, **_span(0.05 * _noise(block, 99), 0.02)}
            )
            for head in range(HEADS):
                parts.append(
                    {
                        "component": "head",
                        "block": block,
                        "head": head,
                        **_span(head_value(task, block, head), 0.03),
                    }
                )
        total = sum(part["value"] for part in parts)
        rows += [
            {"task": task, **part} for part in [*parts, {"component": "total", **_span(total, 0.1)}]
        ]
    return pd.DataFrame(rows).astype({"block": "Int64", "head": "Int64"})


POSITIONS = ("all", "changed", "last", "other")


def patching_table() -> pd.DataFrame:
    rows: list[Row] = []
    for task in TASKS:
        for method in ("activation", "attribution"):
            gain = 1.0 if method == "activation" else 0.85
            where = {"task": task, "method": method}
            for positions in POSITIONS:
                size = {"all": 1.0, "changed": 0.8, "last": 0.6, "other": 0.05}[positions]
                for layer in range(BLOCKS + 1):
                    x = layer / BLOCKS
                    share = {"all": 1.0, "changed": 1 - x, "last": x, "other": 0.02}[positions]
                    noisy = 0.05 * _noise(layer, ord(method[1]))
                    rows.append(
                        {
                            **where,
                            "level": "resid",
                            "layer": layer,
                            "positions": positions,
                            **_span(gain * share + noisy, 0.03),
                        }
                    )
                for block in range(BLOCKS):
                    for level in ("attn", "mlp"):
                        value = gain * size * 0.3 * _noise(block, ord(level[0])) + 0.02 * _noise(
                            block, ord(method[1])
                        )
                        rows.append(
                            {
                                **where,
                                "level": level,
                                "block": block,
                                "positions": positions,
                                **_span(value, 0.03),
                            }
                        )
            for block in range(BLOCKS):
                for head in range(HEADS):
                    value = gain * patched(task, block, head) + 0.01 * _noise(
                        block, head, ord(method[1])
                    )
                    rows.append(
                        {
                            **where,
                            "level": "head",
                            "block": block,
                            "head": head,
                            "positions": "all",
                            **_span(value, 0.02),
                        }
                    )
    return pd.DataFrame(rows).astype({"layer": "Int64", "block": "Int64", "head": "Int64"})


def agreement(task: str, level: str) -> float:
    return (
        0.3
        if task == "docstring"
        else {"resid": 0.95, "attn": 0.9, "mlp": 0.88, "head": 0.93}[level]
    )


def agreement_table() -> pd.DataFrame:
    return pd.DataFrame([
        {"task": task, "level": level, "pearson": agreement(task, level), "low": agreement(task, level) - 0.04,
         "high": min(1.0, agreement(task, level) + 0.04), "n": 72, "seed": 0}
        for task in TASKS for level in ("resid", "attn", "mlp", "head")
    ])  # fmt: skip


def strongest_table() -> pd.DataFrame:
    """Five heads patched again on other pairs; the fourth and fifth are not shown to help."""
    rows: list[Row] = []
    for task in TASKS:
        heads = [(b, h) for b in range(BLOCKS) for h in range(HEADS)]
        heads.sort(key=lambda head: -patched(task, *head))
        for block, head in heads[:5]:
            value = patched(task, block, head)
            rows.append(
                {"task": task, "block": block, "head": head, "fresh": 1, **_span(value, 0.05)}
            )
    return pd.DataFrame(rows)


def faithfulness_table() -> pd.DataFrame:
    return pd.DataFrame([
        {"task": task, "ranking": ranking, "heads_kept": kept, "share": kept / (BLOCKS * HEADS),
         **_span(faithful(ranking.removesuffix(":absolute"), kept), 0.04)}
        for task in TASKS for ranking in ALL_RANKINGS for kept in KEPT
    ])  # fmt: skip


def logprob(task: str, layer: int) -> float:
    """Rises to the last layer but one, and falls by 0.8 in the last block for ioi."""
    rise = -9 + 8.5 * min(1.0, layer / (BLOCKS - 1)) ** 2
    return rise - (0.8 if task == "ioi" and layer == BLOCKS else 0.0)


def lens_table() -> pd.DataFrame:
    rows: list[Row] = []
    for task in TASKS:
        for layer in range(BLOCKS + 1):
            held = {"logprob": logprob(task, layer), "logit_difference": clean_difference(task) * layer / BLOCKS,
                    "top1": TASKS[task] * (layer / BLOCKS) ** 2}  # fmt: skip
            row = {
                "task": task,
                "layer": layer,
                "rank": float(round(np.exp(-logprob(task, layer)))),
                "n": PAIRS,
                "seed": 0,
            }
            for name, value in held.items():
                row |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1}
            rows.append(row)
    return pd.DataFrame(rows)


def saliency_table() -> pd.DataFrame:
    rows: list[Row] = []
    for dataset in ("sentiment",):
        for variant in (None, "random-labels"):
            for block in range(BLOCKS):
                x = block / (BLOCKS - 1)
                size = 1.0 if variant is None else 0.3
                for flow, value in (("wp", size * (1 - x)), ("pq", size * x), ("ww", 0.1)):
                    rows.append(
                        {
                            "dataset": dataset,
                            "block": block,
                            "flow": flow,
                            "variant": variant,
                            **_span(value, 0.05),
                        }
                    )
    return pd.DataFrame(rows)


def energy(layer: int, context: int) -> float:
    return 1 - 0.7 * layer / BLOCKS * (1 - float(np.exp(-context / 300)))


def graph_table() -> pd.DataFrame:
    return pd.DataFrame([
        {"layer": layer, "context": context, "energy": energy(layer, context), "low": energy(layer, context) - 0.03,
         "high": energy(layer, context) + 0.03, "permuted": 1.0, "permuted_low": 0.9, "permuted_high": 1.1, "n": 10,
         "seed": 0}
        for layer in range(BLOCKS + 1) for context in (100, 200, 400, 800, 1400)
    ])  # fmt: skip


def nodes_table() -> pd.DataFrame:
    rows: list[Row] = []
    for layer in range(BLOCKS + 1):
        for node, word in enumerate(WORDS):
            turn = 2 * np.pi * node / len(WORDS) + 3 * _noise(layer, node) * (1 - layer / BLOCKS)
            rows.append(
                {"layer": layer, "node": node, "word": word, "x": np.cos(turn), "y": np.sin(turn)}
            )
    return pd.DataFrame(rows)


def edges_table() -> pd.DataFrame:
    return pd.DataFrame(
        {"a": range(len(WORDS)), "b": [(k + 1) % len(WORDS) for k in range(len(WORDS))]}
    )


def neurons_table() -> pd.DataFrame:
    rows: list[Row] = []
    for block in range(BLOCKS):
        rows.append(
            {
                "block": block,
                "measure": "activation_sparsity",
                "variant": None,
                **_span(0.6 + 0.02 * block, 0.01),
            }
        )
        for measure, value in (("core_stability", 0.8), ("core_similarity", 0.5)):
            rows.append(
                {
                    "block": block,
                    "measure": measure,
                    "variant": None,
                    **_span(value - 0.01 * block, 0.03),
                }
            )
            rows.append(
                {"block": block, "measure": measure, "variant": "random", **_span(0.1, 0.03)}
            )
    return pd.DataFrame(rows)


TABLES: dict[str, tuple[str, Callable[[], pd.DataFrame]]] = {
    "attribution": ("attribution", attribution_table),
    "patching": ("patching", patching_table),
    "strongest": ("patching", strongest_table),
    "agreement": ("patching", agreement_table),
    "faithfulness": ("faithfulness", faithfulness_table),
    "lens": ("lens", lens_table),
    "saliency": ("flow", saliency_table),
    "graph": ("graph", graph_table),
    "graph_nodes": ("graph", nodes_table),
    "graph_edges": ("graph", edges_table),
    "neurons": ("neurons", neurons_table),
}
_TASKED = ("attribution", "patching", "faithfulness", "lens")


def measurement_rows(parts: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for task, share in TASKS.items():
        rows.append({"measure": "task_accuracy", "dataset": task, **_span(share, 0.05)})
        if "lens" in parts:
            lost = max(logprob(task, k) for k in range(BLOCKS + 1)) - logprob(task, BLOCKS)
            rows.append({"measure": "answer_suppression", "dataset": task, **_span(lost, 0.1)})
        if "faithfulness" in parts:
            for ranking in RANKINGS:
                area = float(np.mean([faithful(ranking, k) for k in range(BLOCKS * HEADS + 1)]))
                rows.append(
                    {"measure": "cpr", "dataset": task, "variant": ranking, **_span(area, 0.02)}
                )
                rows.append(
                    {"measure": "cmd", "dataset": task, "variant": ranking, **_span(1 - area, 0.02)}
                )
    return rows


def write_circuits_run(
    parent: Path,
    slug: str = "smollm2-circuits",
    *,
    status: str = "finished",
    parts: Sequence[str] = PARTS,
    hostile: bool = False,
) -> Path:
    """One run folder of three tasks over 12 blocks of 6 heads."""
    model = HOSTILE if hostile else "smollm2"
    run = Run.create(
        parent, "circuits", {"model": model, "tasks": ",".join(TASKS), "seed": 0}, slug=slug
    )
    run.describe(model={"name": model, "n_layers": BLOCKS, "n_heads": HEADS, "d_model": 96})
    run.progress(1, 21, "ioi")
    if parts:
        rows = measurement_rows(parts)
        with declared([row["measure"] for row in rows]):
            run.add(tidy(rows))
        run.write_table("tasks", _hostile(tasks_table(), hostile))
    for name, (part, make) in TABLES.items():
        if part in parts:
            run.write_table(name, _hostile(make(), hostile))
    reason = f"no such thing {HOSTILE}" if hostile else "the model has no language-model head"
    told = [
        {
            "part": part,
            "task": task,
            "applies": part in parts,
            "reason": None if part in parts else reason,
        }
        for part in PARTS
        for task in (TASKS if part in _TASKED else (None,))
    ]
    run.write_table("applies", pd.DataFrame(told).astype({"reason": "string", "task": "string"}))
    if status == "finished":
        run.finish()
    elif status != "running":
        run.fail("out of memory in greater_than", status)  # type: ignore[arg-type]
    return run.path


def _hostile(frame: pd.DataFrame, hostile: bool) -> pd.DataFrame:
    if hostile:
        for name in set(frame.columns) & {
            "task",
            "dataset",
            "word",
            "example_clean",
            "example_corrupted",
            "answer",
        }:
            frame[name] = [f"{value} {HOSTILE}" for value in frame[name]]
    return frame
