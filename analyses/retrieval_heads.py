"""Which heads retrieve what the context says, and does the model need them?

    fathometer run retrieval-heads --model smollm2 --dtype bfloat16
    python analyses/retrieval_heads.py --model my_model/ --data my_documents.txt --needles my_facts.csv

Hides short facts in long contexts, asks for them, and scores every attention head by how often it looks at the very
token that the model copies into its answer. Then takes the best heads out, against as many random ones of the same
blocks, and measures what the model still finds, and what it still can do where nothing is to be found. Beside that:
induction, previous-token and duplicate-token heads, how attention is shaped, which heads compose, and how many
dimensions the best heads need. What does not apply to a model is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from probes.analysis import (
    Analysis,
    Option,
    Progress,
    describe_texts,
    model_options,
    open_model,
    parse_names,
    parse_numbers,
    require_options,
)
from probes.heads.study.names import DEPTHS, KS, LENGTHS, MODES, PARTS
from probes.runs import Previous, Run

_NOT_HERE = ("columns", "limit", "max_length")  # of the options about labelled data
_DATA = "Text that hides the facts, long and best like yours: a .txt with one text per line, a table, or a name."


def run(run: Run, options: Mapping[str, Any], progress: Progress) -> None:
    """Fill an open run folder with the tables of every part that applies."""
    from probes.datasets import load_texts
    from probes.heads.study import check_text, study_heads

    plan = plan_of(options)
    progress(0, None, "reading the text")
    texts = load_texts(options["data"])
    run.describe(dataset=describe_texts(options["data"], texts))
    check_text(texts, plan)
    model = open_model(run, options, progress)
    study_heads(model, texts, plan, run, progress, previous=Previous.of(run))


def plan_of(options: Mapping[str, Any]) -> Any:
    """The study's plan from the options as they were given."""
    from probes.heads.study.plan import AblationPlan, HeadPlan, NeedlePlan, TrialPlan

    needles = NeedlePlan(
        options["needles"], options["several"], options["distractors"], options["chat"]
    )
    trials = TrialPlan(
        count=options["trials"],
        lengths=parse_numbers(options["lengths"], int, "--lengths", 64),
        depths=parse_numbers(options["depths"], float, "--depths", 0),
        mode=options["mode"],
        early_stop=options["early_stop"],
        needles=needles,
        extras=options["extras"],
    )
    ablations = AblationPlan(
        ks=parse_numbers(options["top"], int, "--top", 1),
        modes=tuple(sorted(parse_names(options["ablation_modes"], MODES, "--ablation-modes"))),
        trials=options["ablation_trials"],
        random_sets=options["random_sets"],
        single=options["single_heads"],
    )
    parts = parse_names(options["parts"], PARTS, "--parts")
    return HeadPlan(parts, trials, ablations, options["seed"])


def check(options: Mapping[str, Any]) -> None:
    """Refuse names and numbers that mean nothing, before a run folder is made."""
    plan_of(options)
    require_options(options, "data")
    if options["needles"] is not None:
        from probes.heads.retrieval import load_needles

        load_needles(options["needles"])


def _listed(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


ANALYSIS = Analysis(
    name="retrieval-heads",
    title="Retrieval heads",
    question="Which heads retrieve what the context says, and does the model need them?",
    options=(
        *(
            replace(option, help=_DATA) if option.name == "data" else option
            for option in model_options("smollm2", "reference")
            if option.name not in _NOT_HERE
        ),
        Option(
            "trials", int, 50, "Most trials; fewer where the ranking settles.", low=4, high=5000
        ),
        Option(
            "lengths",
            str,
            _listed(LENGTHS),
            "Lengths of the context in tokens, separated by commas.",
        ),
        Option(
            "depths",
            str,
            _listed(DEPTHS),
            "Where in the context a fact is hidden, 0 (beginning) to 1 (end), separated by commas.",
        ),
        Option(
            "mode",
            str,
            "forced",
            "forced: the answer is given and one forward pass is read; decode: the model answers token by token. Both "
            "agree where the model answers word for word.",
            ("forced", "decode"),
        ),
        Option(
            "early_stop",
            bool,
            True,
            "Stop when the twenty best heads no longer change (after at least 20 trials).",
        ),
        Option(
            "extras",
            bool,
            True,
            "Also measure attention from the question and what heads add to the answer's logit; without, trials are "
            "quicker.",
        ),
        Option(
            "needles",
            str,
            None,
            "Facts to hide: a CSV or JSONL file with the columns sentence, answer (a part of the sentence), question, "
            "and optionally lead (how the reply begins; else the sentence up to the answer). Default: built-in ones "
            "that no model can know.",
        ),
        Option(
            "several", int, 1, "Facts hidden in one context, one of them asked for.", low=1, high=8
        ),
        Option(
            "distractors",
            int,
            0,
            "Sentences of the same form about something else in every context.",
            low=0,
            high=20,
        ),
        Option(
            "chat",
            str,
            "auto",
            "Whether to ask by the tokenizer's chat template; auto: where it has one.",
            ("auto", "yes", "no"),
        ),
        Option(
            "parts",
            str,
            "all",
            f"What to measure, separated by commas: {', '.join(PARTS)}; or all, or none.",
        ),
        Option("top", str, _listed(KS), "Numbers of best heads that are taken out together."),
        Option(
            "ablation_modes",
            str,
            ",".join(MODES),
            "What takes the place of an ablated head's output, separated by commas: zero, mean (over positions of "
            "other text); or all.",
        ),
        Option(
            "ablation_trials",
            int,
            20,
            "Trials of every ablation, drawn anew: other contexts and, of eight facts or more, other facts.",
            low=4,
            high=1000,
        ),
        Option(
            "random_sets",
            int,
            10,
            "Random sets of heads to compare with; an interval over sets needs three.",
            low=3,
            high=200,
        ),
        Option(
            "single_heads",
            int,
            20,
            "Heads ablated one by one: half of them the best, half drawn from the rest.",
            low=4,
            high=10_000,
        ),
    ),
    run=run,
    precheck=check,
)

if __name__ == "__main__":
    from probes.cli import run_script

    run_script(ANALYSIS)
