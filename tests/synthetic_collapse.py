"""Run folders as an embedding-collapse run leaves them, from a formula instead of a model.

The mean cosine grows with every doubling of length by `slope(k)`: not at all in the first third of the layers, then
more and more. The remedies, temperatures and all other numbers are planted as well, so that a test can say what
figures and words must show.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic_runs import HOSTILE

from probes.registry import MEASURES, Measure
from probes.runs import Run
from probes.tables import tidy

Row = dict[str, Any]
CUTS = (8, 16, 32, 64, 128, 256)
TAUS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
BEST_TAU = 0.8
REMEDIES = {  # what each adds to quality at the last layer, and how much of the collapse it leaves
    "none": (0.0, 1.0),
    "centred": (0.01, 0.2),
    "whitened": (-0.02, 0.02),
    "top1": (0.02, 0.25),
    "top3": (0.045, 0.15),
    "top10": (0.03, 0.1),
    "ditto": (-0.05, 0.8),
    f"tau={BEST_TAU}": (0.02, 0.9),
}
DISTRACTORS = (100, 1_000, 10_000, 100_000)
DIMS = (64, 128, 384)
PARTS = ("length", "temperature", "remedies", "chunking", "bottleneck", "mask", "index")
HALF = 0.015  # half an interval
DATA = "docstrings"


@contextlib.contextmanager
def declared(names: Sequence[str]) -> Iterator[None]:
    """Measures that a run may hold, even where the code that computes them was not loaded; forgotten afterwards."""
    missing = [name for name in dict.fromkeys(names) if name not in MEASURES]
    for name in missing:
        title = name.replace("_", " ").capitalize()
        MEASURES.add(name, Measure(name, title, "", None, None, "none", f"{title} of a layer."))
    try:
        yield
    finally:
        for name in missing:
            del MEASURES._items[name]


def slope(layer: int, n_layers: int, strength: float = 1.0) -> float:
    """What a doubling of length adds to the mean cosine."""
    return strength * 0.08 * max(0.0, layer / n_layers - 1 / 3)


def cosine(layer: int, tokens: float, n_layers: int, strength: float = 1.0) -> float:
    return (
        0.2
        + 0.15 * layer / n_layers
        + slope(layer, n_layers, strength) * float(np.log2(tokens / 8))
    )


def onset(layer: int, n_layers: int, strength: float = 1.0) -> int | None:
    """Shortest cut whose mean cosine is above that of the shortest cut by more than its interval."""
    for tokens in CUTS[1:]:
        if cosine(layer, tokens, n_layers, strength) - cosine(layer, 8, n_layers, strength) > HALF:
            return tokens
    return None


def _span(value: float, half: float = HALF) -> Row:
    return {"value": value, "low": value - half, "high": value + half}


def _change(name: str, value: float, half: float | None) -> Row:
    """A difference with its interval; None everywhere without one."""
    ends = (None, None, None) if half is None else (value, value - half, value + half)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def _left(cosine_: float, slope_: float, plain: tuple[float, float], half: float) -> Row:
    """What is left of collapse, and its change against `plain`."""
    return {
        "anisotropy": cosine_, **_change("anisotropy_difference", cosine_ - plain[0], half),
        "collapse_slope": slope_, **_change("collapse_slope_difference", slope_ - plain[1], half / 3),
    }  # fmt: skip


_MODES = {"natural": 0.9, "cut": 1.0, "random-words": 0.25}


def length_table(n_layers: int, strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for mode, share in _MODES.items():
        for layer in range(n_layers + 1):
            for tokens in CUTS:
                mean = cosine(layer, tokens, n_layers, strength * share)
                numbers = {
                    "anisotropy": mean,
                    "cosine_p10": mean - 0.12,
                    "cosine_p50": mean - 0.01,
                    "cosine_p90": mean + 0.14,
                    "centroid_distance": float(np.sqrt(1 - min(mean, 0.99))),
                    "effective_rank": 200 * (1 - mean),
                }
                ends = {"tokens_low": tokens * 0.75, "tokens_high": tokens * 1.5}
                ends = dict.fromkeys(ends, tokens) if mode != "natural" else ends
                where = {"dataset": "reference", "mode": mode, "layer": layer, "tokens": tokens}
                rise = mean - cosine(layer, 8, n_layers, strength * share)
                known = mode == "cut" and tokens != 8
                gap = _change("difference", rise, HALF if known else None)
                none = _change("difference", rise, None)
                rows += [
                    {
                        **where,
                        **ends,
                        "measure": name,
                        **_span(v, 0.02 * abs(v)),
                        **(gap if name == "anisotropy" else none),
                        "n": 300,
                        "seed": 0,
                    }
                    for name, v in numbers.items()
                ]
    return pd.DataFrame(rows)


def base_quality(layer: int, n_layers: int) -> float:
    return 0.35 + 0.3 * (layer / n_layers) ** 0.7


def tau_gain(layer: int, tau: float, n_layers: int) -> float:
    """Quality at τ minus that at 1: best at 0.8 in the deeper half, best at 1 before."""
    if layer / n_layers > 0.5:
        return 0.04 * (1 - ((tau - BEST_TAU) / 0.2) ** 2)
    return -0.5 * (tau - 1) ** 2


def half_of(tau: float) -> float:
    return 0.0 if tau == 1.0 else HALF


def temperature_table(n_layers: int, strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for layer in range(n_layers + 1):
        best = BEST_TAU if layer / n_layers > 0.5 else 1.0
        for tau in TAUS:
            gain = max(-0.2, tau_gain(layer, tau, n_layers))
            for split in ("calibrate", "test"):
                plain = (cosine(layer, 128, n_layers, strength), slope(layer, n_layers, strength))
                left = _left(plain[0] - 0.05 * (1 - tau), plain[1] * tau, plain, half_of(tau))
                quality = base_quality(layer, n_layers) + gain
                half = half_of(tau)
                rows.append({
                    "dataset": DATA, "tau": tau, "layer": layer, "split": split, "measure": "ndcg_at_10",
                    "quality": quality, "low": quality - 0.03, "high": quality + 0.03,
                    "difference": gain, "difference_low": gain - half, "difference_high": gain + half,
                    **left,
                    "chosen": tau == best, "n": 400, "seed": 0,
                })  # fmt: skip
    return pd.DataFrame(rows)


def remedies_table(n_layers: int, strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for layer in range(n_layers + 1):
        for name, (added, left) in REMEDIES.items():
            gain = added * layer / n_layers
            quality = base_quality(layer, n_layers) + gain
            half = 0.0 if name == "none" else HALF
            plain = (cosine(layer, 128, n_layers, strength), slope(layer, n_layers, strength))
            rows.append({
                "dataset": DATA, "remedy": name, "layer": layer, "split": "test", "measure": "ndcg_at_10",
                "quality": quality, "low": quality - 0.03, "high": quality + 0.03,
                "difference": gain, "difference_low": gain - half, "difference_high": gain + half,
                **_left(left * plain[0], left * plain[1], plain, half), "n": 400, "seed": 0,
            })  # fmt: skip
    return pd.DataFrame(rows)


def chunking_table(n_layers: int, strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for layer in range(n_layers + 1):
        base = base_quality(layer, n_layers)
        gain = 0.06 * layer / n_layers
        for method, more in (("late", gain), ("first", 0.0), ("whole", -0.08)):
            late = method == "late"
            rows.append({
                "method": method, "layer": layer, "measure": "ndcg_at_10", **_span(base + more, 0.03),
                "difference": gain if late else None, "difference_low": gain - HALF if late else None,
                "difference_high": gain + HALF if late else None, "n": 300, "seed": 0,
            })  # fmt: skip
    return pd.DataFrame(rows)


def bottleneck_table(n_layers: int, strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for rank in (4, 8, 16, 32, 64, 128, 256, 384):
        loss = 4 + 8 * float(np.exp(-rank / 50))
        more = _change(
            "difference", loss - 4 - 8 * float(np.exp(-384 / 50)), HALF if rank < 384 else 0
        )
        numbers = {"rank": rank, "loss_bits": loss, **_span(loss, 0.05), **more}
        rows.append({**numbers, "n": 200, "seed": 0})
    return pd.DataFrame(rows).drop(columns="value")


def spectrum_table(n_layers: int, strength: float) -> pd.DataFrame:
    ranks = np.arange(1, 385)
    return pd.DataFrame({"rank": ranks, "singular_value": 50.0 * ranks**-0.6})


def mask_table(n_layers: int, strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for layer in range(n_layers + 1):
        without = 180 - 60 * layer / n_layers
        ratio = 1 - 0.3 * layer / n_layers
        rows.append({
            "layer": layer, "with_mask": without * ratio, "with_low": without * ratio - 4,
            "with_high": without * ratio + 4, "without": without, "without_low": without - 4,
            "without_high": without + 4, "ratio": ratio, "ratio_low": ratio - 0.03,
            "ratio_high": ratio + 0.03, "n": 5000, "seed": 0,
        })  # fmt: skip
    return pd.DataFrame(rows)


def recall(layer: int, dim: int, distractors: int, k: int, n_layers: int) -> float:
    start = 0.75 + 0.2 * layer / n_layers + (0.04 if k == 10 else 0)
    return max(0.0, start - 0.05 * np.log10(distractors / 100) * (1 + np.log2(384 / dim)))


def index_table(n_layers: int, strength: float) -> pd.DataFrame:
    rows: list[Row] = []
    for layer in range(n_layers + 1):
        for dim in DIMS:
            for distractors in DISTRACTORS:
                for k in (1, 10):
                    value = recall(layer, dim, distractors, k, n_layers)
                    rows.append({
                        "dataset": DATA, "layer": layer, "dim": dim, "distractors": distractors, "k": k,
                        "recall": value, "low": value - 0.02, "high": value + 0.02, "n": 500, "seed": 0,
                    })  # fmt: skip
    return pd.DataFrame(rows)


def breaks_table(n_layers: int, strength: float) -> pd.DataFrame:
    """A width is shown to lose where it does so by more than HALF; at 128 dimensions it never does."""
    rows: list[Row] = []
    for layer in range(n_layers + 1):
        for dim in DIMS[:-1]:
            for k in (1, 10):
                gaps = [
                    (
                        n,
                        recall(layer, dim, n, k, n_layers)
                        - recall(layer, DIMS[-1], n, k, n_layers),
                    )
                    for n in DISTRACTORS
                ]
                half = HALF if dim == 64 else 1.0
                at, gap = next((one for one in gaps if one[1] < -half), (None, gaps[-1][1]))
                rows.append({
                    "dataset": DATA, "layer": layer, "dim": dim, "k": k, "distractors": at,
                    **_change("difference", gap, half), "n": 500, "seed": 0,
                })  # fmt: skip
    ends = {"difference_low": "low", "difference_high": "high"}
    return pd.DataFrame(rows).rename(columns=ends).astype({"distractors": "Int64"})


TABLES: dict[str, tuple[str, Callable[[int, float], pd.DataFrame]]] = {  # name: part, maker
    "length": ("length", length_table),
    "temperature": ("temperature", temperature_table),
    "remedies": ("remedies", remedies_table),
    "chunking": ("chunking", chunking_table),
    "bottleneck": ("bottleneck", bottleneck_table),
    "head_spectrum": ("bottleneck", spectrum_table),
    "mask": ("mask", mask_table),
    "index_size": ("index", index_table),
    "index_breaks": ("index", breaks_table),
}


def measurement_rows(n_layers: int, strength: float) -> list[Row]:
    rows: list[Row] = []
    for mode, share in _MODES.items():
        for layer in range(n_layers + 1):
            where = {"site": "exit", "layer": layer, "dataset": "reference", "variant": mode}
            value = slope(layer, n_layers, strength * share)
            rows.append({"measure": "collapse_slope", **where, **_span(value, 0.004), "n": 300})
    for layer in range(n_layers + 1):
        where = {"site": "exit", "layer": layer, "dataset": "reference", "variant": "cut"}
        value = onset(layer, n_layers, strength)
        rows.append({"measure": "collapse_onset_tokens", **where, "value": value, "n": 300})
    return rows


def write_collapse_run(
    parent: Path,
    slug: str = "minilm-collapse",
    *,
    n_layers: int = 6,
    strength: float = 1.0,
    status: str = "finished",
    parts: Sequence[str] = PARTS,
    hostile: bool = False,
) -> Path:
    """One run folder over layers 0 to `n_layers`; `strength` 0 plants no collapse, `parts` says what was measured."""
    model = HOSTILE if hostile else "minilm"
    run = Run.create(
        parent, "embedding-collapse", {"model": model, "data": DATA, "seed": 0}, slug=slug
    )
    run.describe(model={"name": model, "n_layers": n_layers, "d_model": 384})
    run.describe(dataset={"name": DATA, "kind": "retrieval", "hash": "cd" * 32, "n": 400})
    run.progress(1, 7, "lengths")
    if "length" in parts:
        rows = measurement_rows(n_layers, strength)
        with declared([row["measure"] for row in rows]):
            run.add(tidy(rows))
    for name, (part, make) in TABLES.items():
        if part in parts:
            frame = make(n_layers, strength)
            if hostile:
                texts = frame.select_dtypes(["object", "string"]).columns
                for text in set(texts) & {"dataset", "remedy", "method"}:
                    frame[text] = [f"{value} {HOSTILE}" for value in frame[text]]
            run.write_table(name, frame)
    reason = f"no such thing {HOSTILE}" if hostile else "the model has no such head"
    told = [
        {"part": part, "applies": part in parts, "reason": None if part in parts else reason}
        for part in PARTS
    ]
    run.write_table("applies", pd.DataFrame(told).astype({"reason": "string"}))
    if status == "finished":
        run.finish()
    elif status != "running":
        run.fail("out of memory at τ = 0.5", status)  # type: ignore[arg-type]
    return run.path
