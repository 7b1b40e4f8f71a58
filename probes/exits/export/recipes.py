"""Recipes of the candidates of a study, one builder per variant, kept in the run folder for `fathometer export`.

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

from probes.errors import DoesNotApply, FathometerError
from probes.exits.candidates import Candidate
from probes.exits.classification import ClassificationTask, fit_probe
from probes.exits.recipe import Linear, Normalise, Probe, Recipe, Step, Truncate, save_recipe
from probes.files import make_dir
from probes.registry import Registry

if TYPE_CHECKING:
    from probes.exits.pipeline import ExitStudy
    from probes.models import EmbeddingSpec

Array = NDArray[np.floating[Any]]

FOLDER = "exits"  # of a run folder
_TAU = "tau="


@dataclass(frozen=True, eq=False)
class Ingredients:
    """What builders draw on: the study, the maker's head, and which layer is wanted."""

    study: ExitStudy
    spec: EmbeddingSpec
    layer: int

    def head(self) -> tuple[Step, ...]:
        """The maker's head as steps."""
        return head_steps(self.spec)

    def pooled(self, variant: str | None = None) -> Array:
        """Pooled states (texts, d) of the layer, of the model as it is or under the change that `variant` names."""
        return np.asarray(self.study.pooled[variant][self.layer])


Builder = Callable[[Ingredients], tuple[Step, ...]]
BUILDERS: Registry[Builder] = Registry("variant with a recipe")


def _raw(given: Ingredients) -> tuple[Step, ...]:
    return given.head()


def _centred(given: Ingredients) -> tuple[Step, ...]:
    """The mean is that of the fit rows, as in `variants.centred`."""
    embedded = given.spec.apply(given.pooled())
    mean = np.asarray(embedded[given.study.material.fit_rows].mean(axis=0), np.float64)
    return (*given.head(), Linear(np.eye(len(mean)), -mean))


def _translated(given: Ingredients) -> tuple[Step, ...]:
    weight, bias = given.study.translators[given.layer].as_linear()
    return Linear(weight, bias), Normalise()


BUILDERS.add("raw", _raw)
BUILDERS.add("centred", _centred)
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
    variant = candidate.variant
    tau = float(variant[len(_TAU) :]) if variant and variant.startswith(_TAU) else 1.0
    source = variant if tau != 1 else None
    given = Ingredients(study, spec, candidate.layer)
    steps = BUILDERS["raw" if tau != 1 or variant is None else variant](given)
    pooling = str(study.decision.about.get("pooling") or spec.pooling)
    width = given.pooled(source).shape[1]
    cut = simplified((*steps, Truncate(candidate.dim)), width)
    recipe = Recipe(candidate.layer, pooling, cut, temperature=tau)
    task = study.material.task
    if isinstance(task, ClassificationTask):
        X = recipe(given.pooled(source)[task.rows])
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
