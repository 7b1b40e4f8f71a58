"""Attention heads: which retrieve, copy and compose, whether they matter, and what circuits they form.

Public names load on first use, so that one family of measures does not load the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.heads.ablation import (
        Judge,
        ablate_heads,
        causal_check,
        matched_random_heads,
        mean_outputs,
        single_head_effects,
    )
    from probes.heads.circuits import (
        attribute,
        faithfulness_curves,
        make_task,
        patch_activations,
        patch_attributions,
        read_lens,
    )
    from probes.heads.flow import (
        graph_energy,
        label_saliency,
    )
    from probes.heads.neurons import (
        core_neurons,
        neuron_table,
    )
    from probes.heads.retrieval import (
        Needle,
        attention_example,
        build_trial,
        haystack_ids,
        measure_trial,
        plan_trials,
        retrieval_scores,
    )
    from probes.heads.types import (
        attention_shapes,
        induction_scores,
    )
    from probes.heads.weights import (
        composition_scores,
        copying_scores,
        head_spectra,
        head_weights,
        low_rank,
        low_rank_curve,
    )

_HOMES = {
    "Judge": "probes.heads.ablation",
    "Needle": "probes.heads.retrieval",
    "ablate_heads": "probes.heads.ablation",
    "attention_example": "probes.heads.retrieval",
    "attention_shapes": "probes.heads.types",
    "attribute": "probes.heads.circuits",
    "build_trial": "probes.heads.retrieval",
    "causal_check": "probes.heads.ablation",
    "composition_scores": "probes.heads.weights",
    "copying_scores": "probes.heads.weights",
    "core_neurons": "probes.heads.neurons",
    "faithfulness_curves": "probes.heads.circuits",
    "graph_energy": "probes.heads.flow",
    "haystack_ids": "probes.heads.retrieval",
    "head_spectra": "probes.heads.weights",
    "head_weights": "probes.heads.weights",
    "induction_scores": "probes.heads.types",
    "label_saliency": "probes.heads.flow",
    "low_rank": "probes.heads.weights",
    "low_rank_curve": "probes.heads.weights",
    "make_task": "probes.heads.circuits",
    "matched_random_heads": "probes.heads.ablation",
    "mean_outputs": "probes.heads.ablation",
    "measure_trial": "probes.heads.retrieval",
    "neuron_table": "probes.heads.neurons",
    "patch_activations": "probes.heads.circuits",
    "patch_attributions": "probes.heads.circuits",
    "plan_trials": "probes.heads.retrieval",
    "read_lens": "probes.heads.circuits",
    "retrieval_scores": "probes.heads.retrieval",
    "single_head_effects": "probes.heads.ablation",
}

__all__ = [
    "Judge",
    "Needle",
    "ablate_heads",
    "attention_example",
    "attention_shapes",
    "attribute",
    "build_trial",
    "causal_check",
    "composition_scores",
    "copying_scores",
    "core_neurons",
    "faithfulness_curves",
    "graph_energy",
    "haystack_ids",
    "head_spectra",
    "head_weights",
    "induction_scores",
    "label_saliency",
    "low_rank",
    "low_rank_curve",
    "make_task",
    "matched_random_heads",
    "mean_outputs",
    "measure_trial",
    "neuron_table",
    "patch_activations",
    "patch_attributions",
    "plan_trials",
    "read_lens",
    "retrieval_scores",
    "single_head_effects",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probes.heads' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
