"""Can a short training make early layers of this model good enough to stop at, and what does that cost the last one?

    fathometer run train-exits --model minilm --data pairs.csv --losses starbucks,2d-matryoshka
    python analyses/train_exits.py --model minilm --data pairs.csv

Trains copies of the model on a part of the data with losses made for early exits (Matryoshka, AdaptiveLayer, 2D
Matryoshka, Starbucks' fixed pairs), and measures quality at every layer × width before and after on the rest. Beside
it: the same layers translated, which needs no training, and what reading all layers at once would give. Trained models
lie in the run folder, under `trained/LOSS/model`, for sentence-transformers or for `fathometer run exit-layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    parse_numbers,
    require_options,
)
from probes.errors import InputError, unknown_name
from probes.runs import Run

LOSSES = ("plain", "matryoshka", "adaptive-layer", "2d-matryoshka", "starbucks")


def run(run: Run, options: Mapping[str, Any], progress: Progress) -> None:
    """Fill an open run folder with the grids before and after, what changed, and the trained models."""
    import numpy as np

    from probes.datasets import limit_dataset, load_dataset, load_texts
    from probes.exits.training.study import study_training

    progress(0, None, "reading the data")
    data = load_dataset(options["data"], **parse_columns(options["columns"]))
    data = limit_dataset(data, options["limit"], np.random.default_rng(options["seed"]))
    texts = None if options["texts"] is None else load_texts(options["texts"])
    run.describe(dataset=describe_data(data))
    model = open_model(run, options, progress)
    study_training(model, data, run, run.path / "trained", plan_of(options), progress, texts)


def plan_of(options: Mapping[str, Any]) -> Any:
    """The study's plan from the options as they were given."""
    from probes.exits.training.study import TrainingStudy
    from probes.exits.training.train import TrainPlan

    training = TrainPlan(
        steps=options["steps"],
        batch_size=options["batch_size"],
        learning_rate=options["learning_rate"],
        pairs=pairs_of(options["pairs"]),
        dims=None if options["dims"] is None else parse_numbers(options["dims"], int, "--dims", 1),
        checkpoint_every=options["checkpoint_every"],
        max_length=options["max_length"],
        seed=options["seed"],
    )
    return TrainingStudy(
        losses=losses_of(options["losses"]),
        training=training,
        pooling=options["pooling"],
        draws=options["draws"],
        fusion=options["fusion"],
        cache=True,
    )


def losses_of(text: str) -> tuple[str, ...]:
    """Names of losses separated by commas, each once, in the order given.

    >>> losses_of("starbucks, plain,starbucks")
    ('starbucks', 'plain')
    """
    names = [name for name in (part.strip() for part in text.split(",")) if name]
    for name in names:
        if name not in LOSSES:
            raise unknown_name("loss in --losses", name, LOSSES)
    if not names:
        raise InputError("--losses is empty: name losses to train with, such as starbucks")
    return tuple(dict.fromkeys(names))


def pairs_of(text: str | None) -> tuple[tuple[int, int], ...] | None:
    """Layer and width as LAYERxDIM, separated by commas.

    >>> pairs_of("2x32, 4x64")
    ((2, 32), (4, 64))
    """
    if text is None:
        return None
    found: list[tuple[int, int]] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        layer, _, dim = part.partition("x")
        if not (part.isascii() and layer.isdigit() and dim.isdigit() and len(part) < 20):
            raise InputError(
                f"--pairs {part!r}: write LAYERxDIM, separated by commas, such as 2x32,4x64"
            )
        found.append((int(layer), int(dim)))
    return tuple(found) or None


def check(options: Mapping[str, Any]) -> None:
    """Refuse names and numbers that mean nothing, and missing libraries, before a run folder is made."""
    from probes.exits.training.bridge import require_libraries

    plan_of(options)
    require_options(options, "data", "texts")
    require_libraries()


ANALYSIS = Analysis(
    name="train-exits",
    title="Train for exits",
    question="Can a short training make early layers good enough, and what does it cost the last one?",
    options=(
        *model_options("minilm", "docstring-pairs"),
        Option(
            "losses",
            str,
            "2d-matryoshka,starbucks",
            f"Losses to train with, one model for each, separated by commas: {', '.join(LOSSES)}. "
            "plain trains the last layer only: the control.",
        ),
        Option("steps", int, 300, "Training steps.", low=1, high=1_000_000),
        Option("batch_size", int, 16, "Examples per step.", low=2, high=4096),
        Option("learning_rate", float, 1e-4, "Largest step width.", low=1e-7, high=0.1),
        Option(
            "pairs",
            str,
            None,
            "Layers and widths that starbucks trains, as LAYERxDIM separated by commas: 2x32,4x64. The full model is "
            "always one of them. Default: at most six, evenly spaced, with powers of two.",
        ),
        Option("dims", str, None, "Widths to train and measure, separated by commas."),
        Option(
            "checkpoint_every",
            int,
            100,
            "Steps between checkpoints, from which a stopped run goes on.",
            low=1,
        ),
        POOLING,
        Option(
            "texts",
            str,
            None,
            "Unlabelled texts for the translators that training is compared with; default built-in text.",
        ),
        Option("fusion", bool, True, "Also measure mixtures of all layers."),
        DRAWS,
    ),
    run=run,
    precheck=check,
)

if __name__ == "__main__":
    from probes.cli import run_script

    run_script(ANALYSIS)
