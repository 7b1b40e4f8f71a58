"""Recipes of the candidates of a study, a builder per kind of variant, kept in the run folder for `fathometer export`.

A builder gives the steps from the pooled state at a layer to the variant's full width. Truncation, unit length and
the probe are added here, the same for all variants: similarity and retrieval compare by cosine, so their embeddings
get unit length; a probe takes the coordinates as the study gave them to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import DoesNotApply, FathometerError, unknown_name
from probes.exits.candidates import Candidate
from probes.exits.classification import ClassificationTask, fit_probe
from probes.exits.recipe import Linear, Normalise, Probe, Recipe, Step, Truncate, save_recipe
from probes.exits.ways import Way
from probes.files import make_dir
from probes.linalg import whitener
from probes.registry import Registry

if TYPE_CHECKING:
    from probes.exits.pipeline import ExitStudy
    from probes.models import EmbeddingSpec

Array = NDArray[np.floating[Any]]

FOLDER = "exits"  # of a run folder


@dataclass(frozen=True, eq=False)
class Ingredients:
    """What builders draw on: the study, the maker's head, and which way and layer are wanted."""

    study: ExitStudy
    spec: EmbeddingSpec
    way: Way
    layer: int

    def head(self) -> tuple[Step, ...]:
        """The maker's head as steps."""
        return head_steps(self.spec)

    @property
    def pooling(self) -> str:
        """That of the study, in whose name the full model's own states go."""
        return str(self.study.decision.about.get("pooling") or self.spec.pooling)

    def reads(self) -> str:
        """The pooling as a recipe names it; what a translator reads is joined by +."""
        spec = self.way.spec
        return spec.reads if spec is not None else self.way.source.pooling or self.pooling

    def states(self) -> Array:
        """What the steps are applied to: pooled states (texts, d), or the inputs of a translator side by side."""
        encoded = self.study.encoded
        if self.way.spec is None:
            return np.asarray(encoded.states[self.way.source][self.layer])
        inputs = encoded.inputs(self.pooling, self.way.source.precision)
        return inputs.read(self.way.spec, self.layer, slice(None))


Builder = Callable[[Ingredients], tuple[Step, ...]]
BUILDERS: Registry[Builder] = Registry("kind of variant with a recipe")


def _raw(given: Ingredients) -> tuple[Step, ...]:
    return given.head()


def _centred(given: Ingredients) -> tuple[Step, ...]:
    """The mean is that of the fit rows, as in `variants.centred`."""
    embedded = given.spec.apply(given.states())
    mean = np.asarray(embedded[given.study.material.fit_rows].mean(axis=0), np.float64)
    return (*given.head(), Linear(np.eye(len(mean)), -mean))


def _whitened(given: Ingredients) -> tuple[Step, ...]:
    """Fitted to the fit rows, as in `variants.whitened`."""
    embedded = given.spec.apply(given.states())
    mean, directions, inverse = whitener(embedded[given.study.material.fit_rows])
    weight = directions * inverse
    return (*given.head(), Linear(weight, -mean @ weight))


def _translated(given: Ingredients) -> tuple[Step, ...]:
    made = given.study.variants.fitted[str(given.way.name)][given.layer]
    return made.recipe().steps


BUILDERS.add("raw", _raw)
BUILDERS.add("centred", _centred)
BUILDERS.add("whitened", _whitened)
BUILDERS.add("translated", _translated)


def recipe_of(
    candidate: Candidate, study: ExitStudy, spec: EmbeddingSpec, labels: Sequence[str] = ()
) -> Recipe:
    """How the embedding of `candidate` is made, with the study's own numbers.

    Args:
        candidate: any that the study measured.
        spec: the maker's head, `model.embedding`.
        labels: names of the classes, for classification.

    Raises `DoesNotApply` where the maker's head cannot be expressed, `InputError` for a variant without a builder.
    """
    ways = study.variants.ways
    if candidate.variant not in ways:
        names = [name or "raw" for name in ways]
        raise unknown_name("variant with a recipe", str(candidate.variant), names)
    way = ways[candidate.variant]
    given = Ingredients(study, spec, way, candidate.layer)
    steps = BUILDERS["translated" if way.spec is not None else way.remedy or "raw"](given)
    states = given.states()
    width = states.shape[1]
    cut = simplified((*steps, Truncate(candidate.dim)), width)
    reads = given.reads()
    recipe = Recipe(
        candidate.layer,
        reads,
        cut,
        way.source.precision or "float32",
        way.source.tau,
        reason=way.reason,
        table=study.encoded.table if {"sif", "table"} & set(reads.split("+")) else None,
    )
    task = study.material.task
    if isinstance(task, ClassificationTask):
        X = recipe(states[task.rows])
        weight, bias = fit_probe(
            X, task.labels, task.n_classes, study.material.parts["fit"], task.clusters
        )
        names = tuple(labels) or tuple(map(str, range(task.n_classes)))
        # Scores sum to zero over the classes: the same for every answer, and some heads can hold no other bias.
        recipe = replace(recipe, probe=Probe(weight, bias - bias.mean(), names))
    else:
        recipe = replace(recipe, steps=simplified((*cut, Normalise()), width))
    return recipe


def raw_recipe(layer: int, dim: int, pooling: str, spec: EmbeddingSpec, width: int) -> Recipe:
    """The recipe of a raw candidate, which needs no study: states of `width` coordinates, unit length, no probe."""
    steps = (*head_steps(spec), Truncate(dim), Normalise())
    return Recipe(layer, pooling, simplified(steps, width))


def head_steps(spec: EmbeddingSpec) -> tuple[Step, ...]:
    """The maker's head (`EmbeddingSpec.head` and its truncation) as steps of a recipe.

    Raises `DoesNotApply` for what is not linear.

    >>> from probes.models.embedding import EmbeddingSpec, Normalize
    >>> head_steps(EmbeddingSpec(head=(Normalize(),), dim=64))
    (Normalise(), Truncate(dim=64))
    """
    from probes.models.embedding import Normalize
    from probes.models.sentence import Dense

    steps: list[Step] = []
    for step in spec.head:
        if isinstance(step, Normalize):
            steps.append(Normalise())
        elif isinstance(step, Dense) and step.activation == "Identity":
            weight = np.asarray(step.weight.T, np.float64)  # (d_in, d_out)
            if step.residual:
                through = np.eye(len(weight)) if step.projection is None else step.projection.T
                weight = weight + through
            bias = np.zeros(weight.shape[1]) if step.bias is None else step.bias
            steps.append(Linear(weight, np.asarray(bias, np.float64)))
        else:
            what = f"a Dense with {step.activation}" if isinstance(step, Dense) else str(step)
            raise DoesNotApply(
                f"the maker's head has {what.partition('(')[0]}, which a recipe cannot hold: only linear maps, "
                "unit length and truncation are"
            )
    return tuple(steps) if spec.dim is None else (*steps, Truncate(spec.dim))


def simplified(steps: Sequence[Step], width: int) -> tuple[Step, ...]:
    """Fewer steps with the same result on states of `width` coordinates.

    Linear maps are joined, truncation is moved into them, and what changes nothing is left out.

    >>> simplified([Normalise(), Truncate(16), Truncate(8), Normalise()], 16)
    (Truncate(dim=8), Normalise())
    """
    found: list[Step] = []
    for place, step in enumerate(steps):
        if isinstance(step, Normalise) and _is_scaled_later(steps[place + 1 :]):
            continue
        if isinstance(step, Truncate):
            if step.dim >= width:
                continue
            width = step.dim
        if isinstance(step, Linear):
            width = step.weight.shape[1]
        joined = _joined(found[-1], step) if found else None
        if joined is None:
            found.append(step)
        else:
            found[-1] = joined
    return tuple(found)


def _joined(one: Step, two: Step) -> Step | None:
    """One step that does what both do, where there is one."""
    if isinstance(one, Truncate) and isinstance(two, Truncate):
        return two if two.dim < one.dim else one
    if isinstance(one, Linear) and isinstance(two, Truncate):
        return Linear(one.weight[:, : two.dim], one.bias[: two.dim])
    if isinstance(one, Linear) and isinstance(two, Linear):
        weight = np.asarray(one.weight, np.float64) @ two.weight
        return Linear(weight, np.asarray(one.bias, np.float64) @ two.weight + two.bias)
    return None


def _is_scaled_later(rest: Sequence[Step]) -> bool:
    """Whether only truncations stand before the next unit length, which makes an earlier one needless."""
    others = [step for step in rest if not isinstance(step, Truncate)]
    return bool(others) and isinstance(others[0], Normalise)


def recipe_path(run: Path, name: str) -> Path:
    """Where the recipe of the candidate `name` is kept in the run folder, without its ending.

    >>> recipe_path(Path("runs/a"), "tau=0.8:3x64").as_posix()
    'runs/a/exits/tau-0.8-3x64'
    """
    return run / FOLDER / re.sub(r"[^A-Za-z0-9._]+", "-", name)


def keep_recipes(
    run: Path, study: ExitStudy, spec: EmbeddingSpec, labels: Sequence[str] = ()
) -> list[str]:
    """Keep the recipes of the chosen candidate and of the alternatives that passed, in `run`/exits.

    Returns one line for each that has none, with the reason.
    """
    decision = study.decision
    chosen = [] if decision.chosen is None else [decision.chosen]
    others = [_candidate(entry) for entry in decision.comparisons.alternatives]
    without: list[str] = []
    for candidate in dict.fromkeys([*chosen, *others]):
        try:
            recipe = recipe_of(candidate, study, spec, labels)
        except FathometerError as error:
            without.append(f"{candidate.name} cannot be exported: {error}")
            continue
        path = recipe_path(run, candidate.name)
        make_dir(path.parent)
        save_recipe(recipe, path)
    return without


def _candidate(entry: Mapping[str, Any]) -> Candidate:
    return Candidate(entry["variant"], int(entry["layer"]), int(entry["dim"]))
