"""What connects concepts: which is deeper, whether a probe carries over, what erasing one costs the others."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from probes.concepts.each import layers_at
from probes.concepts.tasks import ConceptTask
from probes.erasure import ConceptStates, DamageOptions, collateral
from probes.probing import (
    MassMeanProbe,
    compare_depths,
    direction_agreement,
    transfer_matrix,
)

if TYPE_CHECKING:
    from probes.concepts.study import Study

ERASED_AT = (2 / 3,)  # relative depth
MOST_ERASED = 5  # concepts: every one is erased and every one measured


def depth_tests(study: Study) -> None:
    """Which concept lies deeper than which, over all pairs of concepts that have a depth."""
    pairs = len(study.curves) * (len(study.curves) - 1) // 2
    if pairs:
        draws = max(10_000, 80 * pairs)  # what Holm's correction over all pairs takes
        study.extend("depth_tests", compare_depths(study.curves, draws=draws, seed=study.plan.seed))


def same_question(tasks: tuple[ConceptTask, ...]) -> list[list[ConceptTask]]:
    """Concepts of one family that give single texts the same two classes: one concept in several contexts."""
    found: dict[tuple[str, tuple[str, ...]], list[ConceptTask]] = {}
    for task in tasks:
        if task.is_binary:
            found.setdefault((task.family, task.target.names), []).append(task)
    return [group for group in found.values() if len(group) > 1]


def transfer(study: Study) -> None:
    """Probes trained on one data set and tested on the others of its family."""
    for group in same_question(study.measured):
        study.extend(
            "transfer",
            transfer_matrix(
                {task.name: study.states(task) for task in group},
                {task.name: task.labels for task in group},
                groups=_groups(group),
                probe=MassMeanProbe(),
                cv=study.plan.folds,
                seed=study.plan.seed,
                draws=study.plan.draws,
            ),
        )


def directions(study: Study) -> None:
    """Whether a concept has one direction: across data sets of a family, or across random halves of one."""
    groups = same_question(study.measured)
    grouped = {task.name for group in groups for task in group}
    singles = [[task] for task in study.measured if task.is_binary and task.name not in grouped]
    for group in groups + singles:
        alone = len(group) == 1
        rows = direction_agreement(
            {task.name: study.states(task) for task in group},
            {task.name: task.labels for task in group},
            groups=_groups(group),
            seed=study.plan.seed,
            dataset=group[0].dataset.name if alone else None,
            concept=group[0].name if alone else f"{group[0].family} ({len(group)} sets)",
            pooling=study.pooling(group[0]),
        )
        study.add(rows)


def _groups(tasks: list[ConceptTask]) -> dict[str, Any]:
    return {task.name: task.groups for task in tasks if task.groups is not None}


def _spread(tasks: list[ConceptTask]) -> list[ConceptTask]:
    """At most `MOST_ERASED` concepts: the first of every family, then the second, …"""
    seen: Counter[str] = Counter()
    turns: list[tuple[int, int, ConceptTask]] = []
    for at, task in enumerate(tasks):
        turns.append((seen[task.family], at, task))
        seen[task.family] += 1
    return [task for _, _, task in sorted(turns, key=lambda turn: turn[:2])[:MOST_ERASED]]


def erasure(study: Study) -> None:
    """Accuracy of every concept after every concept was erased from the states of one layer."""
    tasks = [task for task in study.measured if task.kind == "classes"]
    if not tasks:
        return
    chosen = _spread(tasks)
    if len(tasks) > len(chosen):
        names = ", ".join(task.name for task in chosen)
        study.tell(
            None, f"erasure: of {len(tasks)} concepts of texts {names} are erased and measured"
        )
    concepts = {
        task.name: ConceptStates(study.states(task), task.labels, task.groups) for task in chosen
    }

    def tell(done: int, total: int) -> None:
        study.progress(done, total, "erase concepts and measure the others")

    plan = study.plan
    frame = collateral(
        concepts,
        layers_at(study.n_layers, ERASED_AT),
        options=DamageOptions(cv=plan.folds, seed=plan.seed, draws=plan.draws),
        progress=tell,
    )
    study.extend("erasure", frame)
