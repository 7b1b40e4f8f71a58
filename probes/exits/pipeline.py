"""From a model and a labelled dataset to a decision: capture, parts, translators, grid, time, choice.

Every step is a function on arrays that can be called alone; `study_exits` runs them all and returns everything that
a run folder keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from probes.exits.choose import Choice, Setting, check_parts, choose
from probes.exits.decision import Decision
from probes.exits.grid import GridPlan, States, layer_dim_grid
from probes.exits.latency import Latency, LatencyPlan, measure_latency
from probes.exits.material import Material, builtin_texts, prepare
from probes.exits.sparse_codes import (
    FEWEST,
    check_actives,
    code_caveats,
    describe_coders,
    fit_coders,
)
from probes.exits.translate import MIN_TEXTS, Translator, TranslatorFitter
from probes.exits.variants import (
    CodedStates,
    LayerStates,
    centred,
    embedded,
    in_full_space,
    translated,
)
from probes.exits.walk import Budget
from probes.linalg import normalise_rows
from probes.tables import tidy

if TYPE_CHECKING:
    from probes.models import Model
    from probes.sae.csr import CSRCoder
    from probes.store import Store
    from probes.types import Dataset

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
Progress = Callable[[int, int, str], None]

_BLOCK = 8192


@dataclass(frozen=True)
class StudyPlan:
    """How a study is done; what is asked of it is a `Budget`.

    `prompts` holds texts put before what is encoded (keys `query` and `document`, or `text`; None: the maker's);
    `latency` None leaves time unmeasured; `max_length` is in tokens (None: the model's own); `cache` keeps the captured
    states for the next time. `temperatures` by which attention is divided are candidates beside the model as it is;
    each is a chain of its own, and all chains share the risk of error. `sparse_codes` are active numbers k: codes of
    the full and the translated embeddings (`CSRCoder`) are one more chain, whose dims are these k.
    """

    pooling: str | None = None
    dims: tuple[int, ...] | None = None
    draws: int = 1000
    seed: int = 0
    prompts: Mapping[str, str] | None = None
    latency: LatencyPlan | None = field(default_factory=LatencyPlan)
    max_length: int | None = None
    cache: bool = False
    temperatures: tuple[float, ...] = ()
    sparse_codes: tuple[int, ...] = ()


@dataclass(frozen=True)
class ExitStudy:
    """All that a run folder keeps.

    `chains`, `losses` and `share_draws` let `walk_chains` choose anew for any budget. `states` are the pooled states
    per layer of the data's own different texts, (texts, d) each, read from their store one layer at a time.
    `pooled` holds those of all texts in `material`, by the change they were made under (None: the model as it is).
    `coders` make the sparse codes that were candidates, by their active numbers.
    """

    decision: Decision
    measurements: pd.DataFrame
    chains: pd.DataFrame
    losses: pd.DataFrame
    share_draws: pd.DataFrame
    latency: Latency | None
    translators: Mapping[int, Translator]
    parts: Mapping[str, IntArray]
    states: Mapping[int, Array]
    material: Material
    pooled: Mapping[str | None, Mapping[int, Array]]
    coders: Mapping[int, CSRCoder] = field(default_factory=dict[int, "CSRCoder"])


def fit_translators(
    pooled: Mapping[int, Array], target: Array, rows: IntArray, progress: Progress | None = None
) -> dict[int, Translator]:
    """One translator per layer below the last, from pooled states to `target` (texts, d_out) at unit length."""
    found: dict[int, Translator] = {}
    layers = sorted(pooled)[:-1]
    for done, layer in enumerate(layers):
        if progress:
            progress(done, len(layers), "fitting translators")
        states = pooled[layer]
        fitter = TranslatorFitter()
        for low in range(0, len(rows), _BLOCK):
            block = rows[low : low + _BLOCK]
            fitter.update(
                states[block], normalise_rows(np.asarray(target[block], dtype=np.float64))
            )
        found[layer] = fitter.fit()
    return found


def study_states(
    material: Material,
    pooled: Mapping[int, Array],
    budget: Budget,
    plan: StudyPlan,
    embed: Callable[[Array], Array] = lambda X: X,
    time_layers: Callable[[Mapping[int, Translator]], Latency] | None = None,
    progress: Progress | None = None,
    changed: Mapping[str, Mapping[int, Array]] | None = None,
) -> ExitStudy:
    """The study from pooled states on: `pooled[k]` is (texts, d) for every layer 0…L, `embed` the maker's head.

    `time_layers`, given the translators, measures the time per layer; without it cost is counted in blocks. `changed`
    holds pooled states of the model under a change that costs no time, by the variant's name.
    """
    report = progress or (lambda done, total, text: None)
    raw = embedded(pooled, embed)
    caveats = list(material.caveats)
    fit_rows = material.fit_rows
    translators: dict[int, Translator] = {}
    if len(fit_rows) >= MIN_TEXTS:
        translators = fit_translators(pooled, raw[max(pooled)], fit_rows, report)
        caveats += _translator_caveats(translators, len(pooled[max(pooled)][0]))
    else:
        caveats.append(
            f"{len(fit_rows)} texts are too few to fit translators ({MIN_TEXTS} are needed): left out"
        )
    variants: dict[str | None, Mapping[int, States]] = {None: raw}
    if (
        material.task.kind != "classification"
    ):  # a probe standardises: centring would change nothing
        variants["centred"] = centred(raw, fit_rows)
    moved = translated(pooled, translators)
    if translators:
        variants["translated"] = moved
    coders: dict[int, CSRCoder] = {}
    if plan.sparse_codes and len(fit_rows) >= FEWEST:
        full = np.asarray(raw[max(pooled)])
        coders = fit_coders(full, fit_rows, plan.sparse_codes, plan.seed, report)
        variants["csr"] = CodedStates(in_full_space(raw, moved), coders)
        caveats += code_caveats(coders)
    elif plan.sparse_codes:
        caveats.append(
            f"{len(fit_rows)} texts are too few to fit sparse codes ({FEWEST} are needed): left out"
        )
    variants |= {name: embedded(states, embed) for name, states in (changed or {}).items()}
    pooling = plan.pooling
    grid_plan = GridPlan(plan.dims, plan.draws, plan.seed, pooling=pooling)
    splits = {name: rows for name, rows in material.parts.items() if name != "fit"}
    grid = layer_dim_grid(material.task, variants, splits, material.parts["fit"], grid_plan, report)
    latency = None if time_layers is None else time_layers(translators)
    if latency is not None:
        caveats += latency.caveats()
    about = {
        "fit_texts": {"own": len(fit_rows) - material.extra, "unlabelled": material.extra},
        "translators": {
            str(k): {"n": t.n, "penalty": t.penalty, "r2": t.r2} for k, t in translators.items()
        },
        **({"sparse_codes": describe_coders(coders)} if coders else {}),
    }
    cost = None if latency is None else latency.relative_cost()
    # Twice the grid's draws: the bound of a chain lies further out in the tail than a 95 % interval.
    setting = Setting(2 * plan.draws, plan.seed, pooling, cost, tuple(caveats), about)
    made: Choice = choose(grid.scores, material.parts, budget, setting)
    timed = [] if latency is None else latency.rows(material.task.name, pooling, plan.seed)
    table = tidy([*grid.rows, *timed])
    by_change: dict[str | None, Mapping[int, Array]] = {None: pooled}
    by_change.update(changed or {})
    return ExitStudy(
        made.decision,
        table,
        made.chains,
        made.losses,
        made.share_draws,
        latency,
        translators,
        material.parts,
        LayerStates(pooled, lambda _, X: X[: material.own], sorted(pooled)),
        material,
        by_change,
        coders,
    )


def _translator_caveats(translators: Mapping[int, Translator], d: int) -> list[str]:
    n = next(iter(translators.values())).n
    if n >= 2 * d:
        return []
    return [
        f"translators were fitted on {n} texts for {d} coordinates: more unlabelled texts (--texts) would help"
    ]


def prompts_for(model: Model, data: Dataset, given: Mapping[str, str] | None) -> dict[str, str]:
    """What is put before texts: the prompts given, else those of the model's maker; empty ones are left out."""
    roles = ("query", "document") if data.kind == "retrieval" else ("text",)
    maker = {role: model.embedding.prompt_for(role) for role in roles}
    return {role: prompt for role, prompt in {**maker, **(given or {})}.items() if prompt}


def study_exits(
    model: Model,
    data: Dataset,
    budget: Budget | None = None,
    texts: Sequence[str] | None = None,
    plan: StudyPlan | None = None,
    progress: Progress | None = None,
) -> ExitStudy:
    """Where `model` can stop on `data` and keep `budget`; captures, measures, chooses.

    `texts` are unlabelled texts for the translators, beside those of the fit part; None takes a sample of the built-in
    text, an empty list takes none. `progress(done, total, text)` is called often; every stage counts from 0 to its own
    total. What can be refused without the model is refused before it runs.
    """
    from probes.capture import capture
    from probes.layers import temperature

    budget, plan = budget or Budget(), plan or StudyPlan()
    pooling = plan.pooling or model.embedding.pooling
    extra = builtin_texts(data.all_texts(), seed=plan.seed) if texts is None else texts
    material = prepare(data, extra, plan.seed, prompts_for(model, data, plan.prompts))
    check_parts(material.task, material.parts, budget)
    check_actives(plan.sparse_codes, model.d_model)
    if not model.embedding.is_cosine:
        material = material.with_caveat(
            f"the model's maker compares by {model.embedding.similarity}; here every similarity is a cosine"
        )
    report = progress or (lambda done, total, text: None)

    def encode(text: str, cache: bool) -> Store:
        return capture(
            model,
            material.texts,
            sites=["exit"],
            pooling=pooling,
            max_length=plan.max_length,
            cache=cache,
            progress=lambda done, total: report(done, total, text),
        )

    changed: dict[str, Mapping[int, Array]] = {}
    for tau in dict.fromkeys(plan.temperatures):
        with temperature(
            model, tau
        ):  # first: what cannot be done is refused before anything is encoded
            changed[f"tau={tau:g}"] = encode(f"encoding texts at temperature {tau:g}", False)[
                "exit"
            ]
    acts = encode("encoding texts", plan.cache)
    own = material.texts[: material.own]
    latency_plan = plan.latency

    def time_layers(translators: Mapping[int, Translator]) -> Latency:
        return measure_latency(
            model, own, pooling, translators, latency_plan, report, plan.max_length
        )

    used = replace(plan, pooling=pooling)
    timer = None if latency_plan is None else time_layers
    return study_states(material, acts["exit"], budget, used, model.embed, timer, report, changed)


def choose_exit(
    model: Model | str,
    data: Dataset | str | Path,
    min_quality: float = 0.95,
    *,
    max_loss: float | None = None,
    confidence: float = 0.95,
    texts: Sequence[str] | None = None,
    seed: int = 0,
    pooling: str | None = None,
    plan: StudyPlan | None = None,
    progress: Progress | None = None,
) -> Decision:
    """The cheapest layer, width and variant of `model` that keeps the asked quality on `data`.

    Parameters: `model` and `data` are loaded ones or their names. `min_quality` is the share of the full model's
    quality to keep (asymptotic guarantee); `max_loss` instead bounds the mean excess loss per query or text
    (finite-sample guarantee; not for similarity). `texts` are unlabelled texts for translators. `plan` overrides
    `seed` and `pooling`.

    Returns a `Decision`; `decision.status` is `infeasible` where nothing cheaper can be shown to keep it, with the
    reason. `study_exits` returns the tables behind it as well.

    >>> choose_exit("minilm", "docstrings", 0.95).layer  # doctest: +SKIP
    """
    if isinstance(model, str):
        from probes.models import load_model

        model = load_model(model)
    if isinstance(data, (str, Path)):
        from probes.datasets import load_dataset

        data = load_dataset(data)
    budget = Budget(min_quality, max_loss, confidence)
    return study_exits(
        model, data, budget, texts, plan or StudyPlan(pooling, seed=seed), progress
    ).decision
