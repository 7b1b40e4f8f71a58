"""What a translator reads, and the translator of one layer: fitted on arrays, applied to arrays, kept as a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError, unknown_name
from probes.exits.recipe import Linear, Normalise, Recipe
from probes.exits.translate.linear import Translator, TranslatorFitter
from probes.exits.translate.maps import KINDS, Kind
from probes.exits.translate.mlp import Mlp, fit_mlp
from probes.linalg import normalise_rows

Array = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]

BLOCK = 4096  # texts whose inputs are written out at once
STOCK = ("mean", "max", "first", "last", "weighted")  # poolings that sentence-transformers has


@dataclass(frozen=True)
class TranslatorSpec:
    """What a translator of layer k reads, one part beside the other, and how it maps it.

    Attributes:
        poolings: of the states: mean, sif, max, …; none where the table alone is read.
        reach: the states of layer k alone (`one`), or of every layer 0…k (`all`).
        table: whether the bag of the static vocabulary table is read too (see `StaticTable`).
        map: ridge, reduced-rank, orthogonal, or mlp.

    >>> TranslatorSpec(("mean", "sif"), table=True).name
    'mean+sif+table'
    """

    poolings: tuple[str, ...] = ("mean",)
    reach: Literal["one", "all"] = "one"
    table: bool = False
    map: Kind | Literal["mlp"] = "ridge"

    def __post_init__(self) -> None:
        if self.map not in (*KINDS, "mlp"):
            raise unknown_name("map", self.map, (*KINDS, "mlp"))
        if self.reach not in ("one", "all"):
            raise unknown_name("reach", self.reach, ("one", "all"))
        if not self.poolings and not self.table:
            raise InputError("a translator reads nothing: name a pooling, or the table")

    @property
    def name(self) -> str:
        """Its inputs and, unless it is a ridge, its map."""
        return self.reads + ("" if self.map == "ridge" else f" ({self.map})")

    @property
    def reads(self) -> str:
        """Its inputs: what a recipe calls its pooling."""
        parts = "+".join([*self.poolings, *(["table"] if self.table else [])])
        return parts if self.reach == "one" else f"0..k:{parts}"

    def layers(self, layer: int) -> range:
        """The layers whose states it reads."""
        return range(layer if self.reach == "one" else 0, layer + 1)

    def reason(self) -> str | None:
        """Why stock modules of sentence-transformers cannot express it as a cut transformer; None where they can."""
        if self.map == "mlp":
            return "an MLP translates the states"
        if self.reach == "all":
            return "states of several layers are read"
        if self.table:
            beside = "beside the states" if self.poolings else "in place of a transformer"
            return f"a static vocabulary table is read {beside}"
        if len(self.poolings) > 1:
            return "several poolings are read"
        if not set(self.poolings) <= set(STOCK):
            return f"the pooling {'+'.join(self.poolings)} weighs tokens by how rare they are"
        return None


@dataclass(frozen=True)
class Inputs:
    """What translators may read of some texts.

    `states[pooling][layer]` is (texts, d), `bag` (texts, e).
    """

    states: Mapping[str, Mapping[int, Array]] = field(
        default_factory=dict[str, Mapping[int, Array]]
    )
    bag: Array | None = None

    def read(self, spec: TranslatorSpec, layer: int, rows: IntArray | slice) -> Array:
        """The inputs (rows, D) float64 of a translator of `layer`: layer by layer, poolings in order, the bag last."""
        parts: list[Array] = []
        for below in spec.layers(layer):
            for pooling in spec.poolings:
                if pooling not in self.states or below not in self.states[pooling]:
                    raise InputError(
                        f"the translator {spec.name!r} reads {pooling} states of layer {below}, which did not come"
                    )
                parts.append(np.asarray(self.states[pooling][below][rows], np.float64))
        if spec.table:
            if self.bag is None:
                raise InputError(
                    f"the translator {spec.name!r} reads the table's bags, which did not come"
                )
            parts.append(np.asarray(self.bag[rows], np.float64))
        return np.concatenate(parts, axis=1)

    @property
    def n(self) -> int:
        """How many texts these are."""
        for layers in self.states.values():
            for states in layers.values():
                return len(states)
        return 0 if self.bag is None else len(self.bag)


@dataclass(frozen=True, eq=False)
class LayerTranslator:
    """A fitted translator of one layer: `spec` says what it reads, `map` turns that into embeddings."""

    spec: TranslatorSpec
    layer: int
    map: Translator | Mlp

    def __call__(self, inputs: Inputs, rows: IntArray | slice = slice(None)) -> Array:
        """Predicted full embeddings (rows, d_out) at unit length."""
        numbers = np.arange(inputs.n)[rows]
        made = [
            normalise_rows(self.map(inputs.read(self.spec, self.layer, block)))
            for block in blocks(numbers)
        ]
        return np.concatenate(made)

    def recipe(self) -> Recipe:
        """What is exported: of the inputs, laid side by side as `Inputs.read` does, a dense layer, then unit length.

        Where stock modules cannot express it, the recipe says why. Raises `InputError` for an MLP, which is no recipe.
        """
        if not isinstance(self.map, Translator):
            raise InputError("an MLP is there for comparison: it cannot be kept as a recipe")
        weight, bias = self.map.as_linear()
        steps = (Linear(weight, bias), Normalise())
        return Recipe(self.layer, self.spec.reads, steps, reason=self.spec.reason())


def fit_layer(
    inputs: Inputs,
    target: Array,
    layer: int,
    spec: TranslatorSpec | None = None,
    rows: IntArray | None = None,
    seed: int = 0,
) -> LayerTranslator:
    """A translator of `layer` from `inputs` to `target` (texts, d_out), the full model's embeddings of the same texts.

    Parameters: `rows` are the texts to fit on (None: all). The targets are brought to unit length. Linear maps keep
    O(D²) numbers for D input coordinates however many the texts; the MLP, which `seed` starts, holds its inputs whole.
    """
    spec = spec or TranslatorSpec()
    chosen = np.arange(inputs.n) if rows is None else np.asarray(rows)
    if len(target) != inputs.n:
        raise InputError(f"{inputs.n} texts came, but {len(target)} embeddings of the full model")
    if spec.map == "mlp":
        whole = inputs.read(spec, layer, chosen)
        return LayerTranslator(spec, layer, fit_mlp(whole, _unit(target[chosen]), seed=seed))
    fitter = TranslatorFitter(spec.map)
    for block in blocks(chosen):
        fitter.update(inputs.read(spec, layer, block), _unit(target[block]))
    return LayerTranslator(spec, layer, fitter.fit())


def blocks(rows: IntArray) -> Iterator[IntArray]:
    """`rows` in pieces that fit into memory."""
    for low in range(0, len(rows), BLOCK):
        yield rows[low : low + BLOCK]


def _unit(rows: Array) -> Array:
    return normalise_rows(np.asarray(rows, np.float64))
