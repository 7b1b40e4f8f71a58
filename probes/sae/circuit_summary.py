"""AUCs of a circuit over seeds: the mean of each method, and what the autoencoder has beyond each baseline."""

from __future__ import annotations

from typing import Any

import numpy as np

from probes.registry import Measure, register_measure
from probes.stats import t_interval

Row = dict[str, Any]
Rows = list[Row]

METHODS = ("sae", "random", "clusters", "mean difference")

CIRCUIT_AUC = register_measure(
    Measure(
        "circuit_auc",
        "Heads of the circuit found",
        "",
        0.0,
        1.0,
        "up",
        "ROC AUC of a head's (or edge's) score for the heads (or edges between such heads) that activation patching "
        "shows to matter; 0.5 is chance.",
        "O'Neill & Bui 2024 (arXiv 2405.12522)",
        0.5,
    )
)
CIRCUIT_AUC_DIFFERENCE = register_measure(
    Measure(
        "circuit_auc_difference",
        "Heads of the circuit found, difference",
        "",
        -1.0,
        1.0,
        "up",
        "ROC AUC of the autoencoder's scores less that of a baseline's, seed by seed on the same pairs.",
        chance=0.0,
    )
)


def summarise(task: str, scores: Rows, seed: int = 0) -> Rows:
    """Tidy rows from `DiscreteCircuit.scores`: the mean AUC of each method over seeds, and what the autoencoder has
    beyond each baseline, paired by seed; Student's intervals, None where there is one seed only."""
    found: Rows = []
    for level, more in (("node", ""), ("edge", " edges")):
        by_method: dict[str, dict[int, float]] = {}
        for row in scores:
            if row["level"] == level:
                by_method.setdefault(row["method"], {})[row["seed"]] = row["auc"]
        own = by_method.get("sae", {})
        for method in (name for name in METHODS if name in by_method):
            aucs = by_method[method]
            about = {"dataset": task, "variant": method + more, "seed": seed}
            found.append(_over_seeds(CIRCUIT_AUC, list(aucs.values()), about))
            if method != "sae" and own:
                differences = [own[s] - aucs[s] for s in own]
                found.append(_over_seeds(CIRCUIT_AUC_DIFFERENCE, differences, about))
    return found


def _over_seeds(measure: Measure, values: list[float], about: Row) -> Row:
    ends = t_interval(np.array(values))
    low, high = (None, None) if ends is None else np.clip(ends, measure.low, measure.high).tolist()
    mean = float(np.mean(values))
    return {
        "measure": measure.name,
        **about,
        "value": mean,
        "low": low,
        "high": high,
        "n": len(values),
    }
