"""Do this model's embeddings collapse, from which length and layer on, and what helps?

    fathometer run embedding-collapse --model minilm --data docstrings
    python analyses/embedding_collapse.py --model smollm2 --data my_search/ --texts long_documents.csv

Measures how close texts come to each other as they get longer (the same documents, cut), what attention temperature
and remedies after the model do to that and to quality on labelled data, whether chunks of long documents are better
encoded together, what the output head's rank costs, what [MASK] takes from real tokens, and how recall falls as the
index grows. What does not apply to a model or its data is left out, with the reason.
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
    parse_layers,
    parse_names,
    parse_numbers,
    require_options,
)
from probes.collapse.names import CUTS, PARTS, TAUS
from probes.runs import Previous, Run

LIMIT = 500


def run(run: Run, options: Mapping[str, Any], progress: Progress) -> None:
    """Fill an open run folder with the tables of every part that applies."""
    import numpy as np

    from probes.collapse import study_collapse, study_texts
    from probes.datasets import limit_dataset, load_dataset

    plan = plan_of(options)
    progress(0, None, "reading the data")
    data = load_dataset(options["data"], **parse_columns(options["columns"]))
    data = limit_dataset(data, options["limit"], np.random.default_rng(options["seed"]))
    texts = study_texts(options["texts"])
    run.describe(dataset=describe_data(data))
    model = open_model(run, options, progress)
    study_collapse(model, data, texts, plan, run, progress, previous=Previous.of(run))


def plan_of(options: Mapping[str, Any]) -> Any:
    """The study's plan from the options as they were given."""
    from probes.collapse import CollapsePlan, Places

    return CollapsePlan(
        parts=parse_names(options["parts"], PARTS, "--parts"),
        taus=parse_numbers(options["taus"], float, "--taus", 0.01),
        cuts=parse_numbers(options["cuts"], int, "--cuts", 2),
        places=Places(options["pooling"], options["max_length"], parse_layers(options["layers"])),
        draws=options["draws"],
        distractors=options["distractors"],
        documents=options["documents"],
        seed=options["seed"],
    )


def check(options: Mapping[str, Any]) -> None:
    """Refuse names and numbers that mean nothing, before a run folder is made."""

    plan_of(options)
    require_options(options, "data", "texts")


ANALYSIS = Analysis(
    name="embedding-collapse",
    title="Embedding collapse",
    question="Do embeddings collapse as texts get longer, from which layer on, and what helps?",
    options=(
        *(
            replace(option, default=LIMIT) if option.name == "limit" else option
            for option in model_options("minilm", "docstrings")
        ),
        Option(
            "texts",
            str,
            None,
            "Texts whose length is studied, best long ones like yours: a .txt with one text per line, a table, or a "
            "built-in name. Default: the built-in language reference.",
        ),
        Option(
            "parts",
            str,
            "all",
            f"What to measure, separated by commas: {', '.join(PARTS)}; or all, or none.",
        ),
        Option(
            "taus",
            str,
            ",".join(f"{tau:g}" for tau in TAUS),
            "Attention temperatures, separated by commas; below 1 sharpens attention.",
        ),
        Option(
            "cuts",
            str,
            ",".join(map(str, CUTS)),
            "Lengths in tokens that long documents are cut to, special tokens included; those that too few documents "
            "reach are left out.",
        ),
        Option("layers", str, "all", "Layers to read, separated by commas; or all."),
        POOLING,
        Option(
            "documents",
            int,
            200,
            "Most texts of one length; fewer are faster (--limit is about --data).",
            low=30,
            high=2000,
        ),
        Option(
            "distractors",
            int,
            10_000,
            "Most documents in the index whose growth is studied: those of the data, then --texts, then up to about "
            "3,800 built-in ones. Where these are fewer, so is the index, and a note says so.",
            low=10,
            high=1_000_000,
        ),
        DRAWS,
    ),
    run=run,
    precheck=check,
)

if __name__ == "__main__":
    from probes.cli import run_script

    run_script(ANALYSIS)
