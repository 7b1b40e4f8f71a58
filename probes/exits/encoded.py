"""What a study reads of its texts: pooled states in every pooling and precision, and the bags of the static table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from probes.errors import InputError
from probes.exits.material import Material
from probes.exits.translate import (
    Inputs,
    StaticTable,
    TranslatorSpec,
    static_table,
    text_mismatch,
    token_counts,
)
from probes.exits.translate.vocabulary import state_weights, vocabulary_size
from probes.exits.ways import DITTO, RICH, TABLE, SearchSpace, Source, parse_spec
from probes.files import cache_dir, make_dir, replace_file

if TYPE_CHECKING:
    from scipy import sparse

    from probes.models import Model
    from probes.store import Store

Array = NDArray[np.floating[Any]]
Progress = Callable[[int, int, str], None]
ByLayer = Mapping[int, Array]

SIF = "sif"
HEAD_TEXTS = 200  # of the fit, that the choice of a head for ditto pooling looks at
MOST_WORK = 4e12  # multiplications for a table that nobody asked for: about a minute on a few cores


@dataclass(frozen=True)
class EncodePlan:
    """How texts are read: the study's pooling, the space to search, longest text in tokens, cache, seed."""

    pooling: str
    space: SearchSpace = field(default_factory=SearchSpace)
    temperatures: tuple[float, ...] = ()
    max_length: int | None = None
    cache: bool = False


@dataclass(frozen=True, eq=False)
class Encoded:
    """Pooled states (texts, d) per layer of every source; `Source()` is the full model's own way.

    `sif` holds SIF-weighted states by precision (None: the model's); `table` the vocabulary's vectors and weights and
    `bag` (texts, d) what it gives; `specs` the translators to fit; `ditto` block and head; `models` those of other
    precisions; `caveats` what to tell.
    """

    states: Mapping[Source, ByLayer]
    specs: tuple[TranslatorSpec, ...] = ()
    sif: Mapping[str | None, ByLayer] = field(default_factory=dict[str | None, ByLayer])
    table: StaticTable | None = None
    bag: Array | None = None
    ditto: tuple[int, int] | None = None
    models: Mapping[str, Model] = field(default_factory=dict[str, "Model"])
    caveats: tuple[str, ...] = ()

    @classmethod
    def plain(cls, pooled: ByLayer, space: SearchSpace, pooling: str) -> Encoded:
        """Pooled states alone, and the translators that they suffice for."""
        named = ("ridge",) if space.translators is None else space.translators
        specs = tuple(parse_spec(text, pooling) for text in dict.fromkeys(named))
        return cls({Source(): pooled}, specs)

    @property
    def pooled(self) -> ByLayer:
        """The states of the model as it is."""
        return self.states[Source()]

    def inputs(self, own: str, precision: str | None = None) -> Inputs:
        """What translators may read of one precision; `own` names the study's pooling."""
        found = {
            source.pooling or own: states
            for source, states in self.states.items()
            if source.precision == precision and source.tau == 1
        }
        if precision in self.sif:
            found[SIF] = self.sif[precision]
        return Inputs(found, self.bag)


def encode(model: Model, material: Material, plan: EncodePlan, report: Progress) -> Encoded:
    """Read the texts of `material` in every way that `plan` asks for; as few passes as there are precisions.

    What cannot be done is refused before anything is encoded.
    """
    from probes.layers import temperature

    space, own = plan.space, plan.pooling
    specs = chosen_specs(model, space, own)
    states: dict[Source, ByLayer] = {}
    models = {name: in_precision(model, name) for name in space.precisions}
    for tau in dict.fromkeys(plan.temperatures):
        with temperature(model, tau):
            told = f"encoding texts at temperature {tau:g}"
            states[Source(tau=tau)] = _captured(model, material, plan, told, report, False)["exit"]
    acts = _captured(model, material, plan, "encoding texts", report, plan.cache)
    states = {Source(): acts["exit"], **states}
    counts = token_counts(model, material.texts, plan.max_length)
    table = bag = None
    if any(spec.table or SIF in spec.poolings for spec in specs):
        weights = state_weights(model, counts[material.fit_rows])
        report(0, 1, "encoding the vocabulary")
        rows = kept_table(model) if any(spec.table for spec in specs) else np.zeros((1, 1))
        table = StaticTable(rows, weights)
        bag = table.bags(counts) if any(spec.table for spec in specs) else None
    others = [name for name in dict.fromkeys(space.poolings) if name not in (own, DITTO)]
    read = {name for spec in specs for name in spec.poolings} - {own, *others}
    sif: dict[str | None, ByLayer] = {}
    for precision in (None, *space.precisions):
        extra = sorted(read) + others
        wanted = extra if precision is None else [own, *extra]
        if not wanted:
            continue
        from probes.capture.several import pool_several

        words = (
            "encoding texts once more" if precision is None else f"encoding texts in {precision}"
        )
        found = pool_several(
            model if precision is None else models[precision],
            material.texts,
            wanted,
            None,
            None if table is None else np.asarray(table.weights, np.float32),
            max_length=plan.max_length,
            progress=lambda done, total, words=words: report(done, total, words),
        )
        for pooling, layers in found.items():
            if pooling == SIF:
                sif[precision] = layers
            else:
                states[Source(None if pooling == own else pooling, precision)] = layers
    ditto = None
    if DITTO in space.poolings:
        ditto, states[Source(DITTO)] = _ditto(model, material, plan, report)
    return Encoded(states, specs, sif, table, bag, ditto, models, _unlike(counts, material))


def _captured(
    model: Model, material: Material, plan: EncodePlan, text: str, report: Progress, cache: bool
) -> Store:
    from probes.capture import capture

    return capture(
        model,
        material.texts,
        sites=["exit"],
        pooling=plan.pooling,
        max_length=plan.max_length,
        cache=cache,
        progress=lambda done, total: report(done, total, text),
    )


def chosen_specs(model: Model, space: SearchSpace, own: str) -> tuple[TranslatorSpec, ...]:
    """The translators to fit: those named, or `ridge` and, where the table takes about a minute at most, the others."""
    named = space.translators
    if named is None:
        named = ("ridge", RICH, TABLE) if table_work(model) <= MOST_WORK else ("ridge",)
    return tuple(parse_spec(text, own) for text in dict.fromkeys(named))


def table_work(model: Model) -> float:
    """Multiplications that the static table of `model` takes: block weights × tokens of the vocabulary's texts."""
    weights = sum(p.numel() for b in model.structure.blocks for p in b.module.parameters())
    tokenizer = model.require_tokenizer()
    return float(weights) * vocabulary_size(model) * (1 + tokenizer.num_special_tokens_to_add())


def kept_table(model: Model) -> Array:
    """`static_table` of `model`, kept in the user's cache for the next time."""
    from safetensors.numpy import load_file, save

    from probes.store import fingerprint

    identity = {
        "what": "static table 1",
        "weights": model.weights_hash,
        "tokenizer": model.tokenizer_hash,
        "dtype": str(model.dtype),
        "embedding": repr(
            (model.embedding.pooling, model.embedding.dim, len(model.embedding.head))
        ),
    }
    path = cache_dir() / "tables" / f"{fingerprint(identity)[:32]}.safetensors"
    if path.is_file():
        try:
            return load_file(path)["table"]
        except Exception:  # a damaged file is made again
            path.unlink()
    table = static_table(model)
    make_dir(path.parent)
    replace_file(path, lambda handle: handle.write(save({"table": np.ascontiguousarray(table)})))
    return table


def in_precision(model: Model, name: str) -> Model:
    """`model` in the precision `name`; int8 on the kernels of bitsandbytes, `InputError` where they are missing."""
    import torch

    from probes.capture.twins import in_dtype
    from probes.models import quantised

    if str(model.dtype).removeprefix("torch.") == name:
        raise InputError(f"precision {name}: the model is computed in it already, leave it out")
    if name == "int8":
        return quantised(model, 8, backend="bitsandbytes")
    return in_dtype(model, getattr(torch, name))


def _ditto(
    model: Model, material: Material, plan: EncodePlan, report: Progress
) -> tuple[tuple[int, int], ByLayer]:
    """Ditto pooling by the head that follows TF-IDF best on texts of the fit."""
    from probes.capture import ditto_pool
    from probes.capture.ditto_head import choose_head

    seen = [material.texts[row] for row in material.fit_rows[-HEAD_TEXTS:]]
    block, head, _ = choose_head(model, seen, plan.max_length)
    found = ditto_pool(
        model,
        material.texts,
        block,
        head,
        max_length=plan.max_length,
        progress=lambda done, total: report(done, total, "encoding texts for ditto"),
    )
    return (block, head), found


def _unlike(counts: sparse.csr_array, material: Material) -> tuple[str, ...]:
    """What a reader must know of how the texts of the fit differ from those judged."""
    judged = np.setdiff1d(np.arange(material.own), material.fit_rows)
    if not len(judged) or not len(material.fit_rows):
        return ()
    return text_mismatch(counts[material.fit_rows], counts[judged]).warnings()
