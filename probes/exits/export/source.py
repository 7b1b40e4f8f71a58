"""What is exported, out of a run folder: model, candidate, recipe, and what the run promised of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.errors import InputError, RunError, unknown_name
from probes.exits.candidates import Candidate
from probes.exits.export.recipes import (
    FOLDER,
    head_steps,
    raw_recipe,
    recipe_path,
    simplified,
)
from probes.exits.recipe import Probe, Recipe, load_recipe
from probes.runs import RunView

if TYPE_CHECKING:
    from probes.models import Model

_NAME = re.compile(r"(?P<variant>.+):(?P<layer>\d+)x(?P<dim>\d+)")


@dataclass(frozen=True, eq=False)
class Exit:
    """One candidate of one run, ready to be written.

    `prompts` are put before texts by role (`text`, `query`, `document`), empty ones left out; `max_length` in tokens.
    """

    candidate: Candidate
    recipe: Recipe
    model: Model
    prompts: Mapping[str, str]
    max_length: int
    view: RunView

    @property
    def name(self) -> str:
        return self.candidate.name

    @cached_property
    def width(self) -> int:
        """Coordinates of the states at the exit; some models project after their last block."""
        from probes.models import cut_model
        from probes.models.inputs import run_base, trial_inputs

        base = cut_model(self.model, self.recipe.layer)
        return int(run_base(base, trial_inputs(self.model.hf_model, rows=1)).shape[-1])

    def full(self) -> Exit:
        """The whole model written in the same way: what time is compared with. A probe of zeros takes its time too."""
        model, d = self._unchanged, self.width
        named = (self.view.decision or {}).get("pooling") or model.embedding.pooling
        recipe = raw_recipe(model.n_layers, d, str(named), model.embedding, d)
        if self.recipe.probe is not None:
            labels = self.recipe.probe.labels
            steps = simplified(head_steps(model.embedding), d)
            width = Recipe(0, "mean", steps)(np.zeros((1, d))).shape[1]
            probe = Probe(np.zeros((width, len(labels))), np.zeros(len(labels)), labels)
            recipe = replace(recipe, steps=steps, probe=probe)
        whole = Candidate(None, model.n_layers, d)
        return replace(self, recipe=recipe, candidate=whole, model=model)

    @property
    def _unchanged(self) -> Model:
        """The model in the precision that the run compares with."""
        import torch

        from probes.capture.twins import in_dtype

        wanted = self.view.info["options"].get("dtype", "float32")
        if self.recipe.precision == "float32":
            return self.model
        return in_dtype(self.model, getattr(torch, wanted))


@dataclass(frozen=True)
class Promise:
    """What the run says of the candidate on the test part: what the exported model is held to."""

    measure: str
    quality: float | None
    quality_full: float | None
    relative_cost: float | None
    n: int


def parse_candidate(name: str) -> Candidate:
    """The candidate of that name.

    >>> parse_candidate("raw:3x64")
    Candidate(variant=None, layer=3, dim=64)
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(
            f"candidate {name!r}: write VARIANT:LAYERxDIM, such as translated:3x64 or raw:3x64"
        )
    variant = None if match["variant"] == "raw" else match["variant"]
    return Candidate(variant, int(match["layer"]), int(match["dim"]))


def open_exit(view: RunView, name: str | None = None) -> Exit:
    """The candidate `name` of a finished exit-layers run, by default the chosen one.

    Raises `RunError` for runs of other analyses or unfinished ones and for a model whose weights have changed,
    `InputError` where nothing was chosen or no recipe of that name is kept.
    """
    from probes.models import load_model

    decision = _decision_of(view)
    candidate = _chosen(view, decision) if name is None else parse_candidate(name)
    kept = recipe_path(view.path, candidate.name)
    recipe = load_recipe(kept) if Path(f"{kept}.json").is_file() else None
    kind = dataset_of(view)["kind"]
    if recipe is None and (candidate.variant is not None or kind == "labelled"):
        names = sorted(path.stem for path in (view.path / FOLDER).glob("*.json"))
        raise unknown_name("candidate with a recipe", kept.name, names, f"They lie in {FOLDER}/.")
    options = view.info["options"]
    precise = recipe is not None and recipe.precision == "bfloat16"
    model = load_model(
        options["model"],
        device="cpu",
        dtype="bfloat16" if precise else options.get("dtype", "float32"),
        trust_remote_code=bool(options.get("trust_remote_code")),
    )
    _check_weights(view, model, precise)
    if recipe is None:
        pooling = str(decision.get("pooling") or model.embedding.pooling)
        _check_place(candidate, model)
        recipe = raw_recipe(candidate.layer, candidate.dim, pooling, model.embedding, model.d_model)
    if recipe.precision == "int8":
        from probes.models import quantised

        model = quantised(model)
    length = int(options.get("max_length") or model.max_length)
    return Exit(candidate, recipe, model, _prompts(model, options, kind), length, view)


def dataset_of(view: RunView) -> dict[str, Any]:
    """What the run says of its (first) dataset."""
    listed = view.info.get("datasets") or []
    if not listed:
        raise RunError(f"run {view.slug!r} does not say which data it worked on")
    return dict(listed[0])


def promise_of(view: RunView, candidate: Candidate) -> Promise:
    """Quality on the test part and share of time, from the run's tables."""
    decision = view.decision or {}
    tasks = decision.get("tasks") or []  # of several datasets the first is checked
    measure = str(tasks[0]["measure"] if tasks else decision.get("measure"))
    rows: Any = view.measurements
    rows = rows[
        (rows["layer"] == candidate.layer) & (rows["site"].isna() | (rows["site"] == "exit"))
    ]
    wanted = candidate.variant
    same = rows["variant"].isna() if wanted is None else rows["variant"] == wanted
    of_test = (rows["measure"] == measure) & (rows["split"] == "test") & same
    quality = rows[of_test & (rows["dim"] == candidate.dim)]
    timed = rows[rows["measure"] == "relative_cost"]
    own = timed[
        same[timed.index]
    ]  # of variants with a time of their own; the others take that of the layer
    cost = (own if len(own) else timed[timed["variant"].isna()])["value"]
    return Promise(
        measure,
        None if quality.empty else float(quality["value"].iloc[0]),
        decision.get("quality_full"),
        None if cost.empty else float(cost.iloc[0]),
        0 if quality.empty else int(quality["n"].iloc[0]),
    )


def _decision_of(view: RunView) -> dict[str, Any]:
    if view.problem:
        raise RunError(f"run {view.slug!r} cannot be exported: {view.problem}")
    if view.info["analysis"] != "exit-layers":
        raise RunError(
            f"run {view.slug!r} belongs to {view.info['analysis']}: only runs of exit-layers choose an exit"
        )
    if view.decision is None or view.status != "finished":
        raise RunError(f"run {view.slug!r} is {view.status} and made no decision: finish it first")
    return view.decision


def _chosen(view: RunView, decision: Mapping[str, Any]) -> Candidate:
    if decision.get("status") != "chosen":
        raise InputError(
            f"run {view.slug!r} chose no exit ({decision.get('reason')}): ask for less in a new run, or name a "
            "candidate with --candidate, such as raw:3x64"
        )
    return Candidate(decision.get("variant"), int(decision["layer"]), int(decision["dim"]))


def _check_place(candidate: Candidate, model: Model) -> None:
    if candidate.layer > model.n_layers or not 1 <= candidate.dim <= model.d_model:
        raise InputError(
            f"candidate {candidate.name} does not exist: {model.name} has layers 0 to {model.n_layers} and "
            f"{model.d_model} coordinates"
        )


def _check_weights(view: RunView, model: Model, other_precision: bool) -> None:
    known = (view.info.get("model") or {}).get("weights_hash")
    if known is not None and known != model.weights_hash and not other_precision:
        raise RunError(
            f"the weights of {Path(model.name).name} have changed since run {view.slug!r}: run it again"
        )


def _prompts(model: Model, options: Mapping[str, Any], kind: str) -> dict[str, str]:
    """As `pipeline.prompts_for` gives them: those of the run, else the maker's."""
    found: dict[str, str] = {}
    for role in ("query", "document") if kind == "retrieval" else ("text",):
        given = options.get(f"{role}_prompt")
        found[role] = model.embedding.prompt_for(role) if given is None else str(given)
    return {role: prompt for role, prompt in found.items() if prompt}
