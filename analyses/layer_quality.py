"""What do the layers of this model look like without labels, and which of these numbers agree with labels?

    fathometer run layer-quality --model smollm2 --data docstring-topics,stsb.csv
    python analyses/layer_quality.py --model minilm

Measures quality by labels at every layer, every label-free metric beside it (on states, on tokens, on views of a
text, on attention), the same with fresh weights as a control, and how well each metric ranks the layers as the labels
do. CKA, spectra and block influence say how alike layers are; stretches of blocks that change little are left out of
the live model and what remains is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
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
from probes.errors import InputError
from probes.runs import Run


def run(run: Run, options: Mapping[str, Any], progress: Progress) -> None:
    """Fill an open run folder with quality, metrics, agreement and what can be left out."""
    from probes.quality import study_quality

    plan = plan_of(options)
    progress(0, None, "reading the data")
    datasets = load(options)
    for data in datasets:
        run.describe(dataset=describe_data(data))
    model = open_model(run, options, progress)
    study_quality(model, datasets, plan, run, progress)


def load(options: Mapping[str, Any]) -> list[Any]:
    """The datasets by name or path, separated by commas, each of at most `limit` examples."""
    import numpy as np

    from probes.datasets import limit_dataset, load_dataset

    given = str(options["data"])
    names = [given] if Path(given).exists() else [part.strip() for part in given.split(",")]
    columns = parse_columns(options["columns"])
    found = [load_dataset(name, **columns) for name in names if name]
    for data in found:
        if [other.name for other in found].count(data.name) > 1:
            raise InputError(
                f"--data {given!r}: two datasets are called {data.name!r}, rename a file"
            )
    seed = options["seed"]  # anew for each, so that a sample does not depend on its neighbours
    return [limit_dataset(data, options["limit"], np.random.default_rng(seed)) for data in found]


def plan_of(options: Mapping[str, Any]) -> Any:
    """The study's plan from the options as they were given."""
    from probes.quality import PARTS, QualityPlan

    return QualityPlan(
        pooling=options["pooling"],
        max_length=options["max_length"],
        draws=options["draws"],
        seed=options["seed"],
        parts=parse_names(options["parts"], PARTS, "--parts"),
        view_texts=options["view_texts"],
        token_texts=options["token_texts"],
        attention_texts=options["attention_texts"],
    )


def check(options: Mapping[str, Any]) -> None:
    """Refuse names of models, data and parts that mean nothing, before a run folder is made."""
    from probes.exits.tasks import make_task

    plan_of(options)
    require_options(options)
    for data in load(options):
        make_task(data)


def _options() -> tuple[Option, ...]:
    own = {
        "data": {
            "help": "Labelled texts, scored pairs or retrieval data: names of `fathometer datasets list`, files and "
            "folders, separated by commas."
        },
        "limit": {"default": 2000, "help": "Use at most this many examples of each dataset."},
    }
    shared = model_options("minilm", "docstring-topics")
    return tuple(replace(option, **own.get(option.name, {})) for option in shared)


PART_HELP = (
    "What else to measure, separated by commas: untrained, tokens, views, attention, similarity, agreement, drops; or "
    "all, or none."
)

ANALYSIS = Analysis(
    name="layer-quality",
    title="Layer quality",
    question="What do the layers look like without labels, and which of these numbers agree with labels?",
    options=(
        *_options(),
        POOLING,
        Option("parts", str, "all", PART_HELP),
        Option("view_texts", int, 500, "Most texts behind the metrics of two views.", low=50),
        Option("token_texts", int, 500, "Most texts behind the metrics within a text.", low=20),
        Option("attention_texts", int, 50, "Most texts behind the gains of heads.", low=5),
        DRAWS,
    ),
    run=run,
    precheck=check,
)

if __name__ == "__main__":
    from probes.cli import run_script

    run_script(ANALYSIS)
