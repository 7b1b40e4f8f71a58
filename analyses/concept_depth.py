"""At which layer does this model know what, how sure is that, and would a bag of words know it too?

    fathometer run concept-depth --model smollm2 --data cities,sentiment,coin-flip
    python analyses/concept_depth.py --model minilm --data my_concepts.toml

Probes every layer for every concept, with controls (shuffled labels, control task, untrained weights, bag of words) and
under conditions (noise, coarser weights, templates, pooling); then asks which concept lies deeper than which, whether a
probe of one carries over to another, what erasing a concept costs the others, and whether the model itself uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from probes.analysis import (
    DRAWS,
    POOLING,
    Analysis,
    Option,
    Progress,
    describe_data,
    model_options,
    open_model,
    parse_columns,
    parse_names,
    require_options,
)
from probes.concepts.names import CONTROLS, PARTS
from probes.datasets.concepts import DEFAULT_CONCEPTS
from probes.runs import Run


def run(run: Run, options: Mapping[str, Any], progress: Progress) -> None:
    """Fill an open run folder with curves, depths and what connects the concepts."""
    from probes.concepts import load_tasks, study_concepts, usable_workers

    plan = plan_of(options)
    progress(0, None, "reading the data")
    columns = parse_columns(options["columns"])
    tasks = load_tasks(options["data"], columns, limit=options["limit"], seed=options["seed"])
    for task in tasks:
        run.describe(dataset=describe_data(task.dataset))
    model = open_model(run, options, progress)
    study_concepts(
        model, tasks, plan, run, progress, workers=options["workers"] or usable_workers()
    )


def plan_of(options: Mapping[str, Any]) -> Any:
    """The study's plan from the options as they were given."""
    from probes.concepts import ConceptPlan, Places, parse_conditions

    switches = {name: options[name.replace("-", "_")] for name in CONTROLS}
    template = options["template"]
    return ConceptPlan(
        probe=options["probe"],
        folds=options["folds"],
        controls=frozenset(name for name, on in switches.items() if on),
        parts=parse_names(options["parts"], PARTS, "--parts"),
        conditions=parse_conditions(options["conditions"], [template] if template else ()),
        places=Places(options["pooling"], options["span_pooling"], options["max_length"]),
        draws=options["draws"],
        seed=options["seed"],
    )


def check(options: Mapping[str, Any]) -> None:
    """Refuse names of models, data, conditions and parts that mean nothing, before a run folder is made."""
    from probes.concepts import load_tasks

    plan_of(options)
    require_options(options)
    load_tasks(options["data"], parse_columns(options["columns"]), limit=options["limit"])


def _options() -> tuple[Option, ...]:
    own = {
        "data": "Concepts: names of `fathometer datasets list` and files, separated by commas; a folder of files; or a "
        ".toml file with one table per concept (data, family, columns, where).",
        "limit": "At most this many examples of a concept (words of word-labelled data: four times as many).",
    }
    shared = [
        replace(option, help=own.get(option.name, option.help))
        for option in model_options("minilm", DEFAULT_CONCEPTS)
    ]
    return tuple(replace(o, default=1000) if o.name == "limit" else o for o in shared)


ANALYSIS = Analysis(
    name="concept-depth",
    title="Concept depth",
    question="At which layer does this model know what, and would a bag of words know it too?",
    options=(
        *_options(),
        Option(
            "probe",
            str,
            "linear",
            "Classifier on the states; numbers take ridge regression, minimal pairs a probe of differences.",
            ("linear", "ridge", "mass-mean", "mass-mean-cov"),
        ),
        Option("folds", int, 5, "Folds of the cross-validation.", low=2, high=50),
        POOLING,
        Option(
            "span_pooling",
            str,
            "last",
            "Which token of a labelled word or span is read.",
            ("last", "first", "mean", "max"),
        ),
        Option("shuffled", bool, True, "Control: labels shuffled within folds."),
        Option("control_task", bool, True, "Control: random labels per word type (selectivity)."),
        Option("untrained", bool, True, "Control: the same architecture with fresh weights."),
        Option("bag_of_words", bool, True, "Control: TF-IDF of the text itself."),
        Option(
            "conditions",
            str,
            None,
            "Measure again under: noise=prepend|swap|shuffle|drop, weights=int8|int4, dtype=bfloat16, pooling=last …, "
            "separated by commas.",
        ),
        Option(
            "template", str, None, 'Measure again within a template, such as "True or false? {}"'
        ),
        Option(
            "parts",
            str,
            "all",
            f"What else to do, separated by commas: {', '.join(PARTS)}; or all, or none.",
        ),
        Option(
            "workers",
            int,
            None,
            "Processes that fit probes while the model reads on; default one per processor.",
            low=1,
            high=64,
        ),
        DRAWS,
    ),
    run=run,
    precheck=check,
)

if __name__ == "__main__":
    from probes.cli import run_script

    run_script(ANALYSIS)
