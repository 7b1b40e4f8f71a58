"""Run folders as a retrieval-heads run leaves them, from a formula instead of a model: 30 blocks of 9 heads.

Six retrieval heads are planted with their scores, half of all heads score nothing, and ablating the planted ones hurts
as much as `strength` says; so a test can say what figures and words must show.
"""

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
BLOCKS, HEADS = 30, 9
PLANTED = {(16, 3): 0.62, (12, 1): 0.41, (20, 7): 0.33, (9, 4): 0.22, (23, 0): 0.15, (18, 5): 0.12}
INDUCTION = {(12, 1): 0.8, (8, 2): 0.7, (5, 6): 0.55}
PREVIOUS = {(3, 0): 0.9, (4, 5): 0.6}
KS = (1, 2, 5, 10, 20, 50)
LENGTHS, DEPTHS = (500, 1000), (0.1, 0.3, 0.5, 0.7, 0.9)
TRIALS = 40
PARTS = ("retrieval", "ablation", "single", "types", "shapes", "composition", "low-rank")
ANSWER = ("copper", " lantern")
BASE = {"needle_accuracy": 0.9, "answer_logprob": -0.4, "control_logprob": -3.1}


def score(block: int, head: int) -> float:
    """The planted score; of the others half score nothing, the rest less than 0.08."""
    if (block, head) in PLANTED:
        return PLANTED[block, head]
    draw = np.random.default_rng([7, block, head]).random()
    return 0.0 if draw < 0.5 else 0.08 * float(draw - 0.5)


def loss(target: str, k: int, measure: str, strength: float) -> float:
    """What ablating `k` heads takes off a measure."""
    if measure == "control_logprob":
        return 0.004 * k
    size = {"needle_accuracy": 0.8, "answer_logprob": 4.0}[measure]
    share = 1 - np.exp(-k / 4)
    return float(size * share * (strength if target == "top" else 0.02))


def _heads() -> list[tuple[int, int]]:
    return [(block, head) for block in range(BLOCKS) for head in range(HEADS)]


def _span(value: float, half: float, low: float = -np.inf) -> Row:
    return {"value": value, "low": max(low, value - half), "high": value + half}


def _noise(*key: int) -> float:
    return float(np.random.default_rng([3, *key]).random())


def head_rows(parts: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for block, head in _heads():
        where = {"site": "z", "block": block, "head": head, "seed": 0}
        s = score(block, head)
        held: list[tuple[str, str | None, Row, int]] = []
        if "retrieval" in parts:
            held += [
                ("retrieval_score", None, _span(s, 0.3 * s, 0.0), TRIALS),
                ("query_mass", None, _span(0.4 * s + 0.01 * (_noise(block, head) - 0.5), 0.01), TRIALS),
                ("copy_contribution", None, _span(3 * s + 0.1 * (_noise(block, head, 1) - 0.5), 0.05), TRIALS),
            ]  # fmt: skip
        if "types" in parts:
            for at, (name, planted) in enumerate((
                ("induction_score", INDUCTION), ("previous_token_score", PREVIOUS), ("duplicate_token_score", {}),
            )):  # fmt: skip
                low = 0.05 * _noise(block, head, 2 + at)
                value = planted.get((block, head), low)
                held += [
                    (name, None, _span(value, 0.02, 0.0), 50),
                    (name, "unrepeated", _span(low, 0.01, 0.0), 50),
                ]
        if "shapes" in parts:
            u = _noise(block, head, 9)
            held += [
                ("attention_entropy", None, _span(0.2 + 0.6 * u, 0.03), 30),
                ("sink_share", None, _span((1 - u) * block / BLOCKS, 0.02, 0.0), 30),
                ("attention_distance", None, _span(10 + 200 * u, 8), 30),
                ("max_column_mass", None, _span(0.1 + 0.8 * (1 - u), 0.03), 30),
                ("local_share", None, _span(0.9 - 0.6 * u, 0.03), 30),
            ]
        rows += [{"measure": m, "variant": v, **where, **e, "n": n} for m, v, e, n in held]
    return rows


def run_rows(parts: Sequence[str], strength: float) -> list[Row]:
    """Numbers of the whole run."""
    scores = [score(*head) for head in _heads()]
    found: dict[str, tuple[float, float]] = {}
    if "retrieval" in parts:
        found = {
            "retrieval_share": (float(np.mean([s >= 0.1 for s in scores])), 0.004),
            "retrieval_zero_share": (float(np.mean([s == 0 for s in scores])), 0.03),
            "split_half_overlap": (0.85, 0.1),
            "split_half_spearman": (0.78, 0.05),
            "answered_share": (0.9, 0.05),
        }
    rows: list[Row] = [
        {"measure": m, **_span(v, half), "n": TRIALS, "seed": 0} for m, (v, half) in found.items()
    ]
    if "single" in parts:
        for variant, value in (("control_logprob", 0.05), ("answer_logprob", 0.7 * strength)):
            where = {"measure": "ablation_agreement", "site": "z", "variant": variant}
            rows.append({**where, **_span(value, 0.1), "n": 50, "seed": 0})
    return rows


def trials_table(strength: float) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "trial": at, "needle": f"needle {at % 20}", "tokens": LENGTHS[at % 2], "depth": DEPTHS[at % 5],
            "distractors": 0, "mode": "forced", "answered": at % 10 != 0, "logprob": -0.4 - 0.01 * at,
            "expected": "".join(ANSWER), "emitted": "".join(ANSWER) if at % 10 else " the city",
        }
        for at in range(TRIALS)
    ])  # fmt: skip


def running_table(strength: float) -> pd.DataFrame:
    overlap = [
        None if t < 6 else 1 - 0.5 * float(np.exp(-(t - 6) / 6)) for t in range(1, TRIALS + 1)
    ]
    held = pd.DataFrame({"trial": range(1, TRIALS + 1), "overlap": overlap})
    return held.assign(stopped=[t == TRIALS for t in held["trial"]])


def ablation_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for measure, whole in BASE.items():
        none = dict.fromkeys(
            f"{n}{e}" for n in ("difference", "over_random") for e in ("", "_low", "_high")
        )
        plain = {"mode": None, "target": "none", "k": 0, "measure": measure, **_span(whole, 0.05)}
        rows.append({**plain, **none, "n": 100, "seed": 0})
        for mode in ("zero", "mean"):
            for target in ("top", "random"):
                for k in KS:
                    gone = (0.9 if mode == "mean" else 1.0) * loss(target, k, measure, strength)
                    over = gone - (0.9 if mode == "mean" else 1.0) * loss(
                        "random", k, measure, strength
                    )
                    half = 0.02 * (10 if measure == "answer_logprob" else 1)
                    more = dict(zip(none, (-gone, -gone - half, -gone + half), strict=False))
                    if target == "top":
                        more |= {
                            "over_random": -over,
                            "over_random_low": -over - half,
                            "over_random_high": -over + half,
                        }
                    where = {"mode": mode, "target": target, "k": k, "measure": measure}
                    rows.append(
                        {**none, **where, **_span(whole - gone, 0.05), **more, "n": 100, "seed": 0}
                    )
    return pd.DataFrame(rows)


def grid_value(variant: str | None, tokens: int, depth: float, strength: float) -> float:
    base = 1 - 0.1 * (tokens == 1000) - 0.2 * (depth == 0.5)
    gone = {None: 0.0, "zero=top10": 0.8 * strength, "zero=random10": 0.05}[variant]
    return max(0.0, base - gone)


def grid_table(strength: float) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "variant": variant, "tokens": tokens, "depth": depth, "measure": "needle_accuracy",
            **_span(grid_value(variant, tokens, depth, strength), 0.1), "n": 10, "seed": 0,
        }
        for variant in (None, "zero=top10", "zero=random10") for tokens in LENGTHS for depth in DEPTHS
    ])  # fmt: skip


def ranked() -> list[tuple[int, int]]:
    return sorted(_heads(), key=lambda head: -score(*head))


def single_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for block, head in ranked()[:50]:
        s = score(block, head)
        for measure, size in (("needle_accuracy", 0.3), ("answer_logprob", 2.0)):
            gone = -size * s * strength + 0.01 * (_noise(block, head, 5) - 0.5)
            rows.append({
                "block": block, "head": head, "measure": measure, "score": s, "difference": gone,
                "low": gone - 0.03 * size, "high": gone + 0.03 * size, "n": 100, "seed": 0,
            })  # fmt: skip
    return pd.DataFrame(rows)


def role_at(position: int) -> str:
    """Needle sentence at 40 to 47, its answer at 45 and 46; the question from 100 on."""
    if position in (45, 46):
        return "needle"
    if 40 <= position < 48:
        return "needle sentence"
    return "context" if position < 100 else "question" if position < 112 else "template"


def tokens_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for example in range(2):
        for position in range(118):
            token = f" word{position}" if position not in (45, 46) else ANSWER[position - 45]
            rows.append(
                {
                    "example": example,
                    "position": position,
                    "token": token,
                    "role": role_at(position),
                }
            )
    return pd.DataFrame(rows)


def weight(block: int, head: int, row: int, position: int) -> float:
    s = score(block, head)
    return s if position == 45 + row else (1 - s) / 117


def rows_table(strength: float) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "example": example, "block": block, "head": head, "row": row, "query_position": 117 + row,
            "emitted": ANSWER[row], "position": position, "weight": weight(block, head, row, position),
        }
        for example in range(2) for block, head in ranked()[:12] for row in range(2) for position in range(118)
    ])  # fmt: skip


def composition_table(strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for kind in ("Q", "K", "V"):
        for b in range(BLOCKS):
            for to in range(b + 1, BLOCKS):
                for h in range(0, HEADS, 4):
                    value = 0.05 + 0.02 * _noise(b, to, h, ord(kind))
                    planted = kind == "K" and (b, to, h) == (3, 12, 0)
                    value = 0.31 if planted else value
                    rows.append({
                        "kind": kind, "block_from": b, "head_from": h, "block_to": to, "head_to": 1, "component": None,
                        "value": value, "floor": 0.06, "floor_low": 0.055, "floor_high": 0.065,
                        "floor_max_high": 0.08, "n": 20, "seed": 0,
                    })  # fmt: skip
    return pd.DataFrame(rows)


def spectra_table(strength: float) -> pd.DataFrame:
    ranks = np.arange(1, 33)
    return pd.concat([
        pd.DataFrame({
            "block": block, "head": head, "circuit": circuit, "rank": ranks,
            "singular_value": (10 + _noise(block, head)) * ranks ** -(0.4 + 0.6 * _noise(block, head, 8)),
        })
        for block, head in _heads() for circuit in ("QK", "OV")
    ], ignore_index=True)  # fmt: skip


def low_rank_table(strength: float) -> pd.DataFrame:
    return pd.DataFrame([
        {
            "circuit": circuit, "heads": heads, "rank": rank, "measure": measure,
            **_span(BASE[measure] * (1 if measure == "needle_accuracy" else 2 - share) * share, 0.03), "n": 100,
            "seed": 0,
        }
        for circuit in ("QK", "OV") for heads in ("top", "random") for measure in ("needle_accuracy", "answer_logprob")
        for rank in (1, 2, 4, 8, 16, 32, 64)
        if (share := 1 - (0.6 if heads == "top" else 0.1) * float(np.exp(-rank / 8)))
    ])  # fmt: skip


TABLES: dict[str, tuple[str, Callable[[float], pd.DataFrame]]] = {  # name: part, maker
    "trials": ("retrieval", trials_table),
    "running": ("retrieval", running_table),
    "attention_tokens": ("retrieval", tokens_table),
    "attention_rows": ("retrieval", rows_table),
    "ablation": ("ablation", ablation_table),
    "ablation_grid": ("ablation", grid_table),
    "single": ("single", single_table),
    "composition": ("composition", composition_table),
    "head_spectra": ("composition", spectra_table),
    "low_rank": ("low-rank", low_rank_table),
}
_NAMES = ("needle", "expected", "emitted", "token", "role")


def write_heads_run(
    parent: Path,
    slug: str = "smollm2-heads",
    *,
    strength: float = 1.0,
    status: str = "finished",
    parts: Sequence[str] = PARTS,
    hostile: bool = False,
) -> Path:
    """One run folder; `strength` 0 makes the retrieval heads do nothing, `parts` says what was measured."""
    model = HOSTILE if hostile else "smollm2"
    run = Run.create(
        parent, "retrieval-heads", {"model": model, "trials": TRIALS, "seed": 0}, slug=slug
    )
    run.describe(model={"name": model, "n_layers": BLOCKS, "n_heads": HEADS, "d_model": 576})
    run.progress(3, TRIALS, "trials")
    rows = [*head_rows(parts), *run_rows(parts, strength)]
    with declared([row["measure"] for row in rows]):
        if rows:
            run.add(tidy(rows))
    for name, (part, make) in TABLES.items():
        if part in parts:
            frame = make(strength)
            if hostile:
                for text in set(frame.columns) & set(_NAMES) - {"role"}:
                    frame[text] = [f"{value} {HOSTILE}" for value in frame[text]]
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
        run.fail("out of memory at trial 7", status)  # type: ignore[arg-type]
    return run.path
