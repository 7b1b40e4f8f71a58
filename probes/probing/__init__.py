"""Probes: simple classifiers on states, and a sweep of them over all layers.

`LinearProbe` (logistic), `RidgeProbe` (least squares, quickest) and `MassMeanProbe` (difference of
means) are scikit-learn estimators; `sweep` cross-validates any of them on every layer and gives a
tidy table.
"""

from __future__ import annotations

from probes.probing import measures as _measures  # noqa: F401  # pyright: ignore[reportUnusedImport]  # registers
from probes.probing.compare import compare_depths
from probes.probing.contrastive import ContrastiveProbe
from probes.probing.curves import Curve
from probes.probing.depth import depth_numbers, mdl_depth, rise_above
from probes.probing.directions import direction_agreement
from probes.probing.fewshot import few_shot
from probes.probing.linear import LinearProbe
from probes.probing.magnitude import magnitude_correlation
from probes.probing.massmean import MassMeanProbe
from probes.probing.mdl import MDLProbe
from probes.probing.mdl_sweep import mdl_sweep
from probes.probing.minimal_pairs import MinimalPairProbe, minimal_pair_sweep
from probes.probing.regression import RidgeRegressionProbe
from probes.probing.regression_sweep import regression_sweep
from probes.probing.ridge import RidgeProbe
from probes.probing.scalar_mix import ScalarMixProbe
from probes.probing.sweep import CONTROLS, BelowChanceWarning, Swept, cross_validate, sweep
from probes.probing.transfer import transfer_matrix
from probes.probing.unseen import unseen_retrieval

__all__ = [
    "CONTROLS",
    "BelowChanceWarning",
    "ContrastiveProbe",
    "Curve",
    "LinearProbe",
    "MDLProbe",
    "MassMeanProbe",
    "MinimalPairProbe",
    "RidgeProbe",
    "RidgeRegressionProbe",
    "ScalarMixProbe",
    "Swept",
    "compare_depths",
    "cross_validate",
    "depth_numbers",
    "direction_agreement",
    "few_shot",
    "magnitude_correlation",
    "mdl_depth",
    "mdl_sweep",
    "minimal_pair_sweep",
    "regression_sweep",
    "rise_above",
    "sweep",
    "transfer_matrix",
    "unseen_retrieval",
]
