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

from probes.exits.build import BuildPlan, Variants, build_variants
from probes.exits.candidates import Candidate, CandidateScores
from probes.exits.choose import (
    Choice,
    Judged,
    Judges,
    Setting,
    check_parts,
    check_weights,
    choose_jointly,
)
from probes.exits.decision import Decision
from probes.exits.encoded import Encoded, EncodePlan, encode
from probes.exits.grid import GridPlan, GridResult, layer_dim_grid
from probes.exits.latency import Latency, LatencyPlan
from probes.exits.material import Material, builtin_texts, prepare_several
from probes.exits.peers import PeerPlan, peer_tables
from probes.exits.sparse_codes import check_actives
from probes.exits.timing import Timed, TimePlan, time_ways
from probes.exits.translate import Translator, TranslatorFitter
from probes.exits.variants import LayerStates
from probes.exits.walk import Budget
from probes.exits.ways import SearchSpace
from probes.linalg import normalise_rows
from probes.tables import tidy

if TYPE_CHECKING:
    from probes.models import Model
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
    the full and the translated embeddings (`CSRCoder`) are one more chain, whose dims are these k. `space` is what else
    is tried.
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
    space: SearchSpace = field(default_factory=SearchSpace)


@dataclass(frozen=True)
class ExitStudy:
    """All that a run folder keeps.

    `chains`, `losses` and `share_draws` let `walk_chains` choose anew for any budget. `states` are the pooled states
    per layer of the data's own different texts, (texts, d) each, read from their store one layer at a time.
    `encoded` is what was read of all texts in `material`, `variants` what was made of it; `judges` hold the scores per
    dataset (`parts` are those of the first); `tables` are further ones by name.
    """

    decision: Decision
    measurements: pd.DataFrame
    chains: pd.DataFrame
    losses: pd.DataFrame
    share_draws: pd.DataFrame
    latency: Latency | None
    parts: Mapping[str, IntArray]
    states: Mapping[int, Array]
    material: Material
    encoded: Encoded
    variants: Variants
    judges: Judges
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict[str, pd.DataFrame])

    @property
    def translators(self) -> Mapping[int, Translator]:
        """The plain translators, per layer."""
        return self.variants.translators


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
    read: Mapping[int, Array] | Encoded,
    budget: Budget,
    plan: StudyPlan,
    embed: Callable[[Array], Array] = lambda X: X,
    time_variants: Callable[[Variants], Timed] | None = None,
    progress: Progress | None = None,
    peers: PeerPlan | None = None,
) -> ExitStudy:
    """The study from pooled states on: (texts, d) for every layer 0…L, or an `Encoded`; `embed` is the maker's head.

    `time_variants`, given the variants, measures the time; without it cost is counted in blocks. `peers` says how
    translators are measured beside each other (None: they are not).
    """
    report = progress or (lambda done, total, text: None)
    pooling = plan.pooling
    space = plan.space
    encoded = read if isinstance(read, Encoded) else Encoded.plain(read, space, pooling or "mean")
    build = BuildPlan(space, pooling or "mean", plan.sparse_codes, plan.seed)
    variants = build_variants(encoded, material, build, embed, report)
    grid_plan = GridPlan(plan.dims, plan.draws, plan.seed, pooling=pooling)
    grids: list[GridResult] = []
    for task, parts in material.each:
        splits = {name: rows for name, rows in parts.items() if name != "fit"}
        grids.append(layer_dim_grid(task, variants.states, splits, parts["fit"], grid_plan, report))
    timed = None if time_variants is None else time_variants(variants)
    caveats = [*material.caveats, *encoded.caveats, *variants.caveats]
    caveats += [] if timed is None else timed.caveats()
    about = {
        "fit_texts": {"own": len(material.fit_rows) - material.extra, "unlabelled": material.extra},
        **variants.about(),
    }
    # Twice the grid's draws: the bound of a chain lies further out in the tail than a 95 % interval.
    setting = Setting(
        2 * plan.draws,
        plan.seed,
        pooling,
        None if timed is None else timed.latency.relative_cost(),
        tuple(caveats),
        about,
        own_cost={} if timed is None else timed.own,
    )
    judged = [
        Judged(_allowed(grid.scores, variants, space), parts)
        for grid, (_, parts) in zip(grids, material.each, strict=True)
    ]
    judges = Judges.make(tuple(judged), material.weights)
    made: Choice = choose_jointly(judges, budget, setting)
    tables: Mapping[str, pd.DataFrame] = {}
    if peers is not None:
        tables = peer_tables(material, encoded, variants, grids[0].scores, peers)
    return ExitStudy(
        _with_exportable(made.decision, variants),
        tidy(
            [*(row for grid in grids for row in grid.rows), *([] if timed is None else timed.rows)]
        ),
        made.chains,
        made.losses,
        made.share_draws,
        None if timed is None else timed.latency,
        material.parts,
        LayerStates(encoded.pooled, lambda _, X: X[: material.own], sorted(encoded.pooled)),
        material,
        encoded,
        variants,
        judges,
        tables,
    )


def _allowed(scores: CandidateScores, variants: Variants, space: SearchSpace) -> CandidateScores:
    """The candidates that may be chosen: without `allow_code` those that stock modules express.

    Temperatures and sparse codes are there because they were asked for by name.
    """
    if space.allow_code:
        return scores
    kept = [i for i, c in enumerate(scores.candidates) if variants.ways[c.variant].reason is None]
    candidates = tuple(scores.candidates[i] for i in kept)
    return replace(scores, candidates=candidates, scores=scores.scores[kept])


def _with_exportable(decision: Decision, variants: Variants) -> Decision:
    """`decision` that says of the choice and of every alternative whether stock modules express it."""

    def told(entry: Mapping[str, Any]) -> dict[str, Any]:
        return {**entry, "exportable": variants.ways[entry["variant"]].is_exportable}

    compared = decision.comparisons
    others = tuple(told(entry) for entry in compared.alternatives)
    chosen: Candidate | None = decision.chosen
    exportable = None if chosen is None else variants.ways[chosen.variant].is_exportable
    return replace(
        decision,
        comparisons=replace(compared, alternatives=others),
        about={**decision.about, "exportable": exportable},
    )


def prompts_for(model: Model, data: Dataset, given: Mapping[str, str] | None) -> dict[str, str]:
    """What is put before texts: the prompts given, else those of the model's maker; empty ones are left out."""
    roles = ("query", "document") if data.kind == "retrieval" else ("text",)
    maker = {role: model.embedding.prompt_for(role) for role in roles}
    return {role: prompt for role, prompt in {**maker, **(given or {})}.items() if prompt}


def _applying(
    data: Dataset, datas: Sequence[Dataset], given: Mapping[str, str] | None
) -> Mapping[str, str] | None:
    """Of several datasets each takes the prompts that apply to its kind; a single one must take all."""
    if given is None or len(datas) == 1:
        return given
    roles = ("query", "document") if data.kind == "retrieval" else ("text",)
    return {role: prompt for role, prompt in given.items() if role in roles}


def study_exits(
    model: Model,
    data: Dataset | Sequence[Dataset],
    budget: Budget | None = None,
    texts: Sequence[str] | None = None,
    plan: StudyPlan | None = None,
    progress: Progress | None = None,
    weights: Sequence[float] | None = None,
) -> ExitStudy:
    """Where `model` can stop on `data` and keep `budget`; captures, measures, chooses.

    Of several datasets each must keep the budget, or, with `weights`, their weighted mean; all are served by the same
    translators, fitted on all of their fit parts.

    `texts` are unlabelled texts for the translators, beside those of the fit part; None takes a sample of the built-in
    text, an empty list takes none. `progress(done, total, text)` is called often; every stage counts from 0 to its own
    total. What can be refused without the model is refused before it runs.
    """
    budget, plan = budget or Budget(), plan or StudyPlan()
    pooling = plan.pooling or model.embedding.pooling
    datas = list(data) if isinstance(data, Sequence) else [data]
    every = [text for one in datas for text in one.all_texts()]
    extra = builtin_texts(every, seed=plan.seed) if texts is None else texts
    prompts = [prompts_for(model, one, _applying(one, datas, plan.prompts)) for one in datas]
    shares = None if weights is None else tuple(weights)
    check_weights(shares, len(datas))
    material = prepare_several(datas, extra, plan.seed, prompts, shares)
    for task, parts in material.each:
        check_parts(task, parts, budget)
    check_actives(plan.sparse_codes, model.d_model)
    if not model.embedding.is_cosine:
        material = material.with_caveat(
            f"the model's maker compares by {model.embedding.similarity}; here every similarity is a cosine"
        )
    report = progress or (lambda done, total, text: None)
    encoding = EncodePlan(pooling, plan.space, plan.temperatures, plan.max_length, plan.cache)
    encoded = encode(model, material, encoding, report)
    own = material.texts[: material.own]
    latency = plan.latency

    def time_variants(variants: Variants) -> Timed:
        assert latency is not None
        timing = TimePlan(latency, pooling, plan.max_length, material.task.name, plan.seed)
        return time_ways(model, own, encoded, variants, timing, report)

    return study_states(
        material,
        encoded,
        budget,
        replace(plan, pooling=pooling),
        model.embed,
        None if latency is None else time_variants,
        report,
        PeerPlan(plan.draws, plan.seed, pooling, model) if plan.space.peers else None,
    )


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
