"""The part `circuits`: heads of known tasks found from sparse codes of what they write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from probes.errors import DoesNotApply
from probes.models.completions import require_language_model
from probes.sae.circuit_outputs import circuit_task
from probes.sae.circuits import CircuitSettings, discrete_circuit

if TYPE_CHECKING:
    from probes.features.study import Study

PAIRS = 80


def circuits(study: Study) -> None:
    """Tables sae_circuits and sae_circuit_heads, task after task; a task that cannot be done leaves its reason."""
    model, plan = study.model, study.plan
    require_language_model(model)
    if not plan.look.tasks:
        raise DoesNotApply("no circuit task was asked for")
    settings = CircuitSettings(seeds=plan.look.seeds)
    scores: list[dict[str, Any]] = []
    heads: list[dict[str, Any]] = []
    reasons: list[str] = []
    for name in plan.look.tasks:
        try:
            task = circuit_task(model, name, PAIRS, plan.seed)
            found = discrete_circuit(
                model,
                task,
                settings,
                seed=plan.seed,
                report=study.report(f"circuit of {name}"),
            )
        except DoesNotApply as reason:
            reasons.append(f"circuit of {name}: {reason}")
            continue
        scores += found.scores
        heads += found.heads
        study.add(found.measurements)
        study.write("sae_circuits", scores)
        study.write("sae_circuit_heads", heads)
    study.tell(reasons)
    if not scores:
        raise DoesNotApply("; ".join(reasons))
