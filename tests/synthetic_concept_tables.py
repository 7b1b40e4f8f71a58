"""The tables of a synthetic concept-depth run, and the planted concept that all its numbers follow from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from synthetic_runs import HOSTILE

Row = dict[str, Any]
Concepts = Sequence["Planted"]

EXAMPLES = 12  # per concept


@dataclass(frozen=True)
class Planted:
    """One concept: readable at `top` from relative depth `onset` on; a bag of words reaches `bag`."""

    name: str
    family: str
    kind: str = "classes"
    n: int = 600
    classes: int = 2
    top: float = 0.95
    onset: float = 0.4
    bag: float = 0.55

    @property
    def measure(self) -> str:
        return "r2" if self.kind == "numbers" else "accuracy"

    @property
    def dataset(self) -> str:
        return f"{self.name}-set"

    @property
    def chance(self) -> float:
        return 0.0 if self.kind == "numbers" else 1 / self.classes

    def value(self, layer: int, n_layers: int, strength: float = 1.0) -> float:
        """True height of the curve; `strength` shrinks its rise above chance."""
        x = layer / n_layers
        rise = 1 / (1 + np.exp(-(x - self.onset) / 0.05))
        fade = 1 - 0.04 * max(0.0, x - 0.8)
        return float(self.chance + strength * (self.top - self.chance) * rise * fade)

    def half(self, value: float) -> float:
        """Half the width of a 95 % interval."""
        if self.kind == "numbers":
            return 0.04
        return float(1.96 * np.sqrt(max(value * (1 - value), 0.01) / self.n))

    def spread(self, value: float) -> Row:
        half = self.half(value)
        return {"low": value - half, "high": min(1.0, value + half)}

    @property
    def readable(self) -> bool:
        return self.top - self.chance > 2 * self.half(self.chance)

    def peak(self, n_layers: int) -> int:
        return int(np.argmax([self.value(k, n_layers) for k in range(n_layers + 1)]))

    def depth(self, n_layers: int, strength: float = 1.0) -> int:
        """First layer from which on the true curve stays within the interval of its peak."""
        heights = [self.value(k, n_layers, strength) for k in range(n_layers + 1)]
        floor = max(heights) - self.half(max(heights))
        return max((k for k, height in enumerate(heights) if height < floor), default=-1) + 1


def concepts_table(concepts: Concepts, n_layers: int) -> pd.DataFrame:
    notes = {False: "never rises above chance", True: None}
    rows = [
        {
            "concept": c.name,
            "family": c.family,
            "kind": c.kind,
            "dataset": c.dataset,
            "measure": c.measure,
            "n": c.n,
            "classes": c.classes or None,
            "chance": c.chance,
            "groups": c.n // 4 if at % 2 else None,
            "note": notes[c.readable],
        }
        for at, c in enumerate(concepts)
    ]
    return pd.DataFrame(rows).astype({"classes": "Int64", "groups": "Int64", "note": "string"})


def depth_tests_table(concepts: Concepts, n_layers: int) -> pd.DataFrame:
    """Every pair of concepts that have a depth; three layers apart are told apart."""
    rows: list[Row] = []
    for a, b in combinations([c for c in concepts if c.readable], 2):
        gap = a.depth(n_layers) - b.depth(n_layers)
        p = float(np.exp(-abs(gap)))
        holm = min(1.0, 20 * p)
        deeper = None if holm >= 0.05 else a.name if gap > 0 else b.name
        depths = {"depth_a": a.depth(n_layers), "depth_b": b.depth(n_layers)}
        span = {"difference": gap, "low": gap - 3, "high": gap + 3}
        rows.append(
            {"a": a.name, "b": b.name, **depths, **span, "p": p, "p_holm": holm, "deeper": deeper}
        )
    columns = ["a", "b", "depth_a", "depth_b", "difference", "low", "high", "p", "p_holm", "deeper"]
    return pd.DataFrame(rows, columns=columns).astype({"deeper": "string"})


def _binary(concepts: Concepts) -> list[Planted]:
    return [c for c in concepts if c.kind == "classes" and c.classes == 2]


def transfer_table(concepts: Concepts, n_layers: int) -> pd.DataFrame:
    """Train on one, test on another, at four depths; what is learnt carries over within a family."""
    layers = sorted({round(n_layers * share) for share in (0.25, 0.5, 0.75, 1)})
    rows: list[Row] = []
    for train in _binary(concepts):
        for test in _binary(concepts):
            strength = 1.0 if train is test else 0.7 if train.family == test.family else 0.1
            for layer in layers:
                value = test.value(layer, n_layers, strength)
                size = {**test.spread(value), "n": test.n, "chance": 0.5}
                rows.append(
                    {"train": train.name, "test": test.name, "layer": layer, "value": value, **size}
                )
    return pd.DataFrame(rows)


def erasure_table(concepts: Concepts, n_layers: int) -> pd.DataFrame:
    """Erasing brings a concept to the majority rate and costs its family a little; a random direction costs nothing."""
    layer = round(0.7 * n_layers)
    kept = {"leace": 0.0, "inlp": 0.02, "random": 0.99}
    rows: list[Row] = []
    for erased in _binary(concepts):
        for measured in _binary(concepts):
            before = measured.value(layer, n_layers)
            for method, share in kept.items():
                own = (
                    share
                    if measured is erased
                    else max(share, 0.8 if measured.family == erased.family else 0.97)
                )
                after = 0.5 + own * (before - 0.5)
                half = measured.half(after)
                what = {"layer": layer, "method": method, "rank": 6 if method == "inlp" else 1}
                span = {"before": before, "before_low": before - half, "before_high": before + half}
                then = {"after": after, "after_low": after - half, "after_high": after + half}
                names = {"erased": erased.name, "measured": measured.name}
                rows.append({**what, **names, **span, **then, "majority": 0.5, "n": measured.n})
    return pd.DataFrame(rows)


def causal_table(concepts: Concepts, n_layers: int) -> pd.DataFrame:
    """Erasing takes away half of the model's own preference for the truth, steering adds to it; random does neither."""
    layer = round(0.7 * n_layers)
    rows: list[Row] = []
    for concept in [c for c in _binary(concepts) if c.family.startswith("factual")]:
        base = 4 * (concept.top - 0.5)
        effects: list[tuple[str, float, int, float]] = [
            ("none", 0.0, 0, 0.0),
            ("leace", 0.0, 1, -0.5 * base),
            ("inlp", 0.0, 6, -0.6 * base),
            ("random", 0.0, 1, -0.01),
            ("random", 0.0, 6, -0.05),
        ]
        for strength in (-4.0, -2.0, 2.0, 4.0):
            effects.append(("steer", strength, 1, 0.3 * strength))
            effects.append(("steer-random", strength, 1, 0.01 * strength))
        for treatment, strength, rank, effect in effects:
            value = base + effect
            what = {"treatment": treatment, "strength": strength, "rank": rank}
            draws = 10 if "random" in treatment else 1
            span = {"value": value, "low": value - 0.15, "high": value + 0.15, "draws": draws}
            over = {
                "over_random": effect + 0.02,
                "over_random_low": effect - 0.18,
                "over_random_high": effect + 0.22,
            }
            controlled = treatment in ("leace", "inlp", "steer")
            rows.append(
                {"layer": layer, **what, **span, "n": concept.n // 2, "concept": concept.name}
                | (over if controlled else dict.fromkeys(over))
            )
    columns = [
        "layer",
        "treatment",
        "strength",
        "rank",
        "value",
        "low",
        "high",
        "n",
        "draws",
        "concept",
        "over_random",
        "over_random_low",
        "over_random_high",
    ]
    return pd.DataFrame(rows, columns=columns)


def over_time_table(concepts: Concepts, n_layers: int) -> pd.DataFrame:
    """What is readable after each sentence, for concepts of several sentences."""
    rows: list[Row] = []
    for concept in [c for c in concepts if c.name.startswith(("entity-tracking", "sentiment"))]:
        for sentence in range(1, 6):
            for layer in range(n_layers + 1):
                value = concept.value(layer, n_layers, sentence / 5)
                span = {**concept.spread(value), "n": concept.n, "chance": concept.chance}
                rows.append(
                    {
                        "concept": concept.name,
                        "sentence": sentence,
                        "layer": layer,
                        "value": value,
                        **span,
                    }
                )
    columns = ["concept", "sentence", "layer", "value", "low", "high", "n", "chance"]
    return pd.DataFrame(rows, columns=columns)


def scalar_mix_table(concepts: Concepts, n_layers: int) -> pd.DataFrame:
    layers = np.arange(n_layers + 1)
    frames: list[pd.DataFrame] = []
    for concept in [c for c in concepts if c.kind in ("classes", "tokens")]:
        weight = np.exp(-(((layers / n_layers - concept.onset - 0.1) / 0.15) ** 2))
        share = weight * (1 + layers / n_layers)
        rows = {
            "concept": concept.name,
            "layer": layers,
            "weight": weight / weight.sum(),
            "share": share / share.sum(),
        }
        best = concept.value(concept.peak(n_layers), n_layers)
        frames.append(pd.DataFrame(rows).assign(value=best + 0.005, best_layer_value=best))
    return pd.concat(frames, ignore_index=True)


def examples_table(concepts: Concepts, n_layers: int) -> pd.DataFrame:
    rows = [
        {
            "concept": c.name,
            "example": at,
            "text": f"{HOSTILE} example {at} of {c.name}"
            if at == 0
            else f"Example {at} of {c.name}.",
            "label": f"class {at % 2}",
        }
        for c in concepts
        for at in range(EXAMPLES)
    ]
    return pd.DataFrame(rows)


def predictions_table(concepts: Concepts, n_layers: int) -> pd.DataFrame:
    """Sorted by layer: an easy example is read rightly from an early layer on, a hard one late or never."""
    rows = [
        {
            "concept": c.name,
            "layer": layer,
            "example": at,
            "correct": bool((at + 0.5) / EXAMPLES < c.value(layer, n_layers)),
        }
        for layer in range(n_layers + 1)
        for c in concepts
        for at in range(EXAMPLES)
    ]
    return pd.DataFrame(rows)


FRAMES: dict[str, Callable[[Concepts, int], pd.DataFrame]] = {
    "concepts": concepts_table,
    "depth_tests": depth_tests_table,
    "transfer": transfer_table,
    "erasure": erasure_table,
    "causal": causal_table,
    "over_time": over_time_table,
    "scalar_mix": scalar_mix_table,
    "examples": examples_table,
    "predictions": predictions_table,
}
