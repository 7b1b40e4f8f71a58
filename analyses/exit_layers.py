"""After which layer, and at which width, can this model stop on this data?

    fathometer run exit-layers --model minilm --data pairs.csv --min-quality 0.95
    python analyses/exit_layers.py --model minilm --data pairs.csv

Captures the states of every layer once, measures quality at every layer × width (raw, centred, translated, and in
what other ways are asked for), times every layer, and chooses the cheapest exit that keeps the asked quality by an
order-and-test procedure on parts of the data that do not overlap. Label-free layer metrics are shown beside it and
choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
    require_options,
)
from probes.errors import InputError
from probes.runs import Run

if TYPE_CHECKING:
    from probes.exits.ways import SearchSpace
    from probes.types import Dataset


def run(run: Run, options: Mapping[str, Any], progress: Progress) -> None:
    """Fill an open run folder with grid, latency, layer metrics, chains and the decision."""
    import numpy as np

    from probes.datasets import dataset_names, limit_dataset, load_dataset, load_texts
    from probes.exits import Budget, LatencyPlan, StudyPlan, study_exits
    from probes.exits.decide import with_label_free
    from probes.exits.export import keep_recipes
    from probes.layers import measure_layers

    progress(0, None, "reading the data")
    datas: list[Dataset] = []
    for name in dataset_names(options["data"]):
        data = load_dataset(name, **parse_columns(options["columns"]))
        data = limit_dataset(data, options["limit"], np.random.default_rng(options["seed"]))
        run.describe(dataset=describe_data(data))
        datas.append(data)
    texts = None if options["texts"] is None else load_texts(options["texts"])
    model = open_model(run, options, progress)
    plan = StudyPlan(
        pooling=options["pooling"],
        draws=options["draws"],
        seed=options["seed"],
        prompts=prompts_of(options),
        latency=LatencyPlan(seconds=options["latency_seconds"], batch_size=options["batch_size"]),
        max_length=options["max_length"],
        cache=True,
        temperatures=temperatures_of(options),
        sparse_codes=sparse_codes_of(options),
        space=space_of(options),
    )
    budget = Budget(options["min_quality"], options["max_loss"], options["confidence"])
    study = study_exits(model, datas, budget, texts, plan, progress, weights_of(options))
    progress(0, None, "layer metrics")
    run.add(study.measurements)
    metrics = measure_layers(
        study.states,
        dataset=", ".join(data.name for data in datas),
        pooling=options["pooling"] or model.embedding.pooling,
        seed=options["seed"],
    )
    run.add(metrics)
    run.write_table("chains", study.chains)
    run.write_table("losses", study.losses)
    run.write_table("share_draws", study.share_draws)
    for name, table in study.tables.items():
        run.write_table(name, table)
    labels = getattr(datas[0], "label_names", ())
    for reason in keep_recipes(run.path, study, model.embedding, labels):
        run.note(reason)
    run.write_decision(with_label_free(study.decision, study.judges, metrics).to_dict())


def weights_of(options: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Weights of the datasets, separated by commas; None where each must keep the budget."""
    from probes.datasets import dataset_names
    from probes.exits.several import check_weights

    text = options["task_weights"]
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--task-weights {text!r}: numbers above 0, separated by commas, such as 2,1"
        ) from None
    check_weights(found, len(dataset_names(options["data"])))
    return found


def prompts_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Texts put before what is encoded, as E5- and BGE-like models want them; where none are given, the maker's."""
    roles = ("query", "document", "text")
    return {
        role: options[f"{role}_prompt"] for role in roles if options[f"{role}_prompt"] is not None
    }


def temperatures_of(options: Mapping[str, Any]) -> tuple[float, ...]:
    """Temperatures separated by commas; 1, the model as it is, needs no naming and is left out."""
    given = [part.strip() for part in (options["temperatures"] or "").split(",") if part.strip()]
    try:
        found = tuple(float(part) for part in given)
    except ValueError:
        found = (-1.0,)
    if not all(0 < tau < 100 for tau in found):
        raise InputError(
            f"--temperatures {options['temperatures']!r}: numbers above 0, separated by commas, such as 0.8,0.9"
        )
    return tuple(tau for tau in found if tau != 1)


def space_of(options: Mapping[str, Any]) -> SearchSpace:
    """What is tried beside the model as it is."""
    from probes.exits.ways import SearchSpace

    def names(key: str) -> tuple[str, ...]:
        text = options[key] or ""
        return tuple(part.strip() for part in text.split(",") if part.strip() not in ("", "none"))

    return SearchSpace(
        names("poolings"),
        names("remedies"),
        names("precisions"),
        None if options["translators"] is None else names("translators"),
        options["allow_code"],
    )


def sparse_codes_of(options: Mapping[str, Any]) -> tuple[int, ...]:
    """Active numbers of sparse codes, separated by commas."""
    given = [part.strip() for part in (options["sparse_codes"] or "").split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 10**6 for part in given):
        raise InputError(
            f"--sparse-codes {options['sparse_codes']!r}: whole numbers above 0, separated by commas, such as 16,32"
        )
    return tuple(sorted({int(part) for part in given}))


def check(options: Mapping[str, Any]) -> None:
    """Refuse names of models, data and texts that mean nothing, before a run folder is made."""
    from probes.datasets import dataset_names

    temperatures_of(options)
    sparse_codes_of(options)
    space_of(options)
    weights_of(options)
    for name in dataset_names(options["data"]):
        require_options({**options, "data": name}, "data", "texts")


ANALYSIS = Analysis(
    name="exit-layers",
    title="Choose an exit",
    question="After which layer, and at which width, can this model stop on this data?",
    options=(
        *model_options("minilm", "docstring-topics"),
        Option(
            "min_quality",
            float,
            0.95,
            "Share of the full model's quality to keep (asymptotic guarantee).",
            low=0.01,
            high=1.0,
        ),
        Option(
            "max_loss",
            float,
            None,
            "Instead: how much worse examples may get on average, gains not counted: 0.05 lets 5 % of the texts go "
            "from right to wrong (finite-sample guarantee; not for similarity).",
            low=0.001,
            high=0.999,
        ),
        Option("confidence", float, 0.95, "Confidence of the guarantee.", low=0.5, high=0.9999),
        Option(
            "task_weights",
            str,
            None,
            "With several --data, separated by commas: their weights, such as 2,1; the budget then holds for the "
            "weighted mean. Default: it must hold for every one of them.",
        ),
        Option(
            "texts",
            str,
            None,
            "Unlabelled texts for the translators, best like yours: a .txt with one text per line, a table, or a "
            "built-in name. Default: a sample of the built-in text, beside the fit part of the data.",
        ),
        POOLING,
        Option(
            "poolings",
            str,
            None,
            "Also try these poolings, separated by commas: mean, last, first, max, weighted, ditto.",
        ),
        Option(
            "remedies",
            str,
            "centred",
            "Remedies for embeddings that all look alike, separated by commas: centred, whitened, or none. Fitted to "
            "the fit part and --texts; needless for labelled texts, whose classifier standardises.",
        ),
        Option(
            "precisions",
            str,
            None,
            "Also compute in these, separated by commas: float32, bfloat16, int8 (needs bitsandbytes). Each is timed.",
        ),
        Option(
            "translators",
            str,
            None,
            "Translators to fit, separated by commas: ridge (of the pooled states), ridge+sif+table (also the states "
            "weighted by how rare a token is, and a table of the vocabulary), table (no transformer at all), "
            "orthogonal, reduced-rank, 0..k:mean (all layers), or none. Default: the first three where the table "
            "takes about a minute at most, else ridge.",
        ),
        Option(
            "allow_code",
            bool,
            False,
            "Let the choice fall on exits that sentence-transformers cannot hold as stock modules, and that are "
            "exported with a Python file of their own: translators of more than one input, ditto pooling.",
        ),
        Option(
            "temperatures",
            str,
            None,
            "Also try dividing the attention logits of every block by these (TempScale), separated by commas: 0.8,0.9. "
            "Each is another chain of candidates to test, which costs confidence.",
        ),
        Option(
            "sparse_codes",
            str,
            None,
            "Also try sparse codes (CSR) with so many active numbers, separated by commas: 16,32. They are fitted to "
            "the full model's embeddings of --texts and the fit part, and stand at every translated layer: one more "
            "chain of candidates, which costs confidence, and a minute or so for each number.",
        ),
        Option(
            "query_prompt", str, None, "Text put before every query; default the maker's, if any."
        ),
        Option(
            "document_prompt", str, None, "Text put before every document; default the maker's."
        ),
        Option(
            "text_prompt",
            str,
            None,
            "Text put before every text of other data; default the maker's.",
        ),
        DRAWS,
        Option("batch_size", int, 1, "Texts at once while time is measured.", low=1, high=4096),
        Option("latency_seconds", float, 20.0, "Time spent on measuring time.", low=1, high=3600),
    ),
    run=run,
    precheck=check,
)

if __name__ == "__main__":
    from probes.cli import run_script

    run_script(ANALYSIS)
