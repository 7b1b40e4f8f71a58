"""Which features does a layer use, can a person read them, and what does the model lose without the rest?

    fathometer run sae --model smollm2 --dtype bfloat16
    python analyses/sae.py --model my_model/ --data my_texts.txt --layers 8,16 --k 16,32,64

Trains sparse autoencoders on the states of a layer, token by token, and measures on held-out texts how much of the
states and of the model's predictions they keep, beside random directions, principal components and single neurons.
Then reads the features: when each is active, which words it makes likelier, which labelled concept it tells apart,
and what the model does without it. Heads of known circuits are found from sparse codes of what they write, and
embeddings are made sparse for retrieval by an inverted index. What does not apply to a model is left out, with the
reason. Trained autoencoders lie in the run folder, under `sae/`, in SAELens format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from probes.analysis import (
    DRAWS,
    Analysis,
    Option,
    Progress,
    describe_texts,
    model_options,
    open_model,
    parse_columns,
    parse_layers,
    parse_names,
    parse_numbers,
    require_options,
)
from probes.errors import DoesNotApply, InputError
from probes.features.names import CONCEPTS, PARTS, READERS, SITES, SPARSE_DATA, TASKS, TEXTS
from probes.runs import Previous, Run

_NOT_HERE = ("limit",)  # of the options about labelled data
_HELP = {
    "columns": "Columns of the files that --concepts names, where they are not recognised: text=review,label=stars.",
    "data": "Texts to train on, separated by commas: names of `fathometer datasets list`, a .txt with one text per "
    "line, a table, a folder. 200,000 tokens are enough for a first look.",
}


def run(run: Run, options: Mapping[str, Any], progress: Progress) -> None:
    """Fill an open run folder with the tables of every part that applies; an error where none does."""
    from probes.datasets import load_texts
    from probes.features import different_texts, study_autoencoders

    plan = plan_of(options, run)
    progress(0, None, "reading the texts")
    texts: list[str] = []
    for name in names_of(options["data"]):
        found = load_texts(name)
        run.describe(dataset=describe_texts(name, found))
        texts += found
    if "train" in plan.parts:
        different_texts(texts)
    model = open_model(run, options, progress)
    study = study_autoencoders(model, texts, plan, run, progress, previous=Previous.of(run))
    if study.failure is not None:
        raise DoesNotApply(study.failure)


def names_of(text: str) -> list[str]:
    """Names separated by commas, at least one.

    >>> names_of("docstrings, notes.txt")
    ['docstrings', 'notes.txt']
    """
    names = [name for name in (part.strip() for part in text.split(",")) if name]
    if not names:
        raise InputError("--data is empty: name texts to train on")
    return names


def plan_of(options: Mapping[str, Any], run: Run | None = None) -> Any:
    """The study's plan from the options as they were given."""
    from probes.features.plan import LookPlan, SaePlan, TrainPlan

    layers = options["layers"]
    training = TrainPlan(
        site=options["site"],
        layers=None if layers is None else parse_layers(layers),
        ks=parse_numbers(options["k"], int, "--k", 1),
        variant=options["variant"],
        n_features=options["n_features"],
        steps=options["steps"],
        batch_size=options["batch_size"],
        tokens=options["tokens"],
    )
    look = LookPlan(
        concepts=options["concepts"],
        columns=parse_columns(options["columns"]),
        tasks=tuple(
            t for t in TASKS if t in parse_names(options["circuit_tasks"], TASKS, "--circuit-tasks")
        ),
        sparse_data=options["sparse_data"],
        loss_texts=options["loss_texts"],
        concept_limit=options["concept_limit"],
        seeds=options["seeds"],
    )
    return SaePlan(
        parts=parse_names(options["parts"], PARTS, "--parts"),
        training=training,
        look=look,
        folder=None if run is None else run.path / "sae",
        max_length=options["max_length"],
        draws=options["draws"],
        seed=options["seed"],
    )


def check(options: Mapping[str, Any]) -> None:
    """Refuse names and numbers that mean nothing, before a run folder is made."""
    from probes.datasets import load_concepts, require_dataset

    plan = plan_of(options)
    require_options(options)
    _check_parts(plan.parts)
    for name in names_of(options["data"]):
        require_dataset(name)
    if "concepts" in plan.parts:
        load_concepts(options["concepts"], parse_columns(options["columns"]))
    if "csr" in plan.parts:
        require_dataset(options["sparse_data"])


def _check_parts(parts: frozenset[str]) -> None:
    """Refuse parts that read what no part leaves."""
    needed = [("train", READERS), ("features", ("effects",))]
    for first, readers in needed:
        lacking = [name for name in readers if name in parts]
        if lacking and first not in parts:
            raise InputError(
                f"--parts {','.join(n for n in PARTS if n in parts)}: {lacking[0]} needs {first}, add it"
            )


ANALYSIS = Analysis(
    name="sae",
    title="Features",
    question="Which features does a layer use, can a person read them, and what is lost without the rest?",
    options=(
        *(
            replace(option, help=_HELP.get(option.name, option.help))
            for option in model_options("smollm2", TEXTS)
            if option.name not in _NOT_HERE
        ),
        Option("site", str, "resid_post", "Where states are read.", SITES),
        Option(
            "layers",
            str,
            None,
            "Layers (blocks for attn_out and mlp_out), separated by commas; default the middle one.",
        ),
        Option(
            "k",
            str,
            "16,32,64",
            "Active features per token, separated by commas; features are looked at for the middle one.",
        ),
        Option(
            "variant",
            str,
            "topk",
            "Kind of autoencoder. topk has exactly k active features, the others k on average.",
            ("topk", "batchtopk", "matryoshka", "jumprelu", "gated", "l1"),
        ),
        Option(
            "n_features",
            int,
            None,
            "Features in all; default eight times the width.",
            low=8,
            high=1_000_000,
        ),
        Option(
            "tokens", int, 200_000, "Tokens that are read, at most.", low=2000, high=1_000_000_000
        ),
        Option(
            "steps",
            int,
            None,
            "Training steps of the autoencoders of token states; default ten passes, at least 1,000.",
            low=1,
            high=10_000_000,
        ),
        Option("batch_size", int, 4096, "Tokens per step.", low=16, high=1_000_000),
        Option(
            "parts",
            str,
            "all",
            f"What to do, separated by commas: {', '.join(PARTS)}; or all. All but csr and circuits need train, "
            "effects needs features.",
        ),
        Option(
            "concepts",
            str,
            CONCEPTS,
            "Labelled sets that features are compared with, separated by commas: built-in names or files.",
        ),
        Option("concept_limit", int, 400, "Examples of each labelled set.", low=40, high=1_000_000),
        Option(
            "loss_texts", int, 200, "Held-out texts whose loss is measured.", low=10, high=100_000
        ),
        Option(
            "circuit_tasks",
            str,
            ",".join(TASKS),
            f"Tasks whose heads are looked for by sparse codes, separated by commas: {', '.join(TASKS)}; all or none.",
        ),
        Option(
            "seeds", int, 10, "Autoencoders, of different seeds, per circuit task.", low=5, high=200
        ),
        Option(
            "sparse_data",
            str,
            SPARSE_DATA,
            "Retrieval data for sparse embeddings: a built-in name or a folder.",
        ),
        DRAWS,
    ),
    run=run,
    precheck=check,
)

if __name__ == "__main__":
    from probes.cli import run_script

    run_script(ANALYSIS)
