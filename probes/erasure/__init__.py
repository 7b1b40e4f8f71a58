"""Erasure: remove a concept from states or from a live model, and see what else that harms.

A fitter streams over data and leaves a small frozen `Eraser`, which is applied to stored states (`erased`) or inside a
model (`erase`); `collateral` measures what happens to other concepts, `causal_effect` what the model itself does.
"""

from __future__ import annotations

from probes.erasure.causal import CausalOptions, causal_effect
from probes.erasure.damage import ConceptStates, DamageOptions, collateral
from probes.erasure.eraser import Eraser, erased, random_eraser
from probes.erasure.hook import erase, steer
from probes.erasure.inlp import fit_inlp
from probes.erasure.leace import LeaceFitter, fit_leace
from probes.erasure.statements import CompletionPairs, statement_pairs

__all__ = [
    "CausalOptions",
    "CompletionPairs",
    "ConceptStates",
    "DamageOptions",
    "Eraser",
    "LeaceFitter",
    "causal_effect",
    "collateral",
    "erase",
    "erased",
    "fit_inlp",
    "fit_leace",
    "random_eraser",
    "statement_pairs",
    "steer",
]
