"""The variants of a study: the states of every layer for every way of the search space, and what was fitted for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.exits.encoded import Encoded
from probes.exits.grid import States
from probes.exits.material import Material
from probes.exits.sparse_codes import FEWEST, code_caveats, describe_coders, fit_coders
from probes.exits.translate import MIN_TEXTS, LayerTranslator, Translator, fit_layer
from probes.exits.variants import (
    CodedStates,
    centred,
    embedded,
    in_full_space,
    rewritten,
    whitened,
)
from probes.exits.ways import SearchSpace, Source, Way

if TYPE_CHECKING:
    from probes.sae.csr import CSRCoder

Array = NDArray[np.floating[Any]]
Embed = Callable[[Array], Array]
Progress = Callable[[int, int, str], None]

PLAIN = "translated"
CODES = "csr"


@dataclass(frozen=True, eq=False)
class BuildPlan:
    """What is built: the space, the study's pooling, sparse codes by their active numbers, seed."""

    space: SearchSpace
    pooling: str
    sparse_codes: tuple[int, ...] = ()
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Variants:
    """States per variant and layer, which way each variant is, what was fitted, and what a reader must know."""

    states: Mapping[str | None, Mapping[int, States]]
    ways: Mapping[str | None, Way]
    fitted: Mapping[str, Mapping[int, LayerTranslator]]
    coders: Mapping[int, CSRCoder] = field(default_factory=dict[int, "CSRCoder"])
    caveats: tuple[str, ...] = ()

    @property
    def translators(self) -> dict[int, Translator]:
        """The maps of the plain translators, per layer."""
        plain = self.fitted.get(PLAIN, {})
        return {k: t.map for k, t in plain.items() if isinstance(t.map, Translator)}

    def about(self) -> dict[str, Any]:
        """What `decision.json` says of what was fitted."""
        told = {
            str(k): {"n": t.n, "penalty": t.penalty, "r2": t.r2}
            for k, t in self.translators.items()
        }
        codes = {"sparse_codes": describe_coders(dict(self.coders))} if self.coders else {}
        return {"translators": told, **codes}


def build_variants(
    encoded: Encoded, material: Material, plan: BuildPlan, embed: Embed, report: Progress
) -> Variants:
    """Every variant of the search space on what was read of the texts.

    Translators map to the full model's own embedding, whatever they read, and are fitted on the fit rows alone; so
    are means and whitening. A probe standardises: for classification the remedies would change nothing.
    """
    rows, own = material.fit_rows, plan.pooling
    caveats: list[str] = []
    raw = embedded(encoded.pooled, embed)
    last = max(encoded.pooled)
    target = np.asarray(raw[last])
    enough = len(rows) >= MIN_TEXTS
    if not enough:
        caveats.append(
            f"{len(rows)} texts are too few to fit translators ({MIN_TEXTS} are needed): left out"
        )
    remedies = any(task.kind != "classification" for task, _ in material.each)
    ways = plan.space.ways(encoded.specs if enough else (), own, remedies)
    hot = [Way(source) for source in encoded.states if source.tau != 1]
    states: dict[str | None, Mapping[int, States]] = {}
    fitted: dict[str, Mapping[int, LayerTranslator]] = {}
    for way in [*ways, *hot]:
        if way.spec is None:
            read = embedded(encoded.states[way.source], embed)
            change = {None: lambda X, _: X, "centred": centred, "whitened": whitened}[way.remedy]
            states[way.name] = change(read, rows)
            continue
        assert way.name is not None
        inputs = encoded.inputs(own, way.source.precision)
        layers = [0] if way.is_static else sorted(encoded.pooled)[:-1]
        made: dict[int, LayerTranslator] = {}
        for done, layer in enumerate(layers):
            report(done, len(layers), f"fitting translators ({way.spec.name})")
            made[layer] = fit_layer(inputs, target, layer, way.spec, rows, plan.seed)
        fitted[way.name] = made
        states[way.name] = rewritten(inputs, made)
    found = {way.name: way for way in [*ways, *hot]}
    coders: dict[int, CSRCoder] = {}
    if plan.sparse_codes and len(rows) >= FEWEST:
        coders = fit_coders(target, rows, plan.sparse_codes, plan.seed, report)
        moved: Any = states.get(PLAIN, {})
        states[CODES] = CodedStates(in_full_space(raw, moved), coders)
        found[CODES] = Way(Source(), remedy=CODES)
        kinds = {task.kind for task, _ in material.each}
        caveats += code_caveats(coders, "retrieval" if "retrieval" in kinds else material.task.kind)
    elif plan.sparse_codes:
        caveats.append(
            f"{len(rows)} texts are too few to fit sparse codes ({FEWEST} are needed): left out"
        )
    built = Variants(states, found, fitted, coders)
    caveats[:0] = _few_texts(built.translators, target.shape[1])
    return Variants(states, found, fitted, coders, tuple(caveats))


def _few_texts(translators: Mapping[int, Translator], d: int) -> list[str]:
    n = min((t.n for t in translators.values()), default=2 * d)
    if n >= 2 * d:
        return []
    return [
        f"translators were fitted on {n} texts for {d} coordinates: more unlabelled texts (--texts) would help"
    ]
