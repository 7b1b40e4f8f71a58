"""Run folders as a run of `sae` leaves them, from a formula instead of a model: three autoencoders, 240 features.

Ten features to read are planted with their tokens and concepts, the autoencoder beats PCA and random weights by what
`strength` says (0: by nothing), so a test can say what figures, words and the page must show.
"""

from __future__ import annotations

import json
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
MAIN, WIDE, EARLY = "L15 topk k=32", "L15 topk k=64", "L8 batchtopk k=32"
SAES = {MAIN: (15, "topk", 32), WIDE: (15, "topk", 64), EARLY: (8, "batchtopk", 32)}
BASELINES = ("random", "pca", "neurons")
FEATURES = 240
READ = {  # features to read: the token each fires on, what it promotes
    7: (" Paris", [" France", " Seine", " Louvre"]),
    23: (" not", [" never", " no", " nor"]),
    41: (" 1999", [" 2000", " 1998", " year"]),
    58: (" she", [" her", " herself", " hers"]),
    77: (" return", [" value", " None", " self"]),
    95: (" blue", [" red", " green", " colour"]),
    112: (" king", [" queen", " throne", " crown"]),
    139: (" because", [" since", " reason", " why"]),
    171: ("(", [")", "x", " args"]),
    208: (" seven", [" eight", " nine", " six"]),
}  # fmt: skip
QUANTILES = ("top", "75–100 %", "50–75 %", "25–50 %", "0–25 %")
CONCEPTS = {"capital": 0.94, "negation": 0.90, "number": 0.88, "colour": 0.81}
CODERS = ("sae", "random", "pca", "neurons", "dense")
KS = (1, 2, 5, 10, 20, 50)
TASKS = ("ioi", "greater than", "docstring")
METHODS = {"sae": 0.84, "random": 0.55, "clusters": 0.78, "mean difference": 0.74}
SEEDS = 10
BLOCKS, HEADS = 6, 4
IN_CIRCUIT = {(2, 1), (3, 0), (4, 3)}
CE = {"clean": 3.2, "mean": 7.2, "zero": 9.0}
PARTS = ("train", "loss", "features", "concepts", "probing", "effects", "circuits", "csr")


def coder(name: str) -> str:
    """How an autoencoder is called among the coders of its layer."""
    return name.partition(" ")[2]


def variance(layer: int, kind: str, k: int, strength: float) -> float:
    """The explained variance that is planted."""
    base = {"pca": 0.58, "random": 0.30, "neurons": 0.35}.get(kind, 0.58 + 0.27 * strength)
    return base + (0.05 if k == 64 else 0.0) - (0.03 if layer == 8 else 0.0)


def recovered(kind: str, strength: float) -> float:
    """The planted share of the loss that is kept."""
    return {"pca": 0.71, "random": 0.12, "neurons": 0.2}.get(kind, 0.71 + 0.22 * strength)


def _noise(*key: int) -> float:
    return float(np.random.default_rng([11, *key]).random())


def _span(value: float, half: float) -> Row:
    return {"value": value, "low": value - half, "high": value + half}


def _coders(name: str) -> list[tuple[str, str]]:
    """Kind and name of the coders beside an autoencoder."""
    _, kind, k = SAES[name]
    return [(kind, coder(name)), *((base, f"{base} k={k}") for base in BASELINES)]


def measured(parts: Sequence[str], strength: float) -> list[Row]:
    rows: list[Row] = []
    for name, (layer, _, k) in SAES.items():
        where = {"site": "exit", "layer": layer, "split": "held out", "seed": 0}
        for kind, variant in _coders(name):
            own = {**where, "variant": variant}
            value = variance(layer, kind, k, strength)
            if "train" in parts:
                rows += [
                    {**own, "measure": "explained_variance", **_span(value, 0.008), "n": 4096},
                    {**own, "measure": "fvu", **_span(1 - value, 0.008), "n": 4096},
                    {**own, "measure": "l0", **_span(float(k), 0.0), "n": 4096},
                    {**own, "measure": "dead_share", "value": 0.04 + 0.2 * (kind == "random"), "n": 4096},
                ]  # fmt: skip
            if "loss" in parts and name == MAIN:
                share = recovered(kind, strength)
                spliced = CE["mean"] - share * (CE["mean"] - CE["clean"])
                rows += [
                    {**own, "measure": "cross_entropy", **_span(spliced, 0.05), "n": 200},
                    {**own, "measure": "loss_recovered", **_span(share, 0.015), "n": 200},
                ]
        if "train" in parts:
            ratio = {
                **where,
                "variant": coder(name),
                "measure": "norm_ratio",
                "value": 2.1,
                "n": 4096,
            }
            rows.append(ratio)  # fmt: skip
        if "loss" in parts and name == MAIN:
            rows += [
                {**where, "variant": v, "measure": "cross_entropy", **_span(ce, 0.05), "n": 200}
                for v, ce in CE.items()
            ]
    if "circuits" in parts:
        rows += [
            {"measure": "circuit_auc", "dataset": task, "variant": method + more, "n": SEEDS, "seed": 0,
             **_span(_auc(method, more != "", strength), 0.03)}
            for task in TASKS for method in METHODS for more in ("", " edges")
        ]  # fmt: skip
    return rows


def _auc(method: str, edges: bool, strength: float) -> float:
    value = METHODS[method] if method != "sae" else 0.55 + 0.29 * strength
    return value - 0.05 * edges


def models_table(strength: float) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "sae": name, "site": "exit", "layer": layer, "block": None, "variant": kind, "k": k,
            "n_features": FEATURES, "target_l0": float(k), "steps": 1000, "tokens": 200_000, "seconds": 312.5,
            "norm_ratio": 2.1, "main": name == MAIN, "folder": f"sae/{name.replace(' ', '-').replace('=', '')}",
        }
        for name, (layer, kind, k) in SAES.items()
    ])  # fmt: skip


def history_table(strength: float) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "sae": name, "step": step, "fvu": 0.15 + 0.85 * float(np.exp(-step / 200)), "l0": float(k),
            "dead_share": 0.3 * float(np.exp(-step / 300)), "penalty": None, "learning_rate": 4e-4,
        }
        for name, (_, _, k) in SAES.items() for step in range(0, 1001, 50)
    ])  # fmt: skip


def density_table(strength: float) -> pd.DataFrame:
    edges = np.arange(-5.0, 0.01, 0.25)
    rows: list[Row] = []
    for name in SAES:
        for kind, centre, width in (("sae", -2.2, 0.6), ("random", -0.9, 0.2)):
            height = np.exp(-(((edges[:-1] + 0.125 - centre) / width) ** 2))
            numbers = np.round(FEATURES * height / height.sum())
            rows += [
                {"sae": name, "coder": kind, "low": low, "high": high, "features": int(n)}
                for low, high, n in zip(edges[:-1], edges[1:], numbers, strict=True)
            ]
    return pd.DataFrame(rows)


def features_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    concepts = list(CONCEPTS)
    for feature in range(FEATURES):
        dead = feature % 40 == 39
        token, up = READ.get(feature, (f" word{feature}", [f" up{feature}", f" more{feature}"]))
        concept = concepts[feature % len(concepts)]
        at = list(READ).index(feature) + 1 if feature in READ else None
        auroc = 0.9 if feature in READ else 0.5 + 0.3 * _noise(feature, 2)
        rows.append({
            "sae": MAIN, "feature": feature, "density": 0.0 if dead else float(10 ** (-3 + 2 * _noise(feature))),
            "mean_active": None if dead else 1.0 + _noise(feature, 1), "max_active": None if dead else 6.0,
            "dead": dead, "up_tokens": json.dumps(up), "down_tokens": json.dumps([" the", " of"]),
            "logit_kurtosis": 12.5, "nearest": (feature + 1) % FEATURES, "nearest_cosine": 0.41,
            "dataset": "facts", "concept": concept, "auroc": auroc, "auroc_low": auroc - 0.04,
            "auroc_high": auroc + 0.04, "shown": at,
            "why": None if at is None else f"Nearly all of its activation lies on “{token.strip()}”.",
        })  # fmt: skip
    return pd.DataFrame(rows).astype({"shown": "Int64"})


def example(feature: int, quantile: str, rank: int) -> tuple[list[str], list[float], int]:
    """Tokens, activations and the place of the peak in an example."""
    token = READ.get(feature, (f" word{feature}", []))[0]
    tokens = [
        "The",
        " old",
        " text",
        " number",
        f" {rank}",
        " says",
        token,
        " and",
        " goes",
        " on",
        ".",
    ]
    size = 6.0 * (1 - 0.2 * QUANTILES.index(quantile)) - 0.1 * rank
    values = [0.0] * len(tokens)
    values[6], values[7] = size, size / 3
    return tokens, values, 6


def examples_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for feature in range(FEATURES):
        if feature % 40 == 39:
            continue
        for quantile in QUANTILES:
            for rank in range(3):
                tokens, values, peak = example(feature, quantile, rank)
                rows.append({
                    "sae": MAIN, "feature": feature, "quantile": quantile, "rank": rank, "text": 10 * rank,
                    "peak": peak, "activation": values[peak], "tokens": json.dumps(tokens),
                    "values": json.dumps(values),
                })  # fmt: skip
    return pd.DataFrame(rows)


def single_auroc(concept: str, kind: str, strength: float) -> float:
    """AUROC of the best single number of a coder, planted."""
    top = CONCEPTS[concept]
    low = {"random": 0.62, "pca": 0.7, "neurons": 0.72, "dense": min(0.99, top + 0.04)}.get(kind)
    return 0.72 + (top - 0.72) * strength if low is None else low


def concepts_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for concept in CONCEPTS:
        for at, kind in enumerate(CODERS):
            value = single_auroc(concept, kind, strength)
            rows.append({
                "sae": MAIN, "dataset": "facts", "concept": concept, "coder": kind,
                "feature": None if kind == "dense" else list(READ)[at], "auroc": value, "low": value - 0.03,
                "high": value + 0.03, "n": 400, "fit_auroc": value + 0.01, "seed": 0,
            })  # fmt: skip
    return pd.DataFrame(rows).astype({"feature": "Int64"})


def probing_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for concept in CONCEPTS:
        for kind in CODERS:
            first = single_auroc(concept, kind, strength)
            for k in (None,) if kind == "dense" else KS:
                value = first if k is None else first + (0.97 - first) * (1 - 1 / np.sqrt(k)) * 0.8
                rows.append({
                    "sae": MAIN, "dataset": "facts", "concept": concept, "coder": kind, "features": k,
                    "measure": "auroc", **_span(float(value), 0.02), "n": 400, "seed": 0,
                })  # fmt: skip
    return pd.DataFrame(rows).astype({"features": "Int64"})


def effects_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for at, feature in enumerate(READ):
        for mode, strong, measure, size in (
            ("ablate", None, "logprob_change", -0.3),
            ("steer", 4.0, "up_tokens_logit", 1.2),
            ("steer", 8.0, "up_tokens_logit", 2.4),
        ):
            value, control = size * strength * (1 - 0.05 * at), 0.02 * size
            rows.append({
                "sae": MAIN, "feature": feature, "mode": mode, "strength": strong, "measure": measure,
                **_span(value, 0.06), "control_value": control, "control_low": control - 0.05,
                "control_high": control + 0.05, "difference": value - control,
                "difference_low": value - control - 0.08, "difference_high": value - control + 0.08,
                "n": 300, "seed": 0,
            })  # fmt: skip
    return pd.DataFrame(rows)


def circuits_table(strength: float) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "task": task, "method": method, "level": level, "seed": seed,
            "auc": _auc(method, level == "edge", strength) + 0.06 * (_noise(seed, at, level == "edge") - 0.5),
        }
        for task in TASKS for at, method in enumerate(METHODS) for level in ("node", "edge") for seed in range(SEEDS)
    ])  # fmt: skip


def effect(block: int, head: int) -> float:
    return 0.4 if (block, head) in IN_CIRCUIT else 0.02 * (_noise(block, head) - 0.5)


def circuit_heads_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for task in TASKS:
        for block in range(BLOCKS):
            for head in range(HEADS):
                value, inside = effect(block, head), (block, head) in IN_CIRCUIT
                rows.append({
                    "task": task, "block": block, "head": head, "effect": value, "low": value - 0.03,
                    "high": value + 0.03, "in_circuit": inside,
                    "sae": 5.0 * inside * strength + 2 * _noise(block, head),
                    "random": 3 * _noise(block, head, 1), "clusters": 3 * _noise(block, head, 2) + inside,
                    "mean_difference": _noise(block, head, 3) + 0.3 * inside,
                })  # fmt: skip
    return pd.DataFrame(rows)


def csr_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for dataset, measure in (("docstrings", "ndcg_at_10"), ("stsb_dev", "spearman")):
        full = {
            "dataset": dataset,
            "coder": "full",
            "active": 384,
            "width": 384,
            "bytes": 1536.0,
            "measure": measure,
        }
        rows.append(
            {**full, **_span(0.8, 0.02), "share": 1.0, "n": 300, "seed": 0, "query_ms": 2.0}
        )
        for active in (8, 16, 32, 64):
            for kind, lost in (("csr", 0.3 - 0.12 * strength), ("matryoshka", 0.3), ("pca", 0.25)):
                wide = {"csr": (1536, 6.0 * active)}.get(kind, (active, 4.0 * active))
                value = 0.8 * (1 - lost * 4 / active**0.7)
                row = {"coder": kind, "active": active, "width": wide[0], "bytes": wide[1]}
                rows.append({
                    **full, **row, **_span(value, 0.02), "share": value / 0.8, "n": 300, "seed": 0,
                    "query_ms": 0.2 + 0.01 * active if kind == "csr" else None,
                    "comparison": None if kind == "csr" else "active", "csr_k": None if kind == "csr" else active,
                })  # fmt: skip
                if kind != "csr":
                    same = {
                        "active": int(1.5 * active),
                        "bytes": 6.0 * active,
                        "width": int(1.5 * active),
                    }
                    rows.append(
                        {**rows[-1], **same, **_span(value + 0.01, 0.02), "comparison": "bytes"}
                    )
    return pd.DataFrame(rows).astype({"csr_k": "Int64"})


TABLES: dict[str, tuple[str, Callable[[float], pd.DataFrame]]] = {  # name: part, maker
    "sae_models": ("train", models_table),
    "sae_history": ("train", history_table),
    "sae_density": ("features", density_table),
    "sae_features": ("features", features_table),
    "sae_examples": ("features", examples_table),
    "sae_concepts": ("concepts", concepts_table),
    "sae_probing": ("probing", probing_table),
    "sae_effects": ("effects", effects_table),
    "sae_circuits": ("circuits", circuits_table),
    "sae_circuit_heads": ("circuits", circuit_heads_table),
    "csr": ("csr", csr_table),
}
_TEXTS = ("dataset", "concept", "why")
_LISTS = ("tokens", "up_tokens", "down_tokens")


def _made_hostile(frame: pd.DataFrame) -> None:
    for name in set(frame.columns) & set(_TEXTS):
        frame[name] = [None if value is None else f"{value} {HOSTILE}" for value in frame[name]]
    for name in set(frame.columns) & set(_LISTS):
        frame[name] = [
            json.dumps([f"{token}{HOSTILE}" for token in json.loads(value)])
            if isinstance(value, str)
            else value
            for value in frame[name]
        ]


def write_sae_run(
    parent: Path,
    slug: str = "smollm2-sae",
    *,
    strength: float = 1.0,
    status: str = "finished",
    parts: Sequence[str] = PARTS,
    hostile: bool = False,
) -> Path:
    """One run folder; `strength` 0 makes the autoencoder no better than PCA, `parts` says what was measured."""
    model = HOSTILE if hostile else "smollm2"
    run = Run.create(parent, "sae", {"model": model, "tokens": 200_000, "seed": 0}, slug=slug)
    run.describe(model={"name": model, "n_layers": 30, "n_heads": 9, "d_model": 576})
    run.progress(300, 1000, "train")
    rows = measured(parts, strength)
    with declared([row["measure"] for row in rows]):
        if rows:
            run.add(tidy(rows))
    for name, (part, make) in TABLES.items():
        if part in parts:
            frame = make(strength)
            if hostile:
                _made_hostile(frame)
            run.write_table(name, frame)
    reason = f"no such thing {HOSTILE}" if hostile else "the model has no language-model head"
    told = [
        {"part": part, "applies": part in parts, "reason": None if part in parts else reason}
        for part in PARTS
    ]
    run.write_table("applies", pd.DataFrame(told).astype({"reason": "string"}))
    if status == "finished":
        run.finish()
    elif status != "running":
        run.fail("out of memory at step 700", status)  # type: ignore[arg-type]
    return run.path
