"""Which heads and MLPs do a task, how few of them suffice, and how does information flow through the layers?

    fathometer run circuits --model smollm2 --data ioi,greater_than
    python analyses/circuits.py --model gpt2 --data my_pairs.csv --parts attribution,patching

On pairs of a clean and a corrupted prompt: direct logit attribution, activation patching and its approximation by
gradients, faithfulness of the model with few heads left, and the logit lens. Beside that saliency of label words, maps
of graphs in context, and core neurons. What does not apply to a model is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probes.analysis import (
    DRAWS,
    Analysis,
    Option,
    Progress,
    model_options,
    open_model,
    parse_names,
    require_options,
)
from probes.errors import InputError
from probes.heads.circuits.names import PARTS, TASKS
from probes.runs import Previous, Run

_SHARED = ("model", "device", "dtype", "seed", "trust_remote_code")


def run(run: Run, options: Mapping[str, Any], progress: Progress) -> None:
    """Fill an open run folder with the tables of every part that applies."""
    from probes.heads.circuits import study_circuits

    plan = plan_of(options)
    if plan.path is not None:
        run.describe(dataset=describe_pairs(plan.path))
    model = open_model(run, options, progress)
    study_circuits(model, plan, run, progress, previous=Previous.of(run))


def describe_pairs(path: str) -> dict[str, Any]:
    """What `run.json` says of a file of pairs; another file in its place is noticed when a run goes on."""
    from probes.files import sha256_file
    from probes.heads.circuits.files import read_pairs

    file = Path(path)
    return {
        "name": file.stem,
        "kind": "prompt-pairs",
        "n": len(read_pairs(file)),
        "hash": sha256_file(file),
        "licence": "your own data",
        "notes": [],
    }


def plan_of(options: Mapping[str, Any]) -> Any:
    """The study's plan from the options as they were given."""
    from probes.heads.circuits.plan import CircuitPlan

    tasks, path = tasks_of(options["data"])
    return CircuitPlan(
        parts=parse_names(options["parts"], PARTS, "--parts"),
        tasks=tasks,
        path=path,
        pairs=options["pairs"],
        patched=options["patched"],
        draws=options["draws"],
        seed=options["seed"],
    )


def tasks_of(text: str) -> tuple[frozenset[str], str | None]:
    """The built-in tasks and the file of pairs that `--data` names, separated by commas.

    >>> sorted(tasks_of("ioi,my_pairs.csv")[0]), tasks_of("ioi,my_pairs.csv")[1]
    (['ioi'], 'my_pairs.csv')
    """
    named = [name for name in (part.strip() for part in text.split(",")) if name]
    files = [name for name in named if "." in name or "/" in name]
    if len(files) > 1:
        raise InputError(f"--data {text!r}: one file of pairs at a time, {len(files)} came")
    tasks = ",".join(name for name in named if name not in files) or "none"
    return parse_names(tasks, TASKS, "--data"), files[0] if files else None


def check(options: Mapping[str, Any]) -> None:
    """Refuse names and numbers that mean nothing, before a run folder is made."""
    from probes.heads.circuits.files import read_pairs

    plan = plan_of(options)
    require_options(options)
    if plan.path is not None:
        read_pairs(plan.path)


ANALYSIS = Analysis(
    name="circuits",
    title="Circuits",
    question="Which heads do a task, how few of them suffice, and where does the answer appear?",
    options=(
        *(o for o in model_options("smollm2", "") if o.name in _SHARED),
        Option(
            "data",
            str,
            "all",
            f"Tasks, separated by commas: {', '.join(TASKS)}; all of these, or none; and a file of your own pairs with "
            "the columns clean, corrupted, answer, wrong (several answers separated by |).",
        ),
        Option(
            "parts",
            str,
            "all",
            f"What to measure, separated by commas: {', '.join(PARTS)}; or all, or none.",
        ),
        Option("pairs", int, 50, "Pairs of prompts of each task.", low=4, high=5000),
        Option(
            "patched",
            int,
            20,
            "Of these, pairs for activation patching, which takes a forward pass for each place; heads are ranked on "
            "them and judged on the others, where there are 10 or more.",
            low=4,
            high=5000,
        ),
        DRAWS,
    ),
    run=run,
    precheck=check,
)

if __name__ == "__main__":
    from probes.cli import run_script

    run_script(ANALYSIS)
